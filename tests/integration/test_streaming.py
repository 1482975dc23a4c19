"""Answers that are written as they are read, behind the real ASGI handler."""

import asyncio
import threading
from collections.abc import Generator
from typing import Any

from asgiref import testing
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from pytest_django import Settings

from history.streaming import streamed

Communicator: Any = testing.ApplicationCommunicator  # has no types

threads: list[int] = []
"""On which thread the chunks began, and on which they were closed."""


def endless() -> Generator[bytes]:
    threads.append(threading.get_ident())
    try:
        while True:
            yield b"chunk"
    finally:
        threads.append(threading.get_ident())


def view(request: HttpRequest) -> StreamingHttpResponse:
    return streamed(request, endless(), content_type="text/plain")


urlpatterns = [path("", view)]


async def test_chunks_are_closed_on_the_thread_on_which_they_were_made_when_the_reader_goes_away(
    settings: Settings,
) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = []
    threads.clear()
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    reader = Communicator(ASGIHandler(), scope)
    await reader.send_input({"type": "http.request", "body": b""})
    assert (await reader.receive_output(timeout=10))["status"] == 200
    assert (await reader.receive_output(timeout=10))["body"] == b"chunk"
    await reader.send_input({"type": "http.disconnect"})
    await reader.wait(timeout=10)
    async with asyncio.timeout(10):
        while len(threads) < 2:
            await asyncio.sleep(0.01)
    began, closed = threads
    assert closed == began != threading.get_ident()
