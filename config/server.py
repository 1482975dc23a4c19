"""One web worker: uvicorn on a listening socket that the supervisor bound, WebSockets by websockets-sansio.

Three things differ from the `uvicorn` command: rooms are drained before sockets are closed, no peer is waited for
without a bound, and no log line ever shows a query string, because `/ws/<room>?ticket=…` carries a right to connect.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import re
import socket
from importlib import import_module
from math import ceil
from typing import Any

import uvicorn
from django.conf import settings
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from documents.conf import conf

LOOK_SECONDS = 0.05
"""How often the end looks whether the last clients have answered their close."""

_QUERY = re.compile(r"\?[^\s\"']+")


class WithoutQueryStrings(logging.Filter):
    """Cuts everything from a `?` to the end of the word out of each record, arguments included."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "?" in message:
            record.msg, record.args = _QUERY.sub("", message), ()
        return True


def log_config(level: str = "WARNING") -> dict[str, Any]:
    """uvicorn's logging, for `logging.config.dictConfig`. INFO adds a line for each socket that connects."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
        "filters": {"without_query_strings": {"()": WithoutQueryStrings}},
        "handlers": {
            "uvicorn": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["without_query_strings"]}
        },
        "loggers": {
            # On the logger as well, for handlers that a host project adds to it.
            "uvicorn.error": {"filters": ["without_query_strings"]},
            "uvicorn": {"handlers": ["uvicorn"], "level": level, "propagate": False},
        },
    }


def websocket_protocol() -> type[asyncio.Protocol]:
    """Our protocol class, which sends one encoded frame to many sockets; uvicorn's own where it is not there."""
    return _plugged("realtime.uvicorn_protocol", "SharedFrameProtocol") or WebSocketsSansIOProtocol


def http_protocol() -> type[asyncio.Protocol]:
    """Our protocol class, which does not wait for ever for a request; uvicorn's own where it is not there."""
    return _plugged("realtime.uvicorn_http", "PunctualHttpProtocol") or H11Protocol


async def warm_up() -> None:
    """Connect to the services before the worker says that it is ready."""
    if prepare := _plugged("realtime.hub", "warm_up"):
        await prepare()


async def drain() -> None:
    """Let every room store and send what it has in hand, while its sockets are still open."""
    if finish := _plugged("realtime.hub", "drain"):
        await finish()


def _plugged(module: str, name: str) -> Any:
    """`name` of `module`, or None where that floor does not bring it: the worker serves any ASGI application."""
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


class Server(uvicorn.Server):
    """uvicorn closes every socket with 1012 before the lifespan ends; this one drains the rooms before that."""

    def __init__(self, config: uvicorn.Config, *, ready_fd: int | None = None) -> None:
        """`ready_fd` is a pipe's end: one byte is written to it when the worker accepts connections."""
        super().__init__(config)
        self.ready_fd = ready_fd

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await warm_up()
        await super().startup(sockets=sockets)
        if self.ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):  # a worker that replaces a dead one: nobody waits
                os.write(self.ready_fd, b"1")
            os.close(self.ready_fd)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:  # no new sockets while the rooms drain; a second close does nothing
            server.close()
        await drain()
        close_seconds = conf().close_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(close_seconds):
                await self._closes_answered()
        self.config.timeout_graceful_shutdown = ceil(close_seconds)
        await super().shutdown(sockets=sockets)

    async def _closes_answered(self) -> None:
        """Wait for the closing handshakes under way: cut before its client has read it, a 1012 would arrive as 1006."""
        while any(getattr(each, "close_sent", False) for each in self.server_state.connections):  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(LOOK_SECONDS)


def make_config(application: Any = "config.asgi:application", *, log_level: str = "WARNING") -> uvicorn.Config:
    """The configuration of a worker; compression of small frames costs more than it saves."""
    trusted_proxies: list[str] = getattr(settings, "TRUSTED_PROXIES", [])
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=http_protocol(),
        ws=websocket_protocol(),
        ws_per_message_deflate=False,
        access_log=False,
        log_config=log_config(log_level),
        ws_max_size=max(conf().frame_bytes_max, conf().sync_frame_bytes_max),
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        server_header=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--ready-fd", type=int, help="a pipe to write one byte to when connections are accepted")
    parser.add_argument("--app", default="config.asgi:application")
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    server = Server(make_config(arguments.app), ready_fd=arguments.ready_fd)
    server.run(sockets=[socket.socket(fileno=arguments.fd)])


if __name__ == "__main__":
    main()
