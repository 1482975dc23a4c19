"""Versions on the history pages: naming a moment, the list, changing, locking, deleting, comparing two."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from documents.models import Document
from history.models import Action, AuditEntry, Update, Version
from history.versions import change_version, name_version
from tests.integration.history_pages.builders import (
    PAGE_DOORS,
    Shared,
    hidden_in,
    page_url,
    signed_in,
)

pytestmark = pytest.mark.django_db


def names(shared: Shared) -> list[tuple[int, str, str]]:
    versions = Version.objects.filter(document=shared.document).order_by("seq", "id")
    return list(versions.values_list("seq", "name", "note"))


def named(client: Client, shared: Shared, door: str = "page", /, **typed: Any) -> Any:
    return client.post(page_url(shared, "name", door), typed, follow=True)


@pytest.mark.parametrize("door", PAGE_DOORS)
def test_a_moment_is_named_by_who_asks_through_that_door(shared: Shared, root: Client, door: str) -> None:
    page = root.get(page_url(shared, "name", door), {"seq": 2}).content.decode()
    assert hidden_in(page) == {"seq": "2"}
    done = named(root, shared, door, seq=2, name="Draft", note="for Bea\nand Cy")
    assert "Seq 2 is “Draft” now." in done.content.decode()
    assert names(shared) == [(2, "Draft", "for Bea\nand Cy")]
    entry = AuditEntry.objects.get(document_id=shared.document.pk, action=Action.VERSION_NAMED)
    assert (entry.via, entry.user and entry.user.get_username()) == (PAGE_DOORS[door], "root")


@pytest.mark.parametrize("door", PAGE_DOORS)
def test_every_act_on_a_version_is_in_the_audit_with_its_door(shared: Shared, root: Client, door: str) -> None:
    version = name_version(shared.document, name="Draft", actor=shared.owner).version.id
    at = {"version": version}
    root.post(page_url(shared, "version", door), {**at, "name": "Final", "note": ""})
    root.post(page_url(shared, "lock", door), {**at, "locked": 1})
    root.post(page_url(shared, "lock", door), {**at, "locked": 0})
    root.post(page_url(shared, "forget", door), at)
    told = AuditEntry.objects.filter(document_id=shared.document.pk, user__username="root").order_by("n")
    acts = [(entry.action, entry.via) for entry in told if entry.action != Action.OPENED]
    wanted = [Action.VERSION_RENAMED, Action.VERSION_LOCKED, Action.VERSION_UNLOCKED, Action.VERSION_DELETED]
    assert acts == [(action, PAGE_DOORS[door]) for action in wanted]
    assert names(shared) == []


def test_a_form_that_is_sent_twice_names_once_and_says_so_both_times(shared: Shared) -> None:
    client = signed_in(shared.editor)
    typed = {"seq": 2, "name": " Draft ", "note": "for Bea "}
    for _ in range(2):
        assert "Seq 2 is “Draft” now." in named(client, shared, **typed).content.decode()
    assert names(shared) == [(2, "Draft", "for Bea")]


@pytest.mark.parametrize("other", [{"seq": 3}, {"note": "another"}])
def test_a_name_that_is_taken_is_said_and_the_form_keeps_what_was_typed(shared: Shared, other: dict[str, Any]) -> None:
    client = signed_in(shared.editor)
    typed = {"seq": 2, "name": "Draft", "note": "for Bea"}
    named(client, shared, **typed)
    refused = named(client, shared, **(typed | other))
    page = refused.content.decode()
    assert refused.status_code == 409
    assert "Another version of this document has that name." in page
    assert 'value="Draft"' in page and (other.get("note", "for Bea")) in page
    taken = named(signed_in(shared.owner), shared, **typed)
    assert taken.status_code == 409, "somebody else's name is no second sending"
    assert len(names(shared)) == 1


@pytest.mark.parametrize(
    ("typed", "status", "words"),
    [
        ({"seq": 2, "name": ""}, 400, "This field is required."),
        ({"seq": 2, "name": "x" * 201}, 400, "at most"),
        ({"seq": 2, "name": "a\x07b"}, 400, "control character"),
        ({"seq": 2, "name": "Draft", "note": "\x07"}, 400, "control character"),
        ({"seq": 9, "name": "Draft"}, 404, "There is no moment 9"),
        ({"seq": "x", "name": "Draft"}, 400, "seq is a whole number"),
    ],
)
def test_what_is_no_name_or_no_moment_is_said_in_words(
    shared: Shared, typed: dict[str, Any], status: int, words: str
) -> None:
    answer = named(signed_in(shared.editor), shared, **typed)
    assert (answer.status_code, words in answer.content.decode()) == (status, True)
    assert names(shared) == []


def test_too_many_versions_are_refused_in_words(shared: Shared, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "VERSIONS_MAX": 1}
    client = signed_in(shared.editor)
    named(client, shared, seq=1, name="One")
    refused = named(client, shared, seq=2, name="Two")
    assert (refused.status_code, "as many named versions" in refused.content.decode()) == (409, True)
    assert 'value="Two"' in refused.content.decode()


def test_a_document_that_is_deleted_between_the_gate_and_the_act_is_a_404(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted_meanwhile(*args: Any, **options: Any) -> Any:
        Document.objects.filter(pk=shared.document.pk).update(deleted_at="2026-01-01T00:00:00Z")
        return name_version(*args, **options)

    monkeypatch.setattr("history.pages.naming.name_version", deleted_meanwhile)
    refused = named(signed_in(shared.editor), shared, seq=1, name="One")
    assert (refused.status_code, "There is no such document" in refused.content.decode()) == (404, True)
    assert names(shared) == []


def test_a_locked_version_offers_an_owner_to_unlock_it_and_nobody_to_change_it(shared: Shared) -> None:
    version = name_version(shared.document, name="Signed", actor=shared.owner).version.id
    change_version(shared.document, version, locked=True, actor=shared.owner)
    client = signed_in(shared.owner)
    listed = client.get(page_url(shared, "versions", "page")).content.decode()
    assert "Unlock" in listed and "Rename…" not in listed and "Delete…" not in listed
    typed = {"version": version, "name": "Other", "note": "typed"}
    refused = client.post(page_url(shared, "version", "page"), typed)
    page = refused.content.decode()
    assert (refused.status_code, "This version is locked." in page) == (409, True)
    assert 'value="Other"' in page and "typed" in page
    refused = client.post(page_url(shared, "forget", "page"), {"version": version})
    assert (refused.status_code, "This version is locked." in refused.content.decode()) == (409, True)
    assert names(shared) == [(3, "Signed", "")]


@pytest.mark.parametrize("page", ["version", "forget", "lock"])
@pytest.mark.parametrize(("version", "status"), [({"version": 5}, 404), ({}, 400), ({"version": "x"}, 400)])
def test_a_version_that_is_not_there_is_said_in_words(
    shared: Shared, page: str, version: dict[str, Any], status: int
) -> None:
    answer = signed_in(shared.owner).post(page_url(shared, page, "page"), {**version, "name": "x", "locked": 1})
    assert answer.status_code == status
    assert 'class="problem"' in answer.content.decode()


def test_a_version_that_came_by_itself_may_be_noted_without_a_name(shared: Shared) -> None:
    at = Update.objects.get(document=shared.document, seq=2).at
    Version.objects.create(document=shared.document, id=7, seq=2, at=at, created_at=at, automatic=True)
    client, url = signed_in(shared.editor), page_url(shared, "version", "page")
    assert "Kept by itself" in client.get(page_url(shared, "versions", "page")).content.decode()
    client.post(url, {"version": 7, "name": "", "note": "the good one"})
    assert Version.objects.get(id=7).automatic
    client.post(url, {"version": 7, "name": "Good", "note": "the good one"})
    assert not Version.objects.get(id=7).automatic
    assert names(shared) == [(2, "Good", "the good one")]


@pytest.mark.parametrize("door", PAGE_DOORS)
@pytest.mark.parametrize("ends", [(1, 3), (3, 1)])
def test_any_two_are_compared_on_the_history_page_in_either_order(
    shared: Shared, root: Client, door: str, ends: tuple[int, int]
) -> None:
    answer = root.get(page_url(shared, "versions", door), {"from": ends[0], "to": ends[1]}, follow=True)
    home = shared.urls()["page" if door == "page" else "admin"]
    assert answer.redirect_chain == [(f"{home}?seq=3&show=compare&from=1", 302)]
    assert "From seq 1 to 3:" in answer.content.decode()


def test_the_list_is_paged_and_what_cannot_be_read_is_a_400(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("history.pages.naming.VERSIONS_PER_PAGE", 2)
    for seq, name in enumerate(("Start", "One", "Two", "Three")):
        name_version(shared.document, name=name, seq=seq, actor=shared.editor)
    client, url = signed_in(shared.viewer), page_url(shared, "versions", "page")
    first = client.get(url)
    assert [line.version.name for line in first.context["page"].lines] == ["Three", "Two"]
    assert first.content.decode().count('name="from" value="2" checked') == 1, "what Three says is what there is now"
    cursor = first.context["page"].next_cursor
    rest = client.get(url, {"before": f"{cursor.seq}.{cursor.id}"})
    assert f"?before={cursor.seq}.{cursor.id}" in first.content.decode()
    assert [line.version.name for line in rest.context["page"].lines] == ["One", "Start"]
    for query in ({"before": "x"}, {"from": "x", "to": "1"}):
        assert client.get(url, query).status_code == 400


def test_a_name_is_text_wherever_it_lands(shared: Shared) -> None:
    client = signed_in(shared.owner)
    attack = "\"'><script>alert(1)</script>"
    named(client, shared, seq=1, name=attack, note=attack)
    version = Version.objects.get().id
    for page in ("versions", "version", "forget"):
        shown = client.get(page_url(shared, page, "page"), {"version": version}).content.decode()
        assert "<script>alert" not in shown


def test_a_version_beyond_the_end_of_a_log_that_was_set_back_cannot_be_opened_or_copied(shared: Shared) -> None:
    at = Update.objects.get(document=shared.document, seq=3).at
    Version.objects.create(document=shared.document, id=8, seq=30, at=at, name="Lost", created_at=at)
    listed = signed_in(shared.owner).get(page_url(shared, "versions", "page")).content.decode()
    assert "beyond the end of the log" in listed
    assert "seq=30" not in listed
    assert reverse("document-history", args=[shared.document.key]) in listed


def test_what_was_locked_is_told_by_its_name(shared: Shared, root: Client) -> None:
    version = name_version(shared.document, name="Draft", actor=shared.owner).version.id
    for locked, words in ((1, "“Draft” is locked."), (0, "“Draft” is no longer locked.")):
        done = root.post(page_url(shared, "lock", "page"), {"version": version, "locked": locked}, follow=True)
        assert words in done.content.decode()
