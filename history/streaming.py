"""Answers that are written as they are read, under any kind of server."""

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse


def streamed(request: HttpRequest, chunks: Iterator[bytes], *, content_type: str) -> StreamingHttpResponse:
    """An answer of chunks, each made when the one before it is on its way.

    Under ASGI each is made on the request's own thread: Django would gather an ordinary iterator whole."""
    content = _on_the_thread(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(content, content_type=content_type)


async def _on_the_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    def following() -> bytes | None:
        return next(chunks, None)

    while (chunk := await sync_to_async(following)()) is not None:
        yield chunk
