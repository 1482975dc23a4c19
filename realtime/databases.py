"""Database connections of threads that wait on them, ended from outside: nothing else ends the wait for a database
that is there and says nothing."""

import contextlib
import os
import socket

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper


def cut(database: BaseDatabaseWrapper | None) -> None:
    """Shut down the socket under a connection; whoever waits on it gets an OperationalError."""
    raw = None if database is None else database.connection
    if raw is not None:  # else it is connecting, which has a limit of its own
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(raw.fileno())) as connected:
            connected.shutdown(socket.SHUT_RDWR)
