"""`make faults ARGS="--seed 7"`: the long form. Prints what it does and a summary; exits with 1 if anything is wrong.

`--short` injects each fault once; `--squash-kills 1000` kills workers in the middle of squash, and no more."""

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Iterator

import django


class NothingBlocked:
    """Stands in for pytest-django's blocker: here nothing keeps Django from its database."""

    @contextlib.contextmanager
    def unblock(self) -> Iterator[None]:
        yield


def main() -> int:
    os.environ.setdefault("SECRET_KEY", "only for faults")
    os.environ.setdefault("LOG_LEVEL", "ERROR")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from tests.clients.crowd import Crowd
    from tests.faults.ground import LOSS, faulty_ground
    from tests.faults.plan import EACH_ONCE, LONG, Fault, plan
    from tests.faults.run import FaultRun, Result, Size

    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeats the schedule of an earlier run")
    parser.add_argument("--short", action="store_true", help="each fault once")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=COUNT", help="these and no others")
    parser.add_argument("--seen", type=int, help="edits that others must have seen")
    parser.add_argument("--pause", type=float, help="seconds between two faults, on average")
    parser.add_argument("--interval-ms", type=float, default=90.0, help="how often each person edits")
    parser.add_argument("--rooms", type=int, default=12, help="documents that are edited at a time")
    parser.add_argument("--log-level", default="CRITICAL", help="of the workers, which have much to complain about")
    parser.add_argument("--squash-kills", type=int, metavar="COUNT", help="SIGKILLs in the middle of squash, alone")
    arguments = parser.parse_args()
    if arguments.squash_kills is not None:
        return kill_in_squash(arguments.squash_kills, seed=arguments.seed)
    counts = EACH_ONCE if arguments.short else LONG
    if arguments.fault:
        counts = {Fault[name]: int(count) for name, _, count in (given.partition("=") for given in arguments.fault)}
    schedule = plan(arguments.seed, counts, pause_seconds=arguments.pause or 3.5)
    seen = arguments.seen if arguments.seen is not None else 200_000 if counts is LONG else 0
    size = Size(seen_min=seen, interval_ms=arguments.interval_ms, rooms=arguments.rooms)

    async def run() -> Result:
        with faulty_ground(NothingBlocked(), seed=arguments.seed, LOG_LEVEL=arguments.log_level, **LOSS) as ground:
            async with Crowd() as crowd:
                return await FaultRun(ground, crowd, seed=arguments.seed, size=size, say=say).go(schedule)

    say(f"seed {arguments.seed}")
    result = asyncio.run(run())
    for line in result.lines():
        say(line)
    return 1 if result.wrong else 0


def kill_in_squash(kills: int, *, seed: int) -> int:
    from config.stack.accounts import scratch_folder
    from config.stack.services import scratch_services
    from tests.clients.stack import migrated_database
    from tests.faults.squash_kills import SquashKills

    with (
        scratch_services(syncs=False) as services,
        migrated_database(services.database_url, NothingBlocked()) as database,
        scratch_folder() as folder,
    ):
        result = SquashKills(database, services.redis_url, folder, seed=seed).run(kills)
    for line in result.lines():
        say(line)
    return 1 if result.wrong else 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
