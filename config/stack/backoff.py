"""How long to wait before a process that died is started again."""

from dataclasses import dataclass

FIRST_SECONDS = 0.2
SECONDS_MAX = 30.0
CALM_SECONDS = 60.0


@dataclass(slots=True)
class Backoff:
    """Doubles from FIRST_SECONDS to SECONDS_MAX; a life of CALM_SECONDS starts it afresh. Times are monotonic."""

    delay: float = 0.0
    ended_at: float = float("-inf")

    def ended(self, now: float) -> float:
        """Note that the process ended at `now`; return the seconds until it may start again."""
        lived = now - self.ended_at - self.delay
        self.delay = FIRST_SECONDS if lived > CALM_SECONDS else min(SECONDS_MAX, max(FIRST_SECONDS, self.delay * 2))
        self.ended_at = now
        return self.delay

    def over(self, now: float) -> bool:
        return now >= self.ended_at + self.delay
