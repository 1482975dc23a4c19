"""How much one socket may send, and how many sockets there may be. Pure: the clock is passed in."""

from collections import Counter
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

IPV6_NETWORK_BITS = 64
"""What one customer of a provider has whole; counting single addresses of it would count nobody."""


class TokenBucket:
    """`rate` tokens come each second, until `burst` are there; a rate of 0 is no limit. Times are in seconds."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._tokens = burst
        self._at = now

    def take(self, amount: float, *, now: float) -> float:
        """Take tokens, whether they are there or not; return the seconds until all that was taken has come."""
        if not self._rate:
            return 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._tokens / self._rate)


class TooManySockets(Exception):
    """Raised when one socket more would be above the setting `limit`."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"too many sockets: {limit}")
        self.limit = limit


class SocketCounts:
    """The sockets of one process, by whatever they are limited by; what has none takes no memory."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Hashable]] = Counter()

    def __len__(self) -> int:
        return len(self._counts)

    def of(self, limit: str, key: Hashable) -> int:
        return self._counts[limit, key]

    def seats(self) -> "Seats":
        """The seats of a socket that has just come: none."""
        return Seats(self._counts)


class Seats:
    """What one socket is counted under. `give_back` ends all of it, at whichever step the socket ended."""

    __slots__ = ("_counts", "_taken")

    def __init__(self, counts: Counter[tuple[str, Hashable]]) -> None:
        self._counts = counts
        self._taken: list[tuple[str, Hashable]] = []

    def take(self, limit: str, key: Hashable, *, at_most: int) -> None:
        """Count the socket under `key` of the setting `limit`, whose value is `at_most`; 0 is no limit.

        Raises: TooManySockets, and nothing more is counted."""
        seat = limit, key
        if at_most and self._counts[seat] >= at_most:
            raise TooManySockets(limit)
        self._counts[seat] += 1
        self._taken.append(seat)

    def give_back(self) -> None:
        """Twice is once."""
        for seat in self._taken:
            self._counts[seat] -= 1
            if not self._counts[seat]:
                del self._counts[seat]
        self._taken.clear()


def address_key(address: str) -> str:
    """What an address counts as: itself, or its network where it is an IPv6 one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> IPV6_NETWORK_BITS << IPV6_NETWORK_BITS)}/{IPV6_NETWORK_BITS}"
    return str(parsed)
