"""A document with people in every role and a log that several of them wrote, for the tests of the pages."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from typing import Any

from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pycrdt import Doc, Text

from documents.models import Document, Role
from history.models import Head, Via
from history.writes import append_update, write_session
from tests.histories import updates_of
from tests.integration.documents.builders import a_document, a_user, signed_in

PAGE_DOORS = {"page": Via.PAGE, "admin": Via.ADMIN}
"""Where the history pages stand."""


@dataclass
class Shared:
    """A document, the people who may write to it, and one that holds what all have written so far."""

    document: Document
    owner: User
    editor: User
    viewer: User
    doc: "Doc[Any]" = field(default_factory=lambda: Doc(client_id=1))

    def edit(
        self, user: User | None, edit: Callable[[], object], *, via: Via = Via.WEBSOCKET, ip: str = "192.0.2.7"
    ) -> int:
        """Let `user` make one edit of `doc` in a session of its own; return the seq that it got."""
        (update,) = updates_of(self.doc, edit)
        stored = append_update(write_session(self.document, actor=user, via=via, ip=ip), update)
        assert stored is not None
        return stored.seq

    def type(self, user: User, words: str, **options: Any) -> int:
        """Let `user` add words at the end of the root `text`."""
        text = self.doc.get("text", type=Text)
        return self.edit(user, lambda: text.insert(len(str(text).encode()), words), **options)

    @property
    def head_seq(self) -> int:
        return Head.objects.get(document=self.document).seq

    def urls(self) -> dict[str, str]:
        """Every address at which the history can be read, by name."""
        key, pk = self.document.key, self.document.pk
        return {
            "page": reverse("document-history", args=[key]),
            "content": reverse("document-content", args=[key]),
            "runs": reverse("document-runs", args=[key]),
            "admin": reverse("admin:history_documenthistory_change", args=[pk]),
        }

    def restore_urls(self) -> dict[str, str]:
        """Every address at which a moment can be restored, by name."""
        key, pk = self.document.key, self.document.pk
        return {
            "page": reverse("document-history-restore", args=[key]),
            "api": reverse("document-restore", args=[key]),
            "admin": reverse("admin:history_documenthistory_restore", args=[pk]),
        }


def page_url(shared: Shared, page: str, door: str) -> str:
    """The address of a history page by its name, on the site (`page`) or in the admin."""
    if door == "admin":
        return reverse(f"admin:history_documenthistory_{page}", args=[shared.document.pk])
    return reverse(f"document-history-{page}", args=[shared.document.key])


def hidden_in(page: str) -> dict[str, str]:
    """The values of the hidden fields of the form that acts (POST), without its CSRF token: what a button sends."""
    (form,) = re.findall(r'<form class="(?:question|sheet)" method="post".*?</form>', page, re.DOTALL)
    found = re.findall(r'<input type="hidden" name="([\w-]+)"(?: value="([^"]*)")?', form)
    return {name: unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}


def a_shared_document(title: str = "Minutes", prefix: str = "") -> Shared:
    owner, editor, viewer = (a_user(f"{prefix}{name}") for name in ("owner", "editor", "viewer"))
    document = a_document(owner, title, editor=(editor, Role.EDITOR), viewer=(viewer, Role.VIEWER))
    return Shared(document, owner, editor, viewer)


def post_restore(client: Client, shared: Shared, door: str, seq: Any, **options: Any) -> Any:
    """Ask for a restore through `door` (page, api or admin)."""
    url = shared.restore_urls()[door]
    if door == "api":
        return client.post(url, {"seq": seq}, content_type="application/json", **options)
    return client.post(url, {"seq": seq}, **options)


__all__ = ["Shared", "a_document", "a_shared_document", "a_user", "hidden_in", "page_url", "post_restore", "signed_in"]
