"""One room's memory of awareness: who is shown, whose entries those are, and who has left.

Source: y-protocols 1.0.7, awareness.js."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from realtime.protocols.awareness import AWARENESS_CLOCK_MAX, AwarenessEntry

AWARENESS_STATES_MAX = 2048
"""Clients that one room shows at a time."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a message changed in a room."""

    added: tuple[AwarenessEntry, ...] = ()
    updated: tuple[AwarenessEntry, ...] = ()
    removed: tuple[AwarenessEntry, ...] = ()
    outdated: tuple[AwarenessEntry, ...] = ()
    """For the sender alone: clients that it shows but that left at this clock. A Yjs client that finds itself here
    (it reconnected) takes a higher clock and sends its state again, at once instead of after 15 to 30 seconds."""

    @property
    def broadcast(self) -> tuple[AwarenessEntry, ...]:
        """What everyone in the room is sent, the sender included: its echo keeps the connection alive."""
        return self.added + self.updated + self.removed


@dataclass(slots=True)
class _Shown:
    entry: AwarenessEntry
    owner: Hashable
    seen_at: float


class AwarenessStates:
    """The awareness of one room. A client's entry belongs to the owner (a connection) that last raised its clock.

    It does not judge whether an owner may speak for a client: filter with `owner_of` or the document's client ids
    before `apply`. Times are seconds of any one clock. At most `states_max` clients are shown, and the clocks of as
    many that left are remembered, so that a copy relayed late does not bring them back."""

    def __init__(self, *, states_max: int = AWARENESS_STATES_MAX) -> None:
        self._states_max = states_max
        self._shown: dict[int, _Shown] = {}
        self._owned: dict[Hashable, set[int]] = {}
        self._left: dict[int, int] = {}  # client id → clock; the longest gone first

    def __len__(self) -> int:
        return len(self._shown)

    def entries(self) -> tuple[AwarenessEntry, ...]:
        """Return every client shown, for someone who joins."""
        return tuple(shown.entry for shown in self._shown.values())

    def owner_of(self, client_id: int) -> Hashable | None:
        shown = self._shown.get(client_id)
        return None if shown is None else shown.owner

    def apply(
        self, entries: Iterable[AwarenessEntry], *, owner: Hashable, now: float, owned_max: int | None = None
    ) -> Changes:
        """Take what one owner sent; `owned_max` bounds how many clients it may show. New clients for which the room or
        the owner has no place left are passed over.

        The higher clock wins. At an equal clock only a null wins over a state, and only from the entry's owner: Yjs
        clients send such nulls about everyone else when they wake from sleep or lose their own connection."""
        added: list[AwarenessEntry] = []
        updated: list[AwarenessEntry] = []
        removed: list[AwarenessEntry] = []
        outdated: list[AwarenessEntry] = []
        for entry in entries:
            client_id = entry.client_id
            shown = self._shown.get(client_id)
            left_clock = self._left.get(client_id)
            known_clock = shown.entry.clock if shown else left_clock
            raises = known_clock is None or entry.clock > known_clock
            if entry.state_json is None:
                if raises or (shown and shown.owner == owner and shown.entry.clock == entry.clock):
                    self._leave(entry)
                    if known_clock is not None:
                        removed.append(entry)
            elif not raises:
                if left_clock is not None:
                    outdated.append(AwarenessEntry(client_id, left_clock, None))
            elif self._has_place(client_id, owner, owned_max):
                self._show(entry, owner=owner, now=now)
                (updated if shown else added).append(entry)
        return Changes(tuple(added), tuple(updated), tuple(removed), tuple(outdated))

    def remove_owner(self, owner: Hashable) -> tuple[AwarenessEntry, ...]:
        """Forget an owner whose connection ended; return the nulls, at raised clocks, to broadcast."""
        return self._remove(sorted(self._owned.get(owner, ())))

    def expire(self, now: float, timeout_seconds: float) -> tuple[AwarenessEntry, ...]:
        """Remove the clients not heard of for `timeout_seconds`; return the nulls, at raised clocks, to broadcast.

        Yjs clients renew theirs every 15 s and drop others after 30 s."""
        silent = [client_id for client_id, shown in self._shown.items() if now - shown.seen_at >= timeout_seconds]
        return self._remove(silent)

    def _has_place(self, client_id: int, owner: Hashable, owned_max: int | None) -> bool:
        if client_id not in self._shown and len(self._shown) >= self._states_max:
            return False
        owned = self._owned.get(owner, ())
        return owned_max is None or client_id in owned or len(owned) < owned_max

    def _show(self, entry: AwarenessEntry, *, owner: Hashable, now: float) -> None:
        self._disown(entry.client_id)
        self._left.pop(entry.client_id, None)
        self._shown[entry.client_id] = _Shown(entry, owner, now)
        self._owned.setdefault(owner, set()).add(entry.client_id)

    def _leave(self, entry: AwarenessEntry) -> None:
        self._disown(entry.client_id)
        self._shown.pop(entry.client_id, None)
        self._left.pop(entry.client_id, None)  # back in as the newest
        self._left[entry.client_id] = entry.clock
        if len(self._left) > self._states_max:
            del self._left[next(iter(self._left))]

    def _disown(self, client_id: int) -> None:
        shown = self._shown.get(client_id)
        if shown is None:
            return
        owned = self._owned[shown.owner]
        owned.discard(client_id)
        if not owned:
            del self._owned[shown.owner]

    def _remove(self, client_ids: Iterable[int]) -> tuple[AwarenessEntry, ...]:
        nulls = []
        for client_id in client_ids:
            # Clients relay the null, so its clock must be one that the codec takes; an equal clock is enough.
            clock = min(self._shown[client_id].entry.clock + 1, AWARENESS_CLOCK_MAX)
            null = AwarenessEntry(client_id, clock, None)
            self._leave(null)
            nulls.append(null)
        return tuple(nulls)
