"""uvicorn's HTTP protocol with bounds in time for requests and answers: `uvicorn --http` takes the class below."""

from asyncio import TimerHandle
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from documents.conf import conf


class PunctualHttpProtocol(H11Protocol):
    """Closes a connection that does not bring a whole request within REQUEST_SECONDS: uvicorn itself waits for ever on
    one that says nothing, or half a handshake. And one that takes nothing of an answer for STALLED_READER_SECONDS, for
    which uvicorn waits as long."""

    _request_timer: TimerHandle | None = None
    _answer_timer: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_a_request()

    def data_received(self, data: bytes) -> None:
        if self._request_timer is None:  # a further request on the same connection begins
            self._expect_a_request()
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_expecting()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._stop_expecting()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._answer_timer = self.loop.call_later(conf().stalled_reader_seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

    def _expect_a_request(self) -> None:
        self._request_timer = self.loop.call_later(conf().request_seconds, self.transport.abort)

    def _stop_expecting(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _stop_waiting(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
