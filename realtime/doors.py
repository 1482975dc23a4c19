"""What a socket is told that never reaches a consumer: accepted first, because a refusal before that tells nothing."""

import asyncio
import logging
from typing import Any

from django.db import Error as DatabaseError

from documents.conf import conf
from realtime.closing import CloseCode

logger = logging.getLogger(__name__)

DOORS = "sockets are at /ws/<room>, /collaboration, /ws/rooms/<room>/, /ws/chat/<room>/ and /ws/notifications/"


async def no_such_door(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The last route of a project that has no other sockets: says where they are, instead of an error in the log for
    each attempt. A close has room for 123 bytes of it."""
    await receive()
    await _refuse(send, CloseCode.NO_SUCH_DOCUMENT, DOORS)


class WhileDatabaseIsAway:
    """Wraps all that looks into the database before a consumer runs, such as the session of AuthMiddlewareStack: while
    the database is away or slow, a socket gets 1013 and one line in the log instead of a bare 500 and a traceback."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        is_accepted = False

        async def send_and_note(message: dict[str, Any]) -> None:
            nonlocal is_accepted
            if not is_accepted:
                is_accepted = True
                limit.reschedule(None)  # from here on the consumer keeps the time
            await send(message)

        try:
            async with asyncio.timeout(conf().authenticate_seconds or None) as limit:
                await self.application(scope, receive, send_and_note)
        except (DatabaseError, TimeoutError) as error:
            if is_accepted:
                raise
            logger.warning("a socket was turned away, the database is away: %s", type(error).__name__)
            await _refuse(send, CloseCode.TRY_AGAIN, "the database is not available right now")


async def _refuse(send: Any, code: CloseCode, reason: str) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code, "reason": reason})
