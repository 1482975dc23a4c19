"""A crowd of real Yjs clients in one Node process (crowd.mjs): many documents, each with some people who edit it.

Each counted edit puts a token `<client id>.<number>` into a document; what another person's document showed is told
exactly once, by its token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.clients.driver import NodeClients

ANSWER_SECONDS = 60.0
"""A busy Node is late, never silent."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who edits: the primary key of the account, and the request headers of a browser signed in to it."""

    user: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class News:
    """What happened in one room since it was last asked for. `users` names the user of every client id so far."""

    tokens: list[str]
    users: dict[int, int]


class Crowd(NodeClients):
    """Rooms full of people; an async context manager, as `NodeClients` is."""

    def __init__(self) -> None:
        super().__init__("crowd.mjs")

    async def open_room(
        self,
        room: str,
        people: Sequence[Person],
        *,
        url: str,
        seed: int,
        interval_ms: float,
        max_backoff_ms: int = 1000,
    ) -> None:
        """All come into the room and edit until `stop`, each about once in `interval_ms`."""
        members = [{"user": person.user, "headers": dict(person.headers)} for person in people]
        fields = {"room": room, "people": members, "url": url, "seed": seed}
        await self._ask("open", {**fields, "interval_ms": interval_ms, "max_backoff_ms": max_backoff_ms})

    async def news(self) -> dict[str, News]:
        """What was seen by others since the last call, by room."""
        answer = await self._ask("news", {})
        return {
            room: News(found["tokens"], {int(client): user for client, user in found["users"].items()})
            for room, found in answer.items()
        }

    async def closes(self) -> dict[int, int]:
        """How often sockets were closed, by code."""
        return {int(code): count for code, count in (await self._ask("closes", {})).items()}

    async def stop_rooms(self, rooms: Sequence[str]) -> None:
        """Nobody edits there any more."""
        await self._ask("stop", {"rooms": list(rooms)})

    async def agreed(self, room: str, *, timeout_seconds: float) -> str:
        """Wait until all in a stopped room are synced and hold the same; return its content's hash.

        Raises: NodeError."""
        fields = {"room": room, "timeout_seconds": timeout_seconds}
        return str(await self._ask("agree", fields, seconds=timeout_seconds + ANSWER_SECONDS))

    async def close_room(self, room: str) -> None:
        """All leave; ask for `news` first."""
        await self._ask("close", {"room": room})

    async def content_hash(self, update: bytes) -> str:
        """The hash of a document's content as Yjs itself reads it. Raises: NodeError where something stays pending."""
        return str(await self._ask("content", {"update": update.hex()}))

    async def _ask(self, op: str, fields: Mapping[str, object], *, seconds: float = ANSWER_SECONDS) -> Any:
        return await self.call(op, fields, deadline_seconds=seconds)
