"""`make bench ARGS="trace PATH"`, or fan-out, doors, stalled, openings, reactions, audit, history: on own services."""

import argparse
import os
from importlib import import_module
from pathlib import Path

import django


def main() -> None:
    asked = vars(_parser().parse_args())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    del asked["command"]
    import_module(f"benchmarks.{asked.pop('module')}").run(**asked)


def _parser() -> argparse.ArgumentParser:
    """Each command names its `module`; all its other arguments are those of that module's `run`."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, module: str, help_: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_)
        added.set_defaults(module=module)
        return added

    trace = command("trace", "editing_trace", "load a recorded editing session edit by edit, then open it")
    trace.add_argument("trace", type=Path, metavar="PATH")
    trace.add_argument("--processes", type=int, default=5, help="web processes that open it cold, one after another")
    readers = command("fan-out", "fan_out", "some writers, many readers, one document")
    readers.add_argument("--writers", type=int, default=10)
    readers.add_argument("--readers", type=int, default=300)
    readers.add_argument("--seconds", type=float, default=10)
    doors = command("doors", "doors", "one document by y-websocket, by Hocuspocus, by JSON rooms, and by all of them")
    doors.add_argument("--writers", type=int, default=6)
    doors.add_argument("--readers", type=int, default=60)
    doors.add_argument("--seconds", type=float, default=10)
    stalled = command("stalled", "stalled_readers", "the same with readers that never read, and without, by turns")
    stalled.add_argument("--writers", type=int, default=10)
    stalled.add_argument("--readers", type=int, default=50)
    stalled.add_argument("--stalled", type=int, default=50)
    stalled.add_argument("--seconds", type=float, default=10)
    stalled.add_argument("--rounds", type=int, default=3)
    openings = command("openings", "openings_at_once", "many open one cold document at the same moment")
    openings.add_argument("--openings", type=int, default=10_000)
    openings.add_argument("--characters", type=int, default=100_000)
    reacting = command("reactions", "reactions", "how soon the server reacts to what nobody tells it of")
    reacting.add_argument("--edits", type=int, default=40, help="edits that nobody is told of")
    reacting.add_argument("--rounds", type=int, default=5, help="people who lose each kind of right")
    reacting.add_argument("--peers", type=int, default=100, help="peers that are not there")
    reacting.add_argument("--away-seconds", type=float, default=15, help="how long the database is away")
    audit = command("audit", "audit_export", "the audit as a file")
    audit.add_argument("--lines", type=int, default=1_000_000)
    past = command("history", "history", "bytes an update, and opening at random moments, beside others' stores")
    past.add_argument("--trace", type=Path, help="a recorded editing session besides (see `trace`)")
    past.add_argument("--updates", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], dest="sizes")
    past.add_argument("--moments", type=int, default=100)
    past.add_argument("--seed", type=int, default=1)
    past.add_argument("--alone", action="store_false", dest="peers", help="without the others' stores")
    return parser


if __name__ == "__main__":
    main()
