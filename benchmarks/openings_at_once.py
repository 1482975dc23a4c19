"""Many people open one cold document at the same moment: how often the log is read, how long it takes."""

import asyncio
import resource
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from django.utils import timezone
from pycrdt import Doc, Text

from benchmarks.editing_trace import EMPTY_SYNC_STEP_1, SYNC_STEP_2, environment
from config.stack.web import WebWorkers
from documents.models import Document
from history.append import append
from history.fates import PendingUpdate
from history.models import Via
from history.sessions import WriteSession

HEADER = (
    "GET /ws/{name} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASKED_SYNC_STEP_1 = bytes((0x82, 0x80 | len(EMPTY_SYNC_STEP_1), 0, 0, 0, 0)) + EMPTY_SYNC_STEP_1
OPEN_SECONDS_MAX = 300.0
SPARE_FILES = 500


def make_document(characters: int) -> Document:
    document = Document.objects.create(name=f"openings-{uuid.uuid4().hex}", title="Openings", open_to_all=True)
    session = WriteSession(
        document_id=document.pk, user=None, via=Via.IMPORT, opened_at=timezone.now(), requires_role=False
    )
    doc: Doc[Any] = Doc()
    doc.get("text", type=Text).insert(0, "x" * characters)
    append([PendingUpdate(session=session, payload=doc.get_update())])
    return document


class Opening(asyncio.Protocol):
    """The least that opens a document; `opened` is when all of it had come."""

    def __init__(self, request: bytes, characters: int) -> None:
        self._request = request
        self._characters = characters
        self._received = bytearray()
        self._transport: Any = None
        self.whole: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._received:  # the handshake's answer: what came before it would be lost
            self._transport.write(MASKED_SYNC_STEP_1)
        self._received += data
        if not self.whole.done() and len(self._received) > self._characters and SYNC_STEP_2 in self._received:
            del self._received[1:]
            self.whole.set_result(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_exception(ConnectionError("closed before the document had come"))


async def _open_all(port: int, name: str, count: int, characters: int) -> tuple[list[float], int]:
    """Seconds from the common start until each had the document, and how many failed."""
    loop = asyncio.get_running_loop()
    request = HEADER.format(name=name).encode()
    started = time.perf_counter()

    async def open_one() -> tuple[asyncio.BaseTransport, float]:
        transport, opening = await loop.create_connection(lambda: Opening(request, characters), "127.0.0.1", port)
        return transport, await opening.whole - started

    async with asyncio.timeout(OPEN_SECONDS_MAX):
        found = await asyncio.gather(*(open_one() for _ in range(count)), return_exceptions=True)
    opened = [each for each in found if isinstance(each, tuple)]
    if not opened:
        raise SystemExit(f"nobody could open the document: {found[0]!r}")
    for transport, _ in opened:
        transport.close()
    return [seconds for _, seconds in opened], count - len(opened)


def _most_resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kilobytes * 1024


def run(*, openings: int, characters: int) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files < openings + SPARE_FILES:
        raise SystemExit(f"{openings} openings need {openings + SPARE_FILES} open files; {files} are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    document = make_document(characters)
    unlimited = {f"SOCKETS{of}_MAX": str(2 * openings) for of in ("", "_PER_DOCUMENT", "_PER_ADDRESS", "_PER_USER")}
    unlimited["AUTHENTICATE_SECONDS"] = str(OPEN_SECONDS_MAX)  # admitting so many takes longer than one should wait
    with tempfile.NamedTemporaryFile("r") as loads:
        env = {**environment(), **unlimited, "LOADS_FILE": loads.name}
        with WebWorkers(env, count=1, application="benchmarks.counting_loads:application") as workers:
            (pid,) = [pid for pid in workers.pids if pid is not None]
            before = _most_resident_bytes(pid)
            seconds, failed = asyncio.run(_open_all(workers.port, document.name, openings, characters))
            most = _most_resident_bytes(pid)
        count = len(loads.read().splitlines())
    print(
        f"{openings:,} openings of {characters:,} characters at once: {count} loads of the log, {failed} failed, "
        f"half had it after {statistics.median(seconds):.2f} s, all after {max(seconds):.2f} s; "
        f"the process went from {before / 2**20:.0f} to at most {most / 2**20:.0f} MiB"
    )
