"""Frames of a session over a WebSocket."""

import asyncio
import json
import logging
from collections.abc import Mapping
from ssl import SSLContext

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from service.client.problems import problem, refusal
from service.client.transport import GRACE_S, Json, NoAnswerError, nobody, too_late
from service.errors import Kind, ServiceError

# Codes of RFC 6455 for what would be refused again.
_REFUSED = {1008: Kind.INVALID_ARGUMENT, 1009: Kind.PAYLOAD_TOO_LARGE}


class OverWebSocket:
    """A `Connection`."""

    def __init__(self, url: str, socket: ClientConnection, timeout_s: float) -> None:
        """Made by `connected`."""
        self._url, self._socket, self._timeout_s = url, socket, timeout_s

    async def send(self, request: Json, image: bytes) -> None:
        try:
            await self._socket.send(json.dumps(request))
            await self._socket.send(image)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> Json:
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                answer: Json = json.loads(await self._socket.recv())
        except ConnectionClosed as error:
            raise _closed(error) from error
        except TimeoutError as error:
            raise too_late(self._url, self._timeout_s) from error
        if (refused := problem(answer)) is not None:
            raise refused
        return answer

    async def close(self) -> None:
        await self._socket.close()


async def connected(
    url: str, headers: Mapping[str, str], timeout_s: float, tls: SSLContext | None
) -> OverWebSocket:
    """A connection to the stream at `url`. Raises ServiceError."""
    try:
        socket = await connect(
            url,
            additional_headers=headers,
            open_timeout=timeout_s + GRACE_S,
            max_size=None,
            # Images are compressed already, and answers are small beside them.
            compression=None,
            # Pings would be read behind the frames that wait; the wait for an answer has an end anyway.
            ping_interval=None,
            # The library's own would write the key where it is asked for details.
            logger=_quiet(),
            ssl=tls,
        )
    except InvalidStatus as error:
        told = error.response
        raise refusal(
            url, told.status_code, dict(told.headers.raw_items()), bytes(told.body or b"")
        ) from error
    except (OSError, InvalidHandshake) as error:
        raise nobody(url, error) from error
    return OverWebSocket(url, socket, timeout_s)


def _quiet() -> logging.Logger:
    logger = logging.Logger(__name__, logging.CRITICAL)
    logger.addHandler(logging.NullHandler())
    return logger


def _closed(error: ConnectionClosed) -> ServiceError:
    close = error.rcvd
    if close is not None and close.code in _REFUSED:
        return ServiceError(_REFUSED[close.code], close.reason or str(error))
    return NoAnswerError(Kind.UNAVAILABLE, f"The connection broke: {error}.", begun=True)
