"""`make bench ARGS="trace PATH"` or `ARGS=fan-out`: measurements on services of their own."""

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
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from benchmarks import editing_trace, fan_out

    match arguments.command:
        case "trace":
            editing_trace.run(arguments.path, processes=arguments.processes)
        case "fan-out":
            fan_out.run(writers=arguments.writers, readers=arguments.readers, seconds=arguments.seconds)


if __name__ == "__main__":
    main()
