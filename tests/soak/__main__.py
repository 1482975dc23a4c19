"""`make soak`, or `make soak ARGS="--minutes 5"`: does the stack hold what it holds, or ever more?"""

import argparse
import os
import secrets
import sys
from dataclasses import asdict

WARM_UP_SHARE = 0.1
WARM_UP_SECONDS_MIN = 90.0
"""Two whole scenes and more."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of the part that is judged; a warm-up comes first")
    parser.add_argument("--stages", type=int, default=12, help="documents in use at the same time")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from tests.soak.run import soak

    seconds = arguments.minutes * 60
    print(f"seed {arguments.seed}")
    outcome = soak(
        stages=arguments.stages,
        warm_up_seconds=max(seconds * WARM_UP_SHARE, WARM_UP_SECONDS_MIN),
        seconds=seconds,
        look_every_seconds=2,
        seed=arguments.seed,
    )
    print(f"{outcome.scenes:,} scenes, {outcome.edits:,} edits, {len(outcome.samples):,} samples")
    for name, (before, after) in zip(
        asdict(outcome.rested[0]), zip(*(asdict(each).values() for each in outcome.rested), strict=True), strict=True
    ):
        print(f"at rest, {name.replace('_', ' ')}: {before} before, {after} after")
    print(f"threads at rest: {', '.join(outcome.thread_names)}")
    print(f"keys at rest: {', '.join(outcome.key_names)}")
    for worker, drift in enumerate(outcome.drift_percent):
        megabytes = [sample.memory_bytes[worker] / 2**20 for sample in outcome.samples]
        print(
            f"own memory of worker {worker + 1}: {megabytes[0]:.1f} MiB at first, {max(megabytes):.1f} at most, "
            f"{megabytes[-1]:.1f} at last; drift {drift:+.1f}% (first tenth to last tenth, medians)"
        )
    print("passed" if outcome.passes else f"FAILED: grown at rest: {outcome.grown}")
    return 0 if outcome.passes else 1


if __name__ == "__main__":
    sys.exit(main())
