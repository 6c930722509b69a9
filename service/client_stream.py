"""Frames of a session over a WebSocket: several are in flight, and asked again when the connection breaks."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.client_http import Http, Patience, problem
from service.errors import Kind, ServiceError

# Codes of RFC 6455 for what would be refused again.
_REFUSED = {1008: Kind.INVALID_ARGUMENT, 1009: Kind.PAYLOAD_TOO_LARGE}
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """One frame as it is sent."""

    # The JSON beside the image, with its index as "frame".
    request: Mapping[str, Any]
    # An encoded file.
    image: bytes


class Stream:
    """A connection to a session that is made when it is needed, and anew after it broke. `close` it."""

    def __init__(self, http: Http, path: str, patience_s: float) -> None:
        """`path` is the session's. `patience_s` bounds the tries for one answer."""
        self._http, self._url = http, f"ws{http.base_url.removeprefix('http')}{path}/stream"
        # The server answers at its deadline at the latest; a little later we stop waiting for it.
        self._timeout_s, self._patience_s = http.timeout_s + 5.0, patience_s
        self._socket: ClientConnection | None = None
        self._open = ExitStack()
        # Of those that wait for an answer, how many went out over this connection.
        self._sent = 0

    def answer(self, waiting: Sequence[Asked]) -> dict[str, Any]:
        """The answer to the first of `waiting`, all of which have been sent then.

        `waiting` are the frames without an answer, in their order. Those that were answered, and whose
        answers were lost on the way, are answered the same way again. Raises ServiceError.
        """
        patience = Patience(self._patience_s)
        while True:
            try:
                return self._try(waiting)
            except ServiceError as error:
                # Whatever was sent behind a frame that is refused is refused as well: all are asked anew.
                self.close()
                patience.wait(error)

    def close(self) -> None:
        """Hang up; what was sent and not answered yet may be computed or not."""
        self._open.close()
        self._socket, self._sent = None, 0

    def _try(self, waiting: Sequence[Asked]) -> dict[str, Any]:
        socket = self._socket = self._socket or self._connected()
        try:
            for asked in waiting[self._sent :]:
                socket.send(json.dumps(asked.request))
                socket.send(asked.image)
                self._sent += 1
            told = json.loads(socket.recv(timeout=self._timeout_s))
        except ConnectionClosed as error:
            raise _closed(error) from error
        except TimeoutError as error:
            detail = f"{self._url} did not answer within {self._timeout_s:g} s."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from error
        if (refused := problem(told)) is not None:
            raise refused
        self._sent -= 1
        answer: dict[str, Any] = told
        return answer

    def _connected(self) -> ClientConnection:
        try:
            connection = connect(
                self._url,
                additional_headers=self._http.headers(),
                open_timeout=self._timeout_s,
                max_size=None,
                # Images are compressed already, and answers are small beside them.
                compression=None,
                # Pings would be read behind the frames that wait; the wait for an answer has an end anyway.
                ping_interval=None,
            )
            return self._open.enter_context(connection)
        except InvalidStatus as error:
            status = error.response.status_code
            detail = f"{self._url} answered {status}, and not as this service does."
            raise ServiceError(
                Kind.UNAVAILABLE if status >= _SERVER_ERROR else Kind.INTERNAL, detail
            ) from error
        except (OSError, InvalidHandshake) as error:
            raise ServiceError(Kind.UNAVAILABLE, f"No server answers at {self._url}: {error}") from error


def _closed(error: ConnectionClosed) -> ServiceError:
    close = error.rcvd
    if close is not None and close.code in _REFUSED:
        return ServiceError(_REFUSED[close.code], close.reason or str(error))
    return ServiceError(Kind.UNAVAILABLE, f"The connection broke: {error}.")
