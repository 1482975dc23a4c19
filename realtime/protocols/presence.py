"""One room's memory of awareness: who is shown, whose entries those are, and who has left.

An entry is taken from its own client alone; what others say about it (stock clients relay all that they are shown) is
passed over without a word. Source: y-protocols 1.0.7, awareness.js."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from realtime.protocols.awareness import AWARENESS_CLOCK_MAX, AwarenessEntry, Claim
from realtime.protocols.identities import Identity, bears_stamp

AWARENESS_STATES_MAX = 2048
"""Clients that one room shows at a time."""

AWARENESS_CLOCK_AHEAD_MAX = 100_000_000
"""How far the clocks of a room may be ahead of its age. A Yjs client counts each change and renewal of its state since
it was loaded, offline too: 60 a second for 19 days."""

AWARENESS_CHANGES_PER_SECOND = 60
"""How fast that bound grows: faster than a client renews its state, so that whoever was led up to it goes on from
there; slowly enough that no room comes near the end of the 31 bits within a year."""

Stamp: TypeAlias = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a message changed in a room."""

    added: tuple[AwarenessEntry, ...] = ()
    updated: tuple[AwarenessEntry, ...] = ()
    removed: tuple[AwarenessEntry, ...] = ()
    outdated: tuple[AwarenessEntry, ...] = ()
    """For the sender alone: clients of its own that left at this clock, or that somebody else had shown at it. A Yjs
    client that finds itself here takes a higher clock and sends its state again, at once instead of after 15 s."""
    unheard: bool = False
    """Whether a new state was passed over that may be the sender's own. It has to be answered, as by an echo: a
    y-websocket client that hears nothing for 30 s takes its connection for dead."""

    @property
    def broadcast(self) -> tuple[AwarenessEntry, ...]:
        """What everyone in the room is sent, the sender included: its echo keeps the connection alive."""
        return self.added + self.updated + self.removed


@dataclass(frozen=True, slots=True)
class _Known:
    """A client that is shown, or one that left: then `entry` is the null, and nobody owns it."""

    entry: AwarenessEntry
    user: str
    owner: Hashable = None
    seen_at: float = 0.0


@dataclass(slots=True)
class _News:
    added: list[AwarenessEntry] = field(default_factory=list)
    updated: list[AwarenessEntry] = field(default_factory=list)
    removed: list[AwarenessEntry] = field(default_factory=list)
    outdated: list[AwarenessEntry] = field(default_factory=list)
    unheard: bool = False

    def changes(self) -> Changes:
        return Changes(tuple(self.added), tuple(self.updated), tuple(self.removed), tuple(self.outdated), self.unheard)


def nobody_bound(client_id: int) -> str | None:
    return None


class AwarenessStates:
    """The awareness of one room. Each client has a user (a key as text, empty for nobody) and an owner: the connection,
    or the other process, that last raised its clock and takes it along when it ends.

    A client belongs to its user, on any connection: a reconnection takes over while the old socket hangs. Nobody's
    belongs to the connection that last wrote under it, or else to its owner, and once those have gone to whoever raises
    its clock: people without an account cannot be told apart. `bound_user` says whose account has written under a
    client id; that user alone may show it, and takes it back from whoever was quicker.

    Times are seconds of any one clock, `opened_at` too. At most `states_max` clients are shown, and as many that left
    are remembered, so that a copy relayed late does not bring them back, nor anybody else their client id."""

    def __init__(
        self,
        *,
        states_max: int = AWARENESS_STATES_MAX,
        clock_ahead_max: int = AWARENESS_CLOCK_AHEAD_MAX,
        opened_at: float = 0.0,
        bound_user: Callable[[int], str | None] = nobody_bound,
    ) -> None:
        self._states_max = states_max
        self._clock_ahead_max = clock_ahead_max
        self._opened_at = opened_at
        self._bound_user = bound_user
        self._shown: dict[int, _Known] = {}
        self._shown_of: dict[str, dict[int, None]] = {}  # by user, the longest unheard first
        self._owned: dict[Hashable, set[int]] = {}
        self._writers: dict[int, Hashable] = {}
        self._written: dict[Hashable, set[int]] = {}
        self._left: dict[int, _Known] = {}
        self._left_of: dict[str, dict[int, None]] = {}  # by user, the longest gone first

    def __len__(self) -> int:
        return len(self._shown)

    def entries(self) -> tuple[AwarenessEntry, ...]:
        """Return every client shown, for someone who joins."""
        return tuple(shown.entry for shown in self._shown.values())

    def claims(self, *, of: Callable[[Hashable], bool]) -> Sequence[Claim]:
        """Return every client shown whose owner is one of those, and its user."""
        return [Claim(shown.user, shown.entry) for shown in self._shown.values() if of(shown.owner)]

    def owner_of(self, client_id: int) -> Hashable | None:
        """The connection, or other process, that is here with a client: it shows it, or wrote under it as nobody."""
        shown = self._shown.get(client_id)
        return self._writers.get(client_id, None if shown is None else shown.owner)

    def user_of(self, client_id: int) -> str | None:
        """Whose a client is that is shown or remembered; None for one that is not, or that is nobody's."""
        if client_id in self._writers:
            return None
        known = self._shown.get(client_id) or self._left.get(client_id)
        return None if known is None else known.user or None

    def hear(
        self,
        entries: Iterable[AwarenessEntry],
        *,
        owner: Hashable,
        identity: Identity,
        now: float,
        owned_max: int | None = None,
    ) -> Changes:
        """Take what a connection sent, stamped with who it is; `owned_max` bounds how many clients it may show.

        Passed over: foreign clients, clocks that are stale or too far ahead, states too large to be shown with their
        stamp, and new clients that were shown elsewhere before (a relay) or for which the room or the owner has no
        place left."""
        news = _News()
        clock_max = self._clock_ahead_max + int((now - self._opened_at) * AWARENESS_CHANGES_PER_SECOND)
        for entry in entries:
            self._hear(
                entry,
                news,
                owner=owner,
                user=identity.user,
                now=now,
                clock_max=min(clock_max, AWARENESS_CLOCK_MAX),
                stamp=identity.stamp,
                owned_max=owned_max,
            )
        return news.changes()

    def hear_claims(self, claims: Iterable[Claim], *, owner: Hashable, now: float) -> Changes:
        """Take what another process heard, measured and stamped: whose a client is, is asked here too."""
        news = _News()
        for claim in claims:
            self._hear(claim.entry, news, owner=owner, user=claim.user, now=now)
        return news.changes()

    def wrote(self, client_ids: Iterable[int], *, owner: Hashable) -> None:
        """Note under which client ids a connection of nobody's writes; they are its own until `remove_owner`."""
        for client_id in client_ids:
            self._disown_writer(client_id)
            self._writers[client_id] = owner
            self._written.setdefault(owner, set()).add(client_id)

    def remove_owner(self, owner: Hashable) -> tuple[AwarenessEntry, ...]:
        """Forget an owner whose connection ended; return the nulls, at raised clocks, to broadcast."""
        for client_id in self._written.pop(owner, ()):
            del self._writers[client_id]
        return self._remove(sorted(self._owned.get(owner, ())))

    def expire(self, now: float, timeout_seconds: float) -> tuple[AwarenessEntry, ...]:
        """Remove the clients not heard of for `timeout_seconds`; return the nulls, at raised clocks, to broadcast.

        Yjs clients renew theirs every 15 s and drop others after 30 s."""
        silent = [client_id for client_id, shown in self._shown.items() if now - shown.seen_at >= timeout_seconds]
        return self._remove(silent)

    def _hear(
        self,
        entry: AwarenessEntry,
        news: "_News",
        *,
        owner: Hashable,
        user: str,
        now: float,
        clock_max: int = AWARENESS_CLOCK_MAX,
        stamp: Stamp | None = None,
        owned_max: int | None = None,
    ) -> None:
        """Take one entry. The higher clock wins. At an equal clock only a null wins over a state, and only from the
        entry's owner: Yjs clients send such nulls about everyone else when they wake or lose their own connection."""
        shown = self._shown.get(entry.client_id)
        known = shown or self._left.get(entry.client_id)
        if known is None and (entry.state_json is None or (stamp is not None and bears_stamp(entry.state_json))):
            return  # a relay of what this process has not heard of yet
        clock = known.entry.clock if known else -1
        if entry.clock > clock_max or not self._may_speak(user, owner, entry.client_id, known):
            news.unheard |= entry.clock > clock and entry.state_json is not None
        elif entry.state_json is None:
            if entry.clock > clock or (shown and shown.owner == owner and entry.clock == clock):
                self._leave(entry, user=user)
                news.removed.append(entry)
        elif entry.clock <= clock:
            if shown is None or shown.user != user:
                news.outdated.append(AwarenessEntry(entry.client_id, clock, None))
        elif (
            self._may_own(entry.client_id, owner, owned_max)
            and (state_json := entry.state_json if stamp is None else stamp(entry.state_json))
            and self._has_place(entry.client_id, user, news)
        ):
            taken = replace(entry, state_json=state_json)
            self._show(_Known(taken, user, owner, now))
            (news.updated if shown else news.added).append(taken)
        else:
            news.unheard = True

    def _may_speak(self, user: str, owner: Hashable, client_id: int, known: _Known | None) -> bool:
        bound_user = self._bound_user(client_id)
        if bound_user:
            return user == bound_user
        if client_id in self._writers:
            return owner == self._writers[client_id]
        if known is None:
            return True
        return known.user == user if known.user else known.owner in (None, owner)

    def _may_own(self, client_id: int, owner: Hashable, owned_max: int | None) -> bool:
        owned = self._owned.get(owner, ())
        return owned_max is None or client_id in owned or len(owned) < owned_max

    def _has_place(self, client_id: int, user: str, news: "_News") -> bool:
        """Where the room is full, whoever shows the most gives up a place to one who shows fewer: nobody can keep the
        others from being seen."""
        if client_id in self._shown or len(self._shown) < self._states_max:
            return True
        most = max(self._shown_of.values(), key=len, default={})
        if len(most) <= len(self._shown_of.get(user, ())) + 1:
            return False
        news.removed.extend(self._remove([next(iter(most))]))
        return True

    def _show(self, known: _Known) -> None:
        client_id = known.entry.client_id
        self._disown(client_id)
        self._forget(client_id)
        self._shown[client_id] = known
        self._shown_of.setdefault(known.user, {})[client_id] = None
        self._owned.setdefault(known.owner, set()).add(client_id)

    def _leave(self, null: AwarenessEntry, *, user: str) -> None:
        self._disown(null.client_id)
        self._shown.pop(null.client_id, None)
        self._forget(null.client_id)  # back in as the newest
        self._left[null.client_id] = _Known(null, user)
        self._left_of.setdefault(user, {})[null.client_id] = None
        if len(self._left) > self._states_max:
            # Of whoever has left the most: nobody can make a room forget the others, whose ids would then be free.
            most = max(self._left_of.values(), key=len)
            self._forget(next(iter(most)))

    def _forget(self, client_id: int) -> None:
        left = self._left.pop(client_id, None)
        if left is None:
            return
        theirs = self._left_of[left.user]
        del theirs[client_id]
        if not theirs:
            del self._left_of[left.user]

    def _disown_writer(self, client_id: int) -> None:
        writer = self._writers.pop(client_id, None)
        if writer is not None:
            self._written[writer].discard(client_id)

    def _disown(self, client_id: int) -> None:
        shown = self._shown.get(client_id)
        if shown is None:
            return
        theirs = self._shown_of[shown.user]
        del theirs[client_id]
        if not theirs:
            del self._shown_of[shown.user]
        owned = self._owned[shown.owner]
        owned.discard(client_id)
        if not owned:
            del self._owned[shown.owner]

    def _remove(self, client_ids: Iterable[int]) -> tuple[AwarenessEntry, ...]:
        nulls = []
        for client_id in client_ids:
            shown = self._shown[client_id]
            # Clients relay the null, so its clock must be one that the codec takes; an equal clock is enough.
            null = AwarenessEntry(client_id, min(shown.entry.clock + 1, AWARENESS_CLOCK_MAX), None)
            self._leave(null, user=shown.user)
            nulls.append(null)
        return tuple(nulls)
