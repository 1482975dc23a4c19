"""Those who are in one room through JSON, in this process: what they share."""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from channels.layers import get_channel_layer

from documents.conf import conf
from realtime.collab.participants import Participants, Present
from realtime.collab.views import FieldView
from realtime.frames import SharedMessage
from realtime.groups import collab_group
from realtime.protocols.messages import Said
from realtime.rooms import Room
from realtime.tails import Committed

logger = logging.getLogger(__name__)

LOOKS_PER_LEASE = 10
"""How often, in PRESENCE_LEASE_SECONDS, it is looked whose have run out."""

COUNT_PAUSE_SECONDS = 0.1
"""Of many who come and go at once, the others are told this often."""

RECENT_ROWS_MAX = 2000
RECENT_BYTES_MAX = 1024 * 1024
"""Rows and bytes of the log that a gathering remembers: edits on a base within them need no look at the log."""

EVENTS_KEPT = 64
"""Events of a group that are under way to those who are here, each encoded once."""

Listener: TypeAlias = Callable[[dict[str, Any]], None]

EDITS_REMEMBERED_MAX = 1000
"""Names of edits whose seqs a gathering remembers, so that one that comes again costs nothing."""


class Recent:
    """The last rows that the room has taken over, without a gap."""

    def __init__(self) -> None:
        self._rows: deque[Committed] = deque()
        self._bytes = 0

    def add(self, rows: Sequence[Committed]) -> None:
        for row in rows:
            if self._rows and row.first_seq != self._rows[-1].last_seq + 1:
                self._rows.clear()
                self._bytes = 0
            self._rows.append(row)
            self._bytes += len(row.update)
        while self._rows and (len(self._rows) > RECENT_ROWS_MAX or self._bytes > RECENT_BYTES_MAX):
            self._bytes -= len(self._rows.popleft().update)

    def between(self, after: int, until: int) -> list[bytes] | None:
        """The updates of the rows after+1..until; None where not exactly these are remembered."""
        if after == until:
            return []
        found: list[bytes] = []
        for row in reversed(self._rows):
            if row.last_seq > until:
                continue
            if row.last_seq != until and not found:
                return None
            found.append(row.update)
            if row.first_seq <= after + 1:
                return found[::-1] if row.first_seq == after + 1 else None
        return None


class Gathering:
    """All methods run on the event loop. It ends with the last member that holds it."""

    def __init__(self, room: Room, room_name: str) -> None:
        self.room = room
        self.group = collab_group(room_name)
        self.participants = Participants(self.group)
        self.recent = Recent()
        self.generation = 0
        """Raised where forks of the document do not hold any more."""
        self.edits: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._seq = room.seq
        self._views: WeakValueDictionary[str, FieldView] = WeakValueDictionary()
        self._listeners: list[Listener] = []
        self._told: tuple[int, int] | None = None
        self._events: OrderedDict[int, tuple[dict[str, Any], SharedMessage]] = OrderedDict()
        self._is_looking = False
        self._is_telling = False

    # Who is here

    def enter(self, listener: Listener) -> None:
        """Have `listener` called with what is told when the group cannot be reached, or has not heard."""
        self._listeners.append(listener)
        if not self._is_looking:
            self._is_looking = True
            self.room.hub.spawn(self._look_for_ever())

    def exit(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def tell_count_soon(self) -> None:
        """Tell everyone in all processes how many there are."""
        if not self._is_telling:
            self._is_telling = True
            self.room.hub.spawn(self._tell_count())

    async def send(self, event: dict[str, Any]) -> None:
        """Send to the group; while the channel layer is away, to those who are here."""
        layer = get_channel_layer()
        try:
            if layer is None:
                raise ConnectionError("there is no channel layer")
            async with asyncio.timeout(conf().layer_timeout_seconds):
                await layer.group_send(self.group, event)
        except Exception as error:  # noqa: BLE001  (whatever a layer raises)
            logger.info("channel layer: a JSON room was not told: %s", type(error).__name__)
            self._send_here(event)

    def told_once(self, event: dict[str, Any], said: dict[str, Any]) -> SharedMessage:
        """What an event of the group says, encoded once for all who are here and hear it."""
        shared = self._events.get(id(event))
        if shared is None or shared[0] is not event:
            shared = self._events[id(event)] = event, SharedMessage(Said(said))
            if len(self._events) > EVENTS_KEPT:
                self._events.popitem(last=False)
        return shared[1]

    def has_told(self, people: int, tabs: int) -> None:
        """Those who are here have been told so."""
        self._told = people, tabs

    def _send_here(self, event: dict[str, Any]) -> None:
        for listener in list(self._listeners):
            listener(event)

    async def _tell_count(self) -> None:
        try:
            await asyncio.sleep(COUNT_PAUSE_SECONDS)
        finally:
            self._is_telling = False
        await self.send(_count_of(await self.participants.present()))

    async def _look_for_ever(self) -> None:
        """Tell those who are here whenever there are more or fewer than they know, whatever the group has heard."""
        try:
            while self._listeners:
                await asyncio.sleep(conf().presence_lease_seconds / LOOKS_PER_LEASE)
                await self.participants.look()
                event = _count_of(await self.participants.present())
                if self._told != (event["user_count"], event["tabs"]):
                    self._send_here(event)
        finally:
            self._is_looking = False

    # The document

    def view(self, field: str) -> FieldView:
        view = self._views.get(field)
        if view is None:
            view = self._views[field] = FieldView(self.room, field)
        return view

    def note(self, rows: Sequence[Committed]) -> None:
        """The room has taken over these rows; each member says so, the first is heard."""
        if rows[-1].last_seq <= self._seq:
            return
        self._seq = rows[-1].last_seq
        self.recent.add(rows)
        if any(row.splits for row in rows):
            self.generation += 1
        for view in list(self._views.values()):
            view.note(rows)

    def remember(self, actor: str, request_key: str, seq: int) -> None:
        self.edits[actor, request_key] = seq
        if len(self.edits) > EDITS_REMEMBERED_MAX:
            self.edits.popitem(last=False)


_gatherings: "WeakValueDictionary[Room, Gathering]" = WeakValueDictionary()


def gathering_of(room: Room, room_name: str) -> Gathering:
    """The gathering of a room, which is there as long as somebody holds it."""
    gathering = _gatherings.get(room)
    if gathering is None:
        gathering = _gatherings[room] = Gathering(room, room_name)
    return gathering


def _count_of(present: Present) -> dict[str, Any]:
    return {"type": "user_count", "user_count": present.count(), "tabs": present.count(by_tabs=True)}
