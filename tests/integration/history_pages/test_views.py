"""The views of a moment: what changed until then and since, what is between any two, and who wrote it."""

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client
from pycrdt import Array, Map, Text, XmlElement, XmlFragment, XmlText

from history.authors import author_of
from history.blaming import blame_of
from history.models import Kind, Update
from history.pages import changing
from history.pages.blaming import BlameHtml
from history.pages.changing import ChangesHtml, shown_changes
from history.pages.previewing import preview_of
from history.reading import difference
from history.timeline import moment_of, place_of
from history.undoing import plan_restore
from tests.builders import append_rows, make_document, make_history, make_session, rechain, seconds_apart, typed
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, signed_in

pytestmark = pytest.mark.django_db

VIEWS = ("content", "changes", "now", "compare", "authors")


@pytest.fixture
def shared() -> Shared:
    """Four seqs of three runs, minutes apart: the owner writes two, the editor one, the owner one."""
    shared = a_shared_document()
    shared.type(shared.owner, "one ")
    shared.type(shared.owner, "two ")
    shared.type(shared.editor, "three ")
    shared.type(shared.owner, "four")
    rechain(shared.document, at=seconds_apart(60, 600, 600))
    return shared


@pytest.fixture
def client(shared: Shared) -> Client:
    return signed_in(shared.viewer)


def shown(client: Client, shared: Shared, **query: Any) -> str:
    """The part of the page that is the moment, without its forms."""
    asked: dict[str, Any] = {"part": "moment", **query}
    response = client.get(shared.urls()["page"], asked)
    assert response.status_code == 200, response.content
    return response.content.decode()


def said(html: str) -> str:
    """The words of what changed, or of who wrote what, without elements."""
    paper = html[html.index('<div class="paper') :]
    return unescape(re.sub(r"<[^>]+>", "", paper))


@pytest.mark.parametrize("show", VIEWS)
def test_each_view_stands_on_the_site_and_in_the_admin(shared: Shared, show: str) -> None:
    root = signed_in(a_user("root", is_staff=True, is_superuser=True))
    query: dict[str, Any] = {"seq": 3, "show": show, "from": 1}
    for door in ("page", "admin"):
        html = root.get(shared.urls()[door], query).content.decode()
        (current,) = re.findall(r'data-view href="([^"]+)" aria-current="page"', html)
        assert current.startswith(shared.urls()[door])
        assert ("show=" not in current) if show == "content" else (f"show={show}" in current)
        assert " style=" not in html


@pytest.mark.parametrize("show", VIEWS)
def test_who_may_not_see_the_document_sees_none_of_its_views(shared: Shared, show: str) -> None:
    stranger = signed_in(a_user("stranger"))
    assert stranger.get(shared.urls()["page"], {"show": show, "part": "moment"}).status_code == 404


def test_changes_are_those_since_the_run_before_ended(shared: Shared, client: Client) -> None:
    html = shown(client, shared, seq=3, show="changes")
    assert "From seq 2 to 3:" in html
    assert "inserted “three”" in html
    assert "one two <ins>three </ins>" in html
    assert "<ins>one </ins>" in shown(client, shared, seq=1, show="changes")
    assert "Nothing changed." in shown(client, shared, seq=0, show="changes")


def test_what_changed_up_to_now_is_told_from_any_moment(shared: Shared, client: Client) -> None:
    assert "one <ins>two three four</ins>" in shown(client, shared, seq=1, show="now")
    assert "Nothing changed." in shown(client, shared, seq=4, show="now")


def test_any_two_moments_are_compared_the_earlier_first(shared: Shared, client: Client) -> None:
    for seq, other in ((1, 3), (3, 1)):
        html = shown(client, shared, **{"seq": seq, "from": other, "show": "compare"})
        assert "From seq 1 to 3:" in html
        assert "one <ins>two three </ins>" in html
    assert "From seq" not in shown(client, shared, seq=1, show="compare")


def test_who_wrote_what_is_told_by_colour_and_in_words(shared: Shared, client: Client) -> None:
    html = shown(client, shared, seq=4, show="authors")
    pieces = re.findall(r'<span class="by author-(\d+)" title="([^"]+)">([^<]*)</span>', html)
    colours = [author_of(user).colour for user in (shared.owner, shared.owner, shared.editor, shared.owner)]
    assert [int(colour) for colour, _, _ in pieces] == colours
    assert [words for _, _, words in pieces] == ["one ", "two ", "three ", "four"]
    assert [title for _, title, _ in pieces][2] == "editor · 1 Jan 2026, 00:11 · via websocket"
    assert re.findall(r'author-\d+">(\w+)</span>\s+<span class="of">(\d+)<', html[html.index("legend") :]) == [
        ("owner", "12"),
        ("editor", "6"),
    ]


def test_deleted_text_and_who_deleted_it_are_told_when_asked(shared: Shared, client: Client) -> None:
    text = shared.doc.get("text", type=Text)
    shared.edit(shared.editor, lambda: text.__delitem__(slice(0, 4)))
    assert "one " not in said(shown(client, shared, show="authors"))
    html = shown(client, shared, show="authors", deleted=1)
    assert re.search(r'<del class="by [^"]+" title="owner · [^"]+ — deleted by editor · [^"]+">one </del>', html)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"show": "everything"}, 400, "show is one of"),
        ({"show": "compare", "from": "x"}, 400, "from is a whole number"),
        ({"show": "compare", "from": "9"}, 404, "There is no moment 9"),
        ({"show": "authors", "deleted": "yes"}, 400, "deleted is 0 or 1"),
        ({"show": "changes", "seq": "9"}, 404, "There is no moment 9"),
    ],
)
def test_what_cannot_be_shown_is_said_in_words(
    shared: Shared, client: Client, query: dict[str, str], status: int, words: str
) -> None:
    for part in ({}, {"part": "moment"}):
        response = client.get(shared.urls()["page"], {**query, **part})
        assert response.status_code == status
        assert words in response.content.decode()


@pytest.mark.parametrize("show", VIEWS[1:])
def test_a_damaged_log_is_said_in_words_in_every_view(shared: Shared, client: Client, show: str) -> None:
    Update.objects.filter(document=shared.document, seq=2)._raw_delete("default")
    query: dict[str, Any] = {"seq": 3, "show": show, "from": 1, "part": "moment"}
    response = client.get(shared.urls()["page"], query)
    assert response.status_code == 503
    assert "Entry 2 of the log is missing" in response.content.decode()


def test_a_step_and_another_moment_keep_the_view(shared: Shared, client: Client) -> None:
    query: dict[str, Any] = {"seq": 2, "show": "authors", "deleted": 1, "before": 4}
    stepped = client.get(shared.urls()["page"], {**query, "step": "next", "part": "moment"})
    assert stepped["Location"].split("?")[1] == "before=4&show=authors&deleted=1&part=moment&seq=3"
    page = client.get(shared.urls()["page"], query).content.decode()
    assert '<input type="hidden" name="show" value="authors">' in page
    assert "?seq=3&amp;before=4&amp;show=authors&amp;deleted=1" in page


@pytest.mark.parametrize("seed", range(6))
def test_of_random_histories_a_difference_shows_all_that_is_there_and_no_more(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "CONTEXT_CHARACTERS", 10**6)
    document = make_history(seed)
    head_seq = place_of(document).head_seq
    for from_seq in range(0, head_seq, 7):
        found = difference(document, from_seq=from_seq, to_seq=head_seq)
        roots = {root.name: root.html for root in shown_changes(found.changes, found.after).roots}
        assert roots.keys() == found.changes.keys()
        [*of_root] = [node for node in found.changes.get("text", []) if not node["path"]]
        if of_root:
            first = re.findall(r"(?s)<section.*?</section>", roots["text"])[0]
            there = re.sub(r'(?s)<del>.*?</del>|<span class="note">.*?</span>', "", first)
            words = re.sub(r'(?s)<span class="embed">.*?</span>', "", there)
            text = moment_of(document, head_seq).content["text"]["text"]
            assert unescape(re.sub("<[^>]+>", "", words)) == text


@pytest.mark.parametrize("seed", range(6))
def test_of_random_histories_a_blame_shows_all_that_is_there(seed: int) -> None:
    document = make_history(seed)
    for deleted in (False, True):
        blamed = blame_of(document, deleted=deleted)
        for name, nodes in blamed.content.items():
            html = BlameHtml(blamed.writings, characters_max=10**6).blamed(nodes)
            shown_words = unescape(re.sub("<[^>]+>", "", html))
            for node in nodes:
                for run in node.get("runs", []):
                    words = run.get("insert")
                    assert not isinstance(words, str) or words in shown_words, name
            assert html.count("<div") == html.count("</div>")


def test_a_document_nested_as_deep_as_the_gate_lets_in_has_all_views() -> None:
    shared = a_shared_document()
    xml = shared.doc.get("xml", type=XmlFragment)

    def nest() -> None:
        with shared.doc.transaction():
            node: Any = xml
            for _ in range(98):
                node.children.append(XmlElement("quote"))
                node = node.children[0]
            node.children.append(XmlText("deep"))

    shared.edit(shared.owner, nest)
    client = signed_in(shared.viewer)
    for show in VIEWS:
        html = shown(client, shared, **{"seq": 0 if show == "now" else 1, "show": show, "from": 0})
        assert "deep" in said(html)


def test_a_long_difference_and_a_long_blame_are_cut_and_lead_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("changing", "blaming"):
        monkeypatch.setattr(f"history.pages.{module}.CHARACTERS_MAX", 300)
    shared = a_shared_document()
    shared.type(shared.owner, "x" * 1000)
    client = signed_in(shared.viewer)
    key = shared.document.key
    for show, whole in (("changes", f"{key}/changes?from=0&amp;to=1"), ("authors", f"{key}/blame?seq=1")):
        html = shown(client, shared, seq=1, show=show)
        assert "x" * 301 not in html
        assert whole in html


def test_small_pieces_are_bounded_as_long_texts_are() -> None:
    pieces: list[Any] = [piece for _ in range(5000) for piece in ({"retain": 1}, {"insert": "y", "attributes": {}})]
    delta: list[Any] = [{"insert": "xy" * 5000, "attributes": {}}]
    html = ChangesHtml(characters_max=1000)
    shown = html.changed([{"path": [], "type": "text", "spans": pieces}], {"type": "text", "delta": delta})
    assert html.is_cut
    assert len(shown) < 3000


KEYS = {f"k{number}": {"old": 1, "new": 2} for number in range(5000)}
BY_NOBODY = [{"insert": [number], "by": 0} for number in range(5000)]


@pytest.mark.parametrize(
    "nodes",
    [
        [{"path": [], "type": "array", "spans": [{"retain": 1}, {"insert": [1]}] * 5000}],
        [{"path": [], "type": "array", "spans": [{"insert": [1] * 5000}]}],
        [{"path": [], "type": "map", "keys": KEYS}],
        [{"path": [], "type": "map", "keys": {}}] * 5000,
    ],
    ids=["spans", "values of one span", "keys", "nodes"],
)
def test_a_difference_of_many_values_is_bounded_too(nodes: list[Any]) -> None:
    html = ChangesHtml(characters_max=1000)
    shown = html.changed(nodes, {"type": nodes[0]["type"], "items": [], "entries": {}})
    assert html.is_cut
    assert len(shown) < 10_000


@pytest.mark.parametrize(
    "node",
    [
        {"path": [], "type": "array", "runs": BY_NOBODY},
        {"path": [], "type": "map", "keys": {f"k{number}": {"by": 0, "value": 1} for number in range(5000)}},
    ],
    ids=["values", "keys"],
)
def test_a_blame_of_many_values_is_bounded_too(node: Any) -> None:
    html = BlameHtml({}, characters_max=1000)
    shown = html.blamed([node])
    assert html.is_cut
    assert len(shown) < 10_000


def test_a_difference_of_maps_arrays_and_formats_is_told_by_key_place_and_format(shared: Shared) -> None:
    settings, todo = shared.doc.get("settings", type=Map), shared.doc.get("todo", type=Array)
    shared.edit(shared.owner, lambda: settings.update({"language": "en", "deep": Map({"k": 1})}))
    shared.edit(shared.owner, lambda: todo.extend(["a", "b"]))
    before = shared.head_seq
    shared.edit(shared.owner, lambda: settings.update({"language": "de"}))
    shared.edit(shared.owner, lambda: settings["deep"].update({"k": 2}))
    shared.edit(shared.owner, lambda: todo.insert(1, {"done": True}))
    shared.edit(shared.owner, lambda: shared.doc.get("text", type=Text).format(0, 3, {"bold": True}))
    found = difference(shared.document, from_seq=before, to_seq=shared.head_seq)
    shown_roots = shown_changes(found.changes, found.after).roots
    roots = {root.name: root.html for root in shown_roots}
    assert (
        '<span class="key-name">language</span> <del><code class="value">en</code></del>'
        '<ins><code class="value">de</code></ins>'
    ) in roots["settings"]
    assert '<p class="path">deep</p>' in roots["settings"]
    assert "1 stays as before" in roots["todo"]
    assert '<ins><code class="value">{&quot;done&quot;: true}</code></ins>' in roots["todo"]
    assert '<span class="formatted"><strong>one</strong><span class="note">bold: true</span></span>' in roots["text"]


def test_a_root_that_was_emptied_is_called_what_it_was() -> None:
    shared = a_shared_document()
    prose = shared.doc.get("prose", type=XmlFragment)
    shared.edit(shared.owner, lambda: shared.doc.get("settings", type=Map).update({"language": "en"}))
    shared.edit(shared.owner, lambda: prose.children.append(XmlElement("paragraph")))
    preview = preview_of(shared.document, plan_restore(shared.document.pk, 1))
    assert preview.changed is not None
    assert [(root.name, root.kind) for root in preview.changed.roots] == [("prose", "xml")]


def test_a_page_of_runs_that_cannot_be_told_is_a_400(shared: Shared, client: Client) -> None:
    response = client.get(shared.urls()["page"], {"before": "first"})
    assert (response.status_code, "before is a whole number" in response.content.decode()) == (400, True)


def test_a_long_text_that_stayed_is_shown_around_what_changed() -> None:
    document = make_document()
    session = make_session(document)
    [first, second] = typed(["x" * 1000, "new"])
    append_rows(session, [first, second])
    found = difference(document, from_seq=1, to_seq=2)
    [root] = shown_changes(found.changes, found.after).roots
    assert root.html.count("x") == changing.CONTEXT_CHARACTERS
    assert '<span class="left-out">…</span>' in root.html
    assert "<ins>new</ins>" in root.html


def test_acts_are_told_in_a_blame(shared: Shared, client: Client) -> None:
    append_rows(make_session(shared.document, shared.owner), typed(["more"], client_id=9), kind=Kind.IMPORT)
    assert "· import" in shown(client, shared, show="authors")
