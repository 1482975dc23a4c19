"""What all pages that change something share: who acts, and that a form which is sent twice acts once."""

import secrets
from collections.abc import Mapping

from django.http import HttpRequest

from documents.acts import address_of
from documents.models import Document
from history.pages.frame import Frame
from history.sessions import WriteSession
from history.writes import write_session

REQUEST_KEY_BYTES = 16


def session_of(request: HttpRequest, document: Document, frame: Frame) -> WriteSession:
    """A session of whoever asks, through the frame's door."""
    return write_session(
        document,
        actor=request.user,
        via=frame.via,
        ip=address_of(request),
        user_agent=request.headers.get("User-Agent", ""),
    )


def form_key(values: Mapping[str, str]) -> str:
    """The `request_key` of a form: the one that it was sent with, so that what failed is tried again and not done
    twice, else a new one. `history.parameters.request_key_in` reads it."""
    return values.get("request_key") or secrets.token_hex(REQUEST_KEY_BYTES)
