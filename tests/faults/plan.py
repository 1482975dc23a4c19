"""What goes wrong when: a schedule that one seed decides. No clock, no I/O."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """What can happen to the stack; the value is what a person reads."""

    WORKER = "SIGKILL of a web worker"
    ALL_WORKERS = "SIGKILL of all web workers"
    POSTGRES = "SIGKILL of PostgreSQL"
    VALKEY = "SIGKILL of Valkey"
    CELERY = "SIGKILL of the Celery worker"
    POSTGRES_CUT = "PostgreSQL cut off"
    POSTGRES_BLACK_HOLE = "PostgreSQL answers nothing"
    VALKEY_CUT = "Valkey cut off"
    VALKEY_BLACK_HOLE = "Valkey answers nothing"
    SLOW_COMMITS = "500 ms a commit"
    FULL_DISK = "a full disk"
    CLOCK = "the database's clock steps"


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: after `pause_seconds` of peace it lasts `hold_seconds`. `choice`, in [0, 1), decides what is hit."""

    fault: Fault
    pause_seconds: float
    hold_seconds: float
    choice: float


HOLD_SECONDS: Mapping[Fault, tuple[float, float]] = {
    Fault.WORKER: (0, 0),
    Fault.ALL_WORKERS: (0, 0),
    Fault.POSTGRES: (0, 2),
    Fault.VALKEY: (0, 2),
    Fault.CELERY: (0, 1),
    Fault.POSTGRES_CUT: (0.2, 3),
    Fault.POSTGRES_BLACK_HOLE: (0.5, 5),
    Fault.VALKEY_CUT: (0.2, 3),
    Fault.VALKEY_BLACK_HOLE: (0.5, 5),
    Fault.SLOW_COMMITS: (2, 5),
    Fault.FULL_DISK: (0.5, 2),
    Fault.CLOCK: (1.2, 3),
}
LONG = {
    Fault.WORKER: 92,
    Fault.ALL_WORKERS: 4,  # two each
    Fault.POSTGRES: 20,
    Fault.VALKEY: 20,
    Fault.CELERY: 20,
    Fault.POSTGRES_CUT: 8,
    Fault.POSTGRES_BLACK_HOLE: 8,
    Fault.VALKEY_CUT: 8,
    Fault.VALKEY_BLACK_HOLE: 8,
    Fault.SLOW_COMMITS: 6,
    Fault.FULL_DISK: 6,
    Fault.CLOCK: 6,
}
EACH_ONCE = dict.fromkeys(Fault, 1)


def plan(seed: int, counts: Mapping[Fault, int], *, pause_seconds: float) -> list[Planned]:
    """The faults of a run in a random order, about `pause_seconds` apart; the same seed gives the same."""
    rng = random.Random(seed)
    faults = [fault for fault in Fault for _ in range(counts.get(fault, 0))]
    rng.shuffle(faults)
    return [
        Planned(fault, rng.uniform(0.2, 1.8) * pause_seconds, rng.uniform(*HOLD_SECONDS[fault]), rng.random())
        for fault in faults
    ]
