"""Who is in the JSON rooms, in all processes: leases in Valkey, by its own clock.

A socket that says nothing for PRESENCE_LEASE_SECONDS is counted no more, whoever killed whatever. Valkey is reached
through the channel layer; without one, or while it is away, a process knows those who came to it."""

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from channels.layers import get_channel_layer

from documents.conf import conf
from realtime.protocols.collab import DEFAULT_COLOR, person
from realtime.protocols.identities import Identity

logger = logging.getLogger(__name__)

PARTICIPANTS_MAX = 500
"""Of those who are in a room, so many are told by name; all are counted."""

# One round trip each, atomic: what has run out goes first, and every change of who is there counts the version up.
_EXPIRE = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms)
for first = 1, #gone, 1000 do
    local part = {unpack(gone, first, math.min(first + 999, #gone))}
    redis.call('ZREM', KEYS[1], unpack(part))
    redis.call('HDEL', KEYS[2], unpack(part))
end
if #gone > 0 then redis.call('INCR', KEYS[3]) end
"""
_END = """
for place = 1, 3 do redis.call('PEXPIRE', KEYS[place], 4 * ARGV[1]) end
return tonumber(redis.call('GET', KEYS[3]) or '0')
"""
_RENEW = f"""{_EXPIRE}
redis.call('ZADD', KEYS[1], now_ms + ARGV[1], ARGV[2])
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] then
    redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
    redis.call('INCR', KEYS[3])
end
{_END}"""
_LEAVE = f"""{_EXPIRE}
if redis.call('ZREM', KEYS[1], ARGV[2]) > 0 then
    redis.call('HDEL', KEYS[2], ARGV[2])
    redis.call('INCR', KEYS[3])
end
{_END}"""
_LOOK = f"{_EXPIRE}{_END}"


@dataclass(frozen=True, slots=True)
class Participant:
    """One socket in a room, and how it is shown."""

    socket_id: str
    identity: Identity
    color: str = DEFAULT_COLOR

    @property
    def who(self) -> str:
        """The same for all sockets of one account; nobody's sockets are each somebody else."""
        return f"user {self.identity.user}" if self.identity.user else self.socket_id

    def told(self) -> dict[str, Any]:
        return {**person(self.identity), "color": self.color}


@dataclass(frozen=True, slots=True)
class Present:
    """All sockets that are in a room, in the order of their names."""

    sockets: Sequence[Participant] = ()

    def people(self, *, by_tabs: bool = False) -> list[Participant]:
        """One for each person, or for each socket."""
        return list(self.sockets) if by_tabs else list({each.who: each for each in self.sockets}.values())

    def count(self, *, by_tabs: bool = False) -> int:
        return len(self.sockets) if by_tabs else len({each.who for each in self.sockets})

    def told(self, *, by_tabs: bool = False) -> list[dict[str, Any]]:
        return [each.told() for each in self.people(by_tabs=by_tabs)[:PARTICIPANTS_MAX]]


class Participants:
    """Those of one room, as this process knows them. `group` is the room's, unique among all rooms."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._here: dict[str, tuple[Participant, float]] = {}
        self._version: int | None = None
        """Of who is there, as Valkey last said; None while it is away."""
        self._read: tuple[int, Present] | None = None
        self._away_until = 0.0

    async def renew(self, participant: Participant) -> bool:
        """Count a socket for PRESENCE_LEASE_SECONDS from now on; whether anything may have changed since this was last
        asked, here or in another process."""
        self._here[participant.socket_id] = participant, time.monotonic() + conf().presence_lease_seconds
        words = json.dumps([participant.identity.user, participant.identity.name, participant.color])
        return await self._run(_RENEW, participant.socket_id, words)

    async def leave(self, socket_id: str) -> bool:
        """Count a socket no more; as `renew`."""
        self._here.pop(socket_id, None)
        return await self._run(_LEAVE, socket_id)

    async def look(self) -> bool:
        """Let those go whose leases have run out; as `renew`."""
        return await self._run(_LOOK)

    async def present(self) -> Present:
        """Who is in the room; while Valkey is away, who is in it here."""
        version = self._version
        if version is None:
            return self._present_here()
        if self._read is None or self._read[0] != version:
            try:
                async with asyncio.timeout(conf().layer_timeout_seconds):
                    found = await _connection(self._group).hgetall(self._keys()[1])
            except Exception as error:  # noqa: BLE001  (whatever a client of Valkey raises)
                self._is_away(error)
                return self._present_here()
            self._read = version, Present(tuple(_participants(found.items())))
        return self._read[1]

    def _present_here(self) -> Present:
        now = time.monotonic()
        self._here = {name: each for name, each in self._here.items() if each[1] > now}
        return Present(tuple(self._here[name][0] for name in sorted(self._here)))

    async def _run(self, script: str, *arguments: str) -> bool:
        """Never fails: Valkey away, it is not asked again for as long as it may take to answer."""
        if not _has_valkey() or time.monotonic() < self._away_until:
            return True
        before = self._version
        try:
            async with asyncio.timeout(conf().layer_timeout_seconds):
                lease_ms = conf().presence_lease_seconds * 1000
                self._version = int(await _connection(self._group).eval(script, 3, *self._keys(), lease_ms, *arguments))
        except Exception as error:  # noqa: BLE001  (whatever a client of Valkey raises)
            self._is_away(error)
        return self._version is None or self._version != before

    def _is_away(self, error: Exception) -> None:
        logger.info("participants: Valkey cannot be asked: %s", type(error).__name__)
        self._version = None
        self._away_until = time.monotonic() + conf().layer_timeout_seconds

    def _keys(self) -> list[str]:
        # One slot of a cluster.
        stem = f"{get_channel_layer().prefix}:participants:{{{self._group}}}"
        return [f"{stem}:leases", f"{stem}:shown", f"{stem}:version"]


def _participants(found: Iterable[tuple[bytes, bytes]]) -> Iterable[Participant]:
    for name, words in sorted(found):
        user, username, color = json.loads(words)
        yield Participant(name.decode(), Identity(user, username), color)


def _has_valkey() -> bool:
    return hasattr(get_channel_layer(), "consistent_hash")


def _connection(group: str) -> Any:
    """The channel layer's own connection to the server that the room's keys are on."""
    layer = get_channel_layer()
    return layer.connection(layer.consistent_hash(group))
