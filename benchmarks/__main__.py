"""`make bench ARGS="trace PATH"`: measurements on services of their own."""

import argparse
from pathlib import Path

import django


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    trace = commands.add_parser("trace", help="load a recorded editing session edit by edit, then open it")
    trace.add_argument("path", type=Path)
    arguments = parser.parse_args()
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from benchmarks import editing_trace

    editing_trace.run(arguments.path)


if __name__ == "__main__":
    main()
