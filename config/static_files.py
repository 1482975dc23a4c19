"""WhiteNoise for ASGI: static files are sent from memory, and other requests pass without a hop to a thread.

WhiteNoise's own middleware answers with a file to be iterated over, which Django under ASGI warns about and then reads
whole all the same; and being synchronous only, it makes Django run everything behind it through one thread.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # whitenoise has no types
    """As WhiteNoiseMiddleware. The files are the few of the admin and the committed bundle: all fit into memory."""

    sync_capable = async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._answer(request) if self.is_async else super().__call__(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        if self.autorefresh and request.path_info.startswith(self.static_prefix):  # DEBUG: looked up on the disk
            static_file = await asyncio.to_thread(self.find_file, request.path_info)
        else:
            static_file = self.files.get(request.path_info)
        if static_file is not None:
            return await asyncio.to_thread(self.serve, static_file, request)
        response: HttpResponseBase = await self.get_response(request)
        return response

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        """Whatever WhiteNoise answers (200, 206, 304, 405, 416), with its headers alone and the body whole."""
        answer = static_file.get_response(request.method, request.META)
        with answer.file or contextlib.nullcontext() as file:
            response = HttpResponse(file.read() if file else b"", status=int(answer.status))
        del response["Content-Type"]
        for name, value in answer.headers:
            response[name] = value
        return response
