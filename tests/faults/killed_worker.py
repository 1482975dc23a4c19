"""What a Celery worker imports that is killed again and again: it looks for dead children at once, not every 5 s.

With `UNGUARDED` it squashes without guards, which is right as long as nobody kills it: `transaction` takes the
transaction out; `order` deletes the rows before it stores the segment, besides."""

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from celery.concurrency.asynpool import AsynPool

from history import squash
from history.models import Segment

LOOK_SECONDS = 0.1

_replace_rows = squash._replace_rows


def _replace_rows_and_store(segment: Segment, rows: Sequence[Any]) -> None:
    _replace_rows(segment, rows)
    time.sleep(0.02)  # as a slow disk may take
    segment.save(force_insert=True)


AsynPool.timers = property(lambda self: {self.maintain_pool: LOOK_SECONDS})
if "UNGUARDED" in os.environ:
    # The lock ends with the transaction; of the session, it still tells who squashes.
    squash.TRY_LOCK = squash.TRY_LOCK.replace("_xact_", "_")
    vars(squash)["transaction"] = SimpleNamespace(atomic=lambda durable: nullcontext())
if os.environ.get("UNGUARDED") == "order":
    unsaved = SimpleNamespace(create=lambda **fields: Segment(**fields), filter=Segment.objects.filter)
    vars(squash)["Segment"] = SimpleNamespace(objects=unsaved)
    squash._compare_what_was_stored = lambda segment, rows: None
    squash._replace_rows = _replace_rows_and_store
