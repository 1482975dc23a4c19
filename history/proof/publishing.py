"""The daily manifest: signed once a day and handed to where the operator said, a folder, a command or both.

A manifest that is published is never replaced. Whatever goes wrong, the next turn of the schedule tries again."""

import logging
import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection, transaction
from django.utils import timezone

from documents.conf import conf
from history.errors import HistoryError
from history.models import Manifest
from history.proof.manifests import (
    ManifestFile,
    audits_of_all_documents,
    heads_of_all_documents,
    open_manifest,
    write_manifest,
)
from history.proof.signing import key_id, load_key

# A second worker turns away at once: two would hand out two manifests of one day.
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('palimpsest manifest', 0))"


SAID_BYTES_MAX = 1000
"""Of what MANIFEST_COMMAND says on its standard error, what goes into the log; a manifest holds no content
that it could repeat."""

SAID_SECONDS_MAX = 1.0

logger = logging.getLogger(__name__)


class NotDelivered(HistoryError):
    """The operator's command did not take the manifest; how it ended is all that is said of it."""


def publish_manifest(*, now: datetime) -> Manifest | None:
    """Sign the heads of all logs and hand them out, unless that was done on this day (UTC) or no key is set.

    The command may be given the same day's manifest twice, where the worker dies between it and the commit; a file that
    is there already is what is recorded. Streams the heads: memory does not grow with their number, and no append
    waits. Must not run inside `atomic()`. Raises: KeyRefused, ManifestRefused, NotDelivered, OSError."""
    settings = conf()
    if not settings.manifest_key or not (settings.manifest_directory or settings.manifest_command):
        return None
    key = load_key(Path(settings.manifest_key))
    day = now.astimezone(UTC).date()
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute(TRY_LOCK)
            if not cursor.fetchone()[0]:
                return None
        if Manifest.objects.filter(day=day).exists():
            return None
        with _scratch_folder() as scratch:
            name = f"manifest-{day}.jsonl"
            published = Path(settings.manifest_directory, name) if settings.manifest_directory else None
            part = scratch / f".{name}.part"
            try:
                file = _written(published, part, day=day, now=now, key=key)
                if settings.manifest_command:
                    _hand_over(file.path, name)
                if published is not None and file.path != published:
                    _put(file.path, published)
            finally:
                # On a disk that is full it would be in the way of the next try, and of everything else.
                with suppress(OSError):
                    part.unlink(missing_ok=True)
        return Manifest.objects.create(
            day=day,
            sha256=file.sha256,
            documents=file.documents,
            key_id=key_id(key.public_key()),
            created_at=file.created_at,
            published_at=timezone.now(),
        )


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Where the manifest is written before it is published: on the same disk, so that it appears there in one go."""
    if conf().manifest_directory:
        yield Path(conf().manifest_directory)
    else:
        with tempfile.TemporaryDirectory(prefix="palimpsest-manifest-") as folder:
            yield Path(folder)


def _written(published: Path | None, part: Path, *, day: date, now: datetime, key: Ed25519PrivateKey) -> ManifestFile:
    """The day's manifest as a file: the one that is there, else a new one that nobody sees yet."""
    public = [key.public_key()]
    if published is not None and published.exists():
        return open_manifest(published, keys=public)
    last = Manifest.objects.filter(day__lt=day).order_by("-day").first()
    previous = b"" if last is None else bytes(last.sha256)
    with part.open("wb") as out:
        heads, audits = heads_of_all_documents(), audits_of_all_documents()
        write_manifest(out, heads, audits, created_at=now, previous=previous, key=key)
        out.flush()
        os.fsync(out.fileno())
    # Read back: what is handed out is what was meant to be signed, also on a disk that lies.
    return open_manifest(part, keys=public)


def _hand_over(path: Path, name: str) -> None:
    """Run the operator's command, without a shell, the manifest on its standard input."""
    command = [part.replace("{name}", name) for part in shlex.split(conf().manifest_command)]
    seconds = conf().manifest_command_seconds
    with path.open("rb") as manifest:
        try:
            # A group of its own: what the command has started ends with it, and holds no output of ours open.
            child = subprocess.Popen(
                command,
                stdin=manifest,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise NotDelivered(f"MANIFEST_COMMAND could not be run: {error.strerror}") from None
    heard = _Heard(child)
    try:
        exit_code = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise NotDelivered(f"MANIFEST_COMMAND did not end within {seconds} s") from None
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        heard.log()
    if exit_code != 0:
        raise NotDelivered(f"MANIFEST_COMMAND ended with exit code {exit_code}")


class _Heard:
    """The beginning of what the command says on its standard error. The rest is read too, so that it never waits."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        assert child.stderr is not None
        self._pipe = child.stderr
        self._said = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._pipe:
            while data := os.read(self._pipe.fileno(), 65_536):
                self._said += data[: SAID_BYTES_MAX - len(self._said)]

    def log(self) -> None:
        # What it has left running may hold the pipe open for ever.
        self._reader.join(SAID_SECONDS_MAX)
        if said := self._said.decode(errors="replace"):
            logger.warning("MANIFEST_COMMAND says: %r", said)


def _put(part: Path, published: Path) -> None:
    """Give the file its name, durably."""
    part.rename(published)
    with suppress(OSError):  # not every file system lets a folder be synced
        folder = os.open(published.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
