"""Answers that are written as they are read, under any kind of server."""

from collections.abc import AsyncIterator, Generator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse


def streamed(request: HttpRequest, chunks: Generator[bytes], *, content_type: str) -> StreamingHttpResponse:
    """An answer of chunks, each made when the one before it is on its way.

    Under ASGI each is made on the request's own thread: Django would gather an ordinary iterator whole. What is not
    read to its end, as the reader went away, is closed there too."""
    content = _OnTheThread(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(content, content_type=content_type)


class _OnTheThread:
    """Chunks for an event loop. Django calls `close` on the thread on which they are made: a transaction that they hold
    open cannot be ended on another one, which is where the collector of garbage would come from."""

    def __init__(self, chunks: Generator[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        def following() -> bytes | None:
            return next(self._chunks, None)

        while (chunk := await sync_to_async(following)()) is not None:
            yield chunk

    def close(self) -> None:
        self._chunks.close()
