"""A body of JSON is read as far as it may be long, whatever length was announced, and nothing else passes for one."""

from io import BytesIO

import pytest
from django.core.handlers.asgi import ASGIRequest

from documents.json_doors import REQUEST_BYTES_MAX, json_of
from history.parameters import json_in
from history.problems import BadMoment


def unannounced(body: bytes) -> tuple[ASGIRequest, BytesIO]:
    """A request in chunks: no Content-Length says how much there is."""
    stream = BytesIO(body)
    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    return ASGIRequest(scope, stream), stream


def test_a_body_without_a_length_is_read_no_further_than_it_may_be_long() -> None:
    request, stream = unannounced(b'{"seq": "' + b"9" * 10 * REQUEST_BYTES_MAX + b'"}')
    with pytest.raises(BadMoment, match=f"at most {REQUEST_BYTES_MAX} bytes"):
        json_in(request, example="{}")
    assert stream.tell() == REQUEST_BYTES_MAX + 1


def test_a_body_of_all_the_bytes_that_it_may_have_is_read() -> None:
    body = b'{"a": 1}'.ljust(REQUEST_BYTES_MAX)
    assert json_in(unannounced(body)[0], example="{}") == {"a": 1}
    with pytest.raises(BadMoment):
        json_in(unannounced(body + b" ")[0], example="{}")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * REQUEST_BYTES_MAX])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        json_of(unannounced(body)[0])
