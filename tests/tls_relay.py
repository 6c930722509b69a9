"""Takes TLS off on the way to a port, as a balancer does."""

import asyncio
import ssl

from tests.certificates import Shown


class TlsRelay:
    """Listens on loopback with TLS and passes bytes to and from a port, while its context lasts."""

    def __init__(self, target: int, shown: Shown) -> None:
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(shown.certificate, shown.key)
        self._context.set_alpn_protocols(["h2", "http/1.1"])

    async def __aenter__(self) -> "TlsRelay":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_pass(reader, behind[1]), _pass(behind[0], writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
