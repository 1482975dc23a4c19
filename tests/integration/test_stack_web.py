"""Web workers: one socket for many processes, drained before it closes, and no query string in any log."""

import asyncio
import logging
import os
import signal
import socket
import urllib.request
from typing import Any

import pytest
from websockets.asyncio.client import connect

import config.server
from config.server import Server, make_config
from config.stack.backoff import CALM_SECONDS, FIRST_SECONDS, SECONDS_MAX, Backoff
from config.stack.errors import StackError
from config.stack.web import WebWorkers, listen
from tests.integration.echo_application import application
from tests.integration.running_stack import wait_for

APPLICATION = "tests.integration.echo_application:application"


def pid_that_answers(workers: WebWorkers) -> int:
    with urllib.request.urlopen(workers.url, timeout=10) as answer:
        return int(answer.read())


def test_the_port_answers_while_one_of_two_workers_is_dead() -> None:
    with WebWorkers(os.environ, 2, application=APPLICATION) as workers:
        workers.kill(0)
        assert workers.pids[0] is None
        assert pid_that_answers(workers) == workers.pids[1]
        workers.revive(0)
        workers.kill(1)
        assert pid_that_answers(workers) == workers.pids[0]


def test_a_worker_that_died_is_started_again() -> None:
    said: list[str] = []
    with WebWorkers(os.environ, 1, application=APPLICATION) as workers:
        (pid,) = workers.pids
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        def another_runs() -> bool:
            workers.tend(said.append)
            return workers.pids[0] not in (None, pid)

        wait_for("another worker runs", another_runs)
        assert pid_that_answers(workers) == workers.pids[0]
    assert len(said) == 1


def test_a_worker_that_cannot_start_is_said_in_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    workers = WebWorkers(os.environ, 1, application="tests.nowhere:application")
    try:
        with pytest.raises(StackError, match="ended while it started"):
            workers.start()
    finally:
        workers.stop()


def test_the_wait_before_a_restart_grows_to_its_bound_and_starts_afresh_after_calm() -> None:
    backoff = Backoff()
    now = 1000.0
    delays = []
    for _ in range(12):
        delays.append(backoff.ended(now))
        assert not backoff.over(now)
        now += backoff.delay
        assert backoff.over(now)
    assert delays[:3] == [FIRST_SECONDS, FIRST_SECONDS * 2, FIRST_SECONDS * 4]
    assert delays[-1] == SECONDS_MAX
    assert backoff.ended(now + CALM_SECONDS + 1) == FIRST_SECONDS


@pytest.fixture
def restored_loggers() -> Any:
    """uvicorn's loggers are the process's own: give them back as they were."""
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error")]
    before = [(logger, logger.level, logger.propagate, logger.handlers[:], logger.filters[:]) for logger in loggers]
    yield
    for logger, level, propagate, handlers, filters in before:
        logger.level, logger.propagate, logger.handlers, logger.filters = level, propagate, handlers, filters


async def serve(server: Server, listener: socket.socket) -> "asyncio.Task[None]":
    read, write = os.pipe()
    server.ready_fd = write
    task = asyncio.create_task(server._serve([listener]))  # `serve` would take this process's signals
    await asyncio.wait_for(asyncio.to_thread(os.read, read, 1), 30)
    os.close(read)
    return task


@pytest.mark.usefixtures("restored_loggers")
async def test_a_ticket_in_an_address_never_reaches_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    server = Server(make_config(application, log_level="INFO"))
    listener = listen("127.0.0.1", 0)
    address = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/x?ticket=secret"
    task = await serve(server, listener)
    async with connect(address) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    logging.getLogger("uvicorn.error").error("failed at %s", "/ws/x?ticket=secret&more=1")
    server.should_exit = True
    await task
    written = capfd.readouterr().err
    assert '"WebSocket /ws/x" [accepted]' in written
    assert "failed at /ws/x\n" in written
    assert "secret" not in written


@pytest.mark.usefixtures("restored_loggers")
async def test_rooms_are_drained_while_their_sockets_are_still_open(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(make_config(application))
    listener = listen("127.0.0.1", 0)
    address = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/x"
    task = await serve(server, listener)
    async with connect(address) as client:
        echoed: list[str | bytes] = []

        async def drain() -> None:
            await client.send("last words")
            echoed.append(await client.recv())

        monkeypatch.setattr(config.server, "drain", drain)
        server.should_exit = True
        await asyncio.wait_for(client.wait_closed(), 30)
        assert echoed == ["last words"]
        assert client.close_code == 1012
    await task


def test_a_worker_ends_in_good_order_on_its_signal() -> None:
    workers = WebWorkers(os.environ, 1, application=APPLICATION)
    workers.start()
    port = workers.port
    workers.stop()
    assert workers.pids == [None]
    listen("127.0.0.1", port).close()
