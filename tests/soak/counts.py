"""What a stack holds at one moment, and the judgement on a run: what has grown, and how memory has drifted.

Counts are compared at rest, when everyone has left and all rooms are closed: then they are exact. Memory is compared
under load, by the medians of the first and the last tenth of a run: the worker's own, without the pages of files, which
the kernel takes and brings back as the whole machine needs."""

import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import psycopg
import redis

from config.stack.web import WebWorkers

DRIFT_PERCENT_MAX = 5.0
OWN_MEMORY = re.compile(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of all workers together, and of the services that they use. The descriptors are those without connections to
    Valkey, of which a pool keeps as many as were ever in use at one moment."""

    tasks: int
    threads: int
    rooms: int
    sockets: int
    file_descriptors: int
    postgres_connections: int
    valkey_keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`memory_bytes` are each worker's own, resident or swapped."""

    counts: Counts
    memory_bytes: tuple[int, ...]


class Window:
    """Looks at the workers from outside, and at what each has last told of itself (Linux)."""

    def __init__(self, workers: WebWorkers, folder: Path) -> None:
        self._workers = workers
        self._folder = folder
        self._database = psycopg.connect(workers.env["DATABASE_URL"], autocommit=True)
        self._valkey = redis.Redis.from_url(workers.env["REDIS_URL"])

    def look(self) -> Sample:
        pids = [pid for pid in self._workers.pids if pid is not None]
        told = [json.loads((self._folder / f"{pid}.json").read_text()) for pid in pids]
        found = self._database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
        counts = Counts(
            **{name: sum(each[name] for each in told) for name in ("tasks", "threads", "rooms", "sockets")},
            file_descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids) - self._valkey_connections(),
            postgres_connections=0 if found is None else int(found[0]),
            valkey_keys=cast(int, self._valkey.dbsize()),
        )
        return Sample(counts=counts, memory_bytes=tuple(own_memory_bytes(pid) for pid in pids))

    def _valkey_connections(self) -> int:
        """Of the workers: who else is connected to this database of Valkey is this window alone."""
        database = str(self._valkey.connection_pool.connection_kwargs.get("db", 0))
        there = cast("list[dict[str, str]]", self._valkey.client_list())
        return sum(each["db"] == database for each in there)

    def thread_names(self) -> tuple[str, ...]:
        """Of all workers, to say which one is new."""
        told = [json.loads((self._folder / f"{pid}.json").read_text()) for pid in self._workers.pids if pid is not None]
        return tuple(sorted(name for each in told for name in each["thread_names"]))

    def key_names(self) -> tuple[str, ...]:
        """Of Valkey, to say which one is left."""
        return tuple(sorted(key.decode() for key in cast("list[bytes]", self._valkey.keys())))

    def close(self) -> None:
        self._database.close()
        self._valkey.close()


def own_memory_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(kilobytes) * 1024 for kilobytes in OWN_MEMORY.findall(status))


def least(samples: Sequence[Sample]) -> Counts:
    """The least of each count: at rest a moment's work may add to one."""
    seen = [asdict(sample.counts) for sample in samples]
    return Counts(**{name: min(each[name] for each in seen) for name in seen[0]})


def grown(before: Counts, after: Counts) -> dict[str, tuple[int, int]]:
    """The counts that are higher afterwards, by name."""
    first, second = asdict(before), asdict(after)
    return {name: (first[name], second[name]) for name in first if second[name] > first[name]}


def drift_percent(samples: Sequence[Sample]) -> list[float]:
    """By worker: how much its memory has grown from the first tenth of the samples to the last, by their medians."""
    tenth = max(len(samples) // 10, 1)
    drifts = []
    for worker in zip(*(sample.memory_bytes for sample in samples), strict=True):
        first, last = statistics.median(worker[:tenth]), statistics.median(worker[-tenth:])
        drifts.append((last / first - 1) * 100)
    return drifts
