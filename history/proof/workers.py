"""The processes that verify for another: how they begin, and that they end with it.

Imports no models: it is what sets Django up in them."""

import os
from multiprocessing import parent_process
from threading import Thread

import django


def begin() -> None:
    """Set up a process that verifies for another. It ends when that one is killed: else it would wait for ever for more
    to do, and keep its connection to the database."""
    Thread(target=_end_with_parent, daemon=True).start()
    django.setup()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
