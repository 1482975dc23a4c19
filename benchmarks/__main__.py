"""`make bench ARGS="trace PATH"`, or ARGS=fan-out, stalled, openings, reactions, audit, history: on own services."""

import argparse
import os
from pathlib import Path

import django


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    trace = commands.add_parser("trace", help="load a recorded editing session edit by edit, then open it")
    trace.add_argument("path", type=Path)
    trace.add_argument("--processes", type=int, default=5, help="web processes that open it cold, one after another")
    readers = commands.add_parser("fan-out", help="some writers, many readers, one document")
    readers.add_argument("--writers", type=int, default=10)
    readers.add_argument("--readers", type=int, default=300)
    readers.add_argument("--seconds", type=float, default=10)
    stalled = commands.add_parser("stalled", help="the same with readers that never read, and without, by turns")
    stalled.add_argument("--writers", type=int, default=10)
    stalled.add_argument("--readers", type=int, default=50)
    stalled.add_argument("--stalled", type=int, default=50)
    stalled.add_argument("--seconds", type=float, default=10)
    stalled.add_argument("--rounds", type=int, default=3)
    openings = commands.add_parser("openings", help="many open one cold document at the same moment")
    openings.add_argument("--openings", type=int, default=10_000)
    openings.add_argument("--characters", type=int, default=100_000)
    reacting = commands.add_parser("reactions", help="how soon the server reacts to what nobody tells it of")
    reacting.add_argument("--edits", type=int, default=40, help="edits that nobody is told of")
    reacting.add_argument("--rounds", type=int, default=5, help="people who lose each kind of right")
    reacting.add_argument("--peers", type=int, default=100, help="peers that are not there")
    reacting.add_argument("--away-seconds", type=float, default=15, help="how long the database is away")
    audit = commands.add_parser("audit", help="the audit as a file")
    audit.add_argument("--lines", type=int, default=1_000_000)
    past = commands.add_parser("history", help="bytes an update, and opening at random moments, beside others' stores")
    past.add_argument("--trace", type=Path, help="a recorded editing session besides (see `trace`)")
    past.add_argument("--updates", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    past.add_argument("--moments", type=int, default=100)
    past.add_argument("--seed", type=int, default=1)
    past.add_argument("--alone", action="store_true", help="without the others' stores")
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from benchmarks import (
        audit_export,
        editing_trace,
        fan_out,
        history,
        openings_at_once,
        reactions,
        stalled_readers,
    )

    match arguments.command:
        case "trace":
            editing_trace.run(arguments.path, processes=arguments.processes)
        case "fan-out":
            fan_out.run(writers=arguments.writers, readers=arguments.readers, seconds=arguments.seconds)
        case "stalled":
            stalled_readers.run(
                writers=arguments.writers,
                readers=arguments.readers,
                stalled=arguments.stalled,
                seconds=arguments.seconds,
                rounds=arguments.rounds,
            )
        case "openings":
            openings_at_once.run(openings=arguments.openings, characters=arguments.characters)
        case "reactions":
            reactions.run(
                edits=arguments.edits,
                rounds=arguments.rounds,
                peers=arguments.peers,
                away_seconds=arguments.away_seconds,
            )
        case "audit":
            audit_export.run(lines=arguments.lines)
        case "history":
            history.run(
                arguments.trace,
                sizes=arguments.updates,
                moments=arguments.moments,
                seed=arguments.seed,
                peers=not arguments.alone,
            )


if __name__ == "__main__":
    main()
