"""A client of a JSON room on the real door, in this process: it keeps what it is told, and checks that it fits."""

import asyncio
import json
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from django.contrib.auth.models import AnonymousUser

from realtime.collab.consumers import RealtimeCollaborationConsumer
from tests.quill import Unit, applied, text_of

DEADLINE_SECONDS = 10.0

FIELDS = {
    "connection_established": {"participants", "user_count"},
    "user_count": {"user_count"},
    "cursor_broadcast": {"cursor"},
    "document_update": {"content", "editor", "seq", "delta"},
    "edit_ack": {"id", "seq"},
    "error": {"code", "message", "id"},
}
"""What a message of each type has beside its type, no more and no less; docs/protocol.md says so."""

MAY_HAVE = {"document_update": {"editors"}}
MAY_LACK = {"document_update": {"content"}}


class Client:
    """`text` is what the deltas make, `content` what was last told whole; `said` is everything; `closed` the close code
    once there is one. It takes nothing while `reads` is not set."""

    def __init__(
        self,
        room: str,
        user: Any = None,
        *,
        query: str = "",
        consumer: type[RealtimeCollaborationConsumer] = RealtimeCollaborationConsumer,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.said: list[dict[str, Any]] = []
        self.closed: int | None = None
        self.units: list[Unit] = []
        self.content: Any = None
        self.seq = -1
        self.reads = asyncio.Event()
        self.reads.set()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Condition()
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": f"/ws/rooms/{room}/",
            "url_route": {"kwargs": {"room_id": room}},
            "headers": list(headers),
            "query_string": query.encode(),
            "client": ("192.0.2.1", 1234),
            "user": user or AnonymousUser(),
        }
        self._task = asyncio.create_task(consumer.as_asgi()(scope, self._incoming.get, self._send))
        self._incoming.put_nowait({"type": "websocket.connect"})

    async def __aenter__(self) -> Self:
        await self.until(lambda: self.seq >= 0 or self.closed is not None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.reads.set()
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self._task, DEADLINE_SECONDS)

    @property
    def text(self) -> str:
        return text_of(self.units)

    def of_type(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.said if each["type"] == name]

    @property
    def acks(self) -> dict[Any, int]:
        return {each["id"]: each["seq"] for each in self.of_type("edit_ack")}

    @property
    def errors(self) -> list[tuple[str, Any]]:
        return [(each["code"], each["id"]) for each in self.of_type("error")]

    @property
    def count(self) -> int:
        """How many are in the room, as it was last told."""
        told = [each for each in self.said if each["type"] in ("user_count", "connection_established")]
        return int(told[-1]["user_count"])

    def say(self, **message: Any) -> None:
        self.send(text=json.dumps(message))

    def send(self, **frame: Any) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", **frame})

    async def edit(self, edit_id: str | int | None = None, **edit: Any) -> dict[str, Any]:
        """Send an edit; return what is answered."""
        answered = len(self.of_type("edit_ack")) + len(self.of_type("error"))
        self.say(type="document_edit", id=edit_id, **edit)
        await self.until(lambda: len(self.of_type("edit_ack")) + len(self.of_type("error")) > answered)
        return [each for each in self.said if each["type"] in ("edit_ack", "error")][-1]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that only what arrives here can change. Raises: TimeoutError."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(holds)

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self.reads.wait()
            self._take(json.loads(message["text"]))
        elif message["type"] == "websocket.close":
            self.closed = message.get("code", 1000)
        async with self._changed:
            self._changed.notify_all()

    def _take(self, said: dict[str, Any]) -> None:
        self.said.append(said)
        assert_shape(said)
        if said["type"] != "document_update":
            return
        assert said["seq"] >= self.seq
        self.seq = said["seq"]
        self.content = said.get("content", self.content)
        if said["delta"] is None:
            is_text = isinstance(self.content, str) and self.content
            self.units = applied([], [{"insert": self.content}]) if is_text else []
        elif isinstance(self.content, str):
            self.units = applied(self.units, said["delta"])
            assert "content" not in said or text_of(self.units) == said["content"], "the delta does not fit"


def assert_shape(said: dict[str, Any]) -> None:
    """The fields are those of its type; of a type of somebody's own nothing is known."""
    type_ = said["type"]
    if type_ not in FIELDS:
        return
    fields = said.keys() - {"type"} - MAY_HAVE.get(type_, set())
    assert FIELDS[type_] - MAY_LACK.get(type_, set()) <= fields <= FIELDS[type_], f"{type_} has {sorted(fields)}"
    for person in said.get("participants", ()):
        assert person.keys() == {"user_id", "username", "color"}
    if type_ == "cursor_broadcast":
        assert said["cursor"].keys() == {"user_id", "username", "position", "color"}
    for editor in (said.get("editor"), *said.get("editors", ())):
        assert editor is None or editor.keys() == {"user_id", "username"}
