"""Images by address, fetched so that no request can reach into our own network, or take us over.

Every address of a host is checked before the first connection, and the connection is made to an address that
was checked: no name is looked up twice. Redirects are followed by us, each checked as the first address was.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import httpx

from service.errors import Kind, ServiceError
from service.gateway.addresses import is_global

# (host, port) -> its IP addresses, the best first. Raises OSError or UnicodeError where there are none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

PORTS = frozenset({80, 443})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_MAX_URL_CHARS = 8192
# Of one host, those that are tried when there is no connection.
_MAX_ADDRESSES = 4
# Pieces that a body may come in, and bytes that each further one must have on average: reading a body byte by
# byte would keep the event loop from everything else.
_MAX_PIECES = 2000
_MIN_PIECE_BYTES = 512
# Each holds up to `max_bytes`.
_MAX_AT_ONCE = 32
_RESOLVING_THREADS = 8
_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9-]{1,63}\.?")
_HEADERS = {
    "Accept": "image/*",
    # What is compressed anyway is refused: a few bytes of it may stand for gigabytes.
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "efficientsam3-service",
}


class Fetcher:
    """Fetches images. One per process, used from one event loop."""

    def __init__(
        self,
        max_bytes: int,
        max_seconds: float,
        *,
        resolve: Resolve | None = None,
        allowed: Callable[[str], bool] = is_global,
        ports: Collection[int] = PORTS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`max_seconds` bounds one image, from the first look-up to the last byte.

        The rest is what tests need to play the internet on one machine: which IP addresses and ports may be
        asked, how names become addresses, and whose certificates are believed.
        """
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._resolve = resolve or _Resolver()
        self._allowed = allowed
        self._ports = ports
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
        self._slots = asyncio.Semaphore(_MAX_AT_ONCE)

    async def __call__(self, url: str, deadline: float) -> bytes:
        """The bytes at `url`, whole by `deadline` (loop time).

        Raises ServiceError: INVALID_ARGUMENT for an address that may not be asked and for a host that does
        not answer with an image's bytes, PAYLOAD_TOO_LARGE, DEADLINE_EXCEEDED. What it says of the host is
        what its owner knows anyway: neither addresses nor content.
        """
        ours = asyncio.get_running_loop().time() + self._max_seconds
        try:
            async with asyncio.timeout_at(min(deadline, ours)), self._slots:
                return await self._follow(_parsed(url))
        except TimeoutError:
            limit = "the request's deadline" if deadline < ours else f"the limit of {self._max_seconds:g} s"
            detail = f"image.url was not fetched within {limit}."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from None
        except httpx.HTTPError:
            raise _refused("its host broke off, or does not speak HTTP") from None

    async def _follow(self, url: httpx.URL) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = await self._ask_host(url)
            if isinstance(answer, bytes):
                return answer
            if url.scheme == "https" and answer.scheme != "https":
                raise _refused("it redirects from https to http")
            url = answer
        raise _refused(f"it redirects more than {_MAX_REDIRECTS} times")

    async def _ask_host(self, url: httpx.URL) -> bytes | httpx.URL:
        """The image's bytes, or where its host sends us instead."""
        addresses = await self._checked_addresses(url)
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                return await self._ask(url, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        raise _refused("no connection could be made to its host, or none with a valid certificate")

    async def _checked_addresses(self, url: httpx.URL) -> Sequence[str]:
        """Where `url` may be fetched from. Raises ServiceError INVALID_ARGUMENT."""
        if url.scheme not in _DEFAULT_PORTS:
            raise _refused("only http and https are taken")
        if url.userinfo:
            raise _refused("an address with a user's name or password is not taken")
        port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
        if port not in self._ports:
            raise _refused(f"only the ports {', '.join(map(str, sorted(self._ports)))} are taken")
        try:
            addresses = await self._resolve(_host(url), port) if _is_plain(_host(url)) else ()
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses or not all(map(self._allowed, addresses)):
            # One sentence for both: which names our own network knows is nobody's business.
            raise _refused("its host has no address, or one that is not of the open internet")
        return addresses

    async def _ask(self, url: httpx.URL, address: str) -> bytes | httpx.URL:
        """As `_ask_host`, from the host's machine at `address`, an IP address: nothing is looked up."""
        # One address that is silent must leave time for the next.
        timeout = httpx.Timeout(None, connect=self._max_seconds / 2)
        headers = {**_HEADERS, "Host": url.netloc.decode("ascii")}
        # A client of its own: connections, cookies and proxies of the environment are shared with nobody.
        async with (
            httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout) as client,
            client.stream(
                "GET",
                url.copy_with(host=address),
                headers=headers,
                # The name that the certificate must be for.
                extensions={"sni_hostname": _host(url)},
            ) as response,
        ):
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return _parsed(response.headers["location"], base=url)
            return await self._body(response)

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != 200:
            raise _refused(f"its host answered with status {response.status_code}")
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise _refused("its host answered with compressed content")
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        pieces = 0
        async for piece in response.aiter_raw():
            pieces += 1
            if len(body) + len(piece) > self._max_bytes:
                raise self._too_large()
            if pieces > _MAX_PIECES + len(body) // _MIN_PIECE_BYTES:
                raise _refused("its host sends the image in too small pieces")
            body += piece
        if not body:
            raise _refused("its host answered without content")
        return bytes(body)

    def _too_large(self) -> ServiceError:
        detail = f"image.url: the image has more bytes than the limit of {self._max_bytes:,}."
        return ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)


class _Resolver:
    """The system's resolver, in threads of its own: slow names hold up nothing but other names."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVING_THREADS, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _addresses_of, host, port)
        return list(dict.fromkeys(found))


def _addresses_of(host: str, port: int) -> list[str]:
    return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _parsed(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """The address in `text`, which may be relative to `base`. Raises ServiceError INVALID_ARGUMENT."""
    if len(text) > _MAX_URL_CHARS:
        raise _refused(f"it has more characters than the limit of {_MAX_URL_CHARS:,}")
    try:
        url = base.join(text) if base else httpx.URL(text)
        named = bool(url.host)
    except (httpx.InvalidURL, ValueError):  # the latter for names that are no international names
        raise _refused("it cannot be read as an address") from None
    if not named:
        raise _refused("it names no host")
    return url


def _is_plain(host: str) -> bool:
    """Whether every parser and resolver reads `host` alike: no zone, no escape, no number but an address."""
    if ":" in host or host.rstrip(".").rpartition(".")[2][:1].isdigit():
        try:
            ip_address(host)
        except ValueError:
            return False
        return "%" not in host
    return bool(_NAME.fullmatch(host))


def _host(url: httpx.URL) -> str:
    """The host's name as it is looked up and certified: ASCII."""
    return url.raw_host.decode("ascii")


def _refused(why: str) -> ServiceError:
    return ServiceError(Kind.INVALID_ARGUMENT, f"image.url: {why}.")
