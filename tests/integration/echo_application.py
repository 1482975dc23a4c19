"""A small ASGI application for the tests of web workers, in a process with Django set up, as a real one has it."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import django
from django.apps import apps

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

if not apps.ready:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answers HTTP with its process id, and a WebSocket with what comes in."""
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
