"""Files from a web server that is not trusted: bounded in bytes, time and redirects."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from model_store.artifact import StoreError

_MOVED = {301, 302, 303, 307, 308}


class DownloadError(StoreError):
    """The file was not fetched; the message says why, and what can be done."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a transfer may take."""

    # Without an answer, or without another byte, seconds.
    idle_s: float
    # Bytes per second, on average over each `idle_s`.
    least_rate: float
    # From one file's address to where it is in the end.
    redirects: int


@asynccontextmanager
async def client(address: str, limits: Limits) -> "AsyncIterator[Client]":
    """A client of the folder at `address`, http:// or https://. Raises DownloadError for a bad address."""
    try:
        base = httpx.URL(address.rstrip("/") + "/")
    except httpx.InvalidURL as error:
        raise DownloadError(f"{address!r} is no address of a folder: {error}") from error
    if base.userinfo or base.query or base.fragment or "\\" in address:
        detail = "A folder's address is https://host/path, without user, query, fragment or backslash."
        raise DownloadError(detail)
    # Files come as they are on the server's disk: their digests are of those bytes.
    headers = {"accept-encoding": "identity"}
    async with httpx.AsyncClient(headers=headers, timeout=limits.idle_s) as web:
        yield Client(web, base, limits)


class Client:
    """Fetches files that lie below one address."""

    def __init__(self, web: httpx.AsyncClient, base: httpx.URL, limits: Limits) -> None:
        """Made by `client`."""
        self._web, self._base, self._limits = web, base, limits

    @property
    def address(self) -> str:
        """The folder's address, with a slash at its end and without a password."""
        return str(self._base.copy_with(username=None, password=None))

    async def save(self, file: str, path: Path, most: int, report: Callable[[float], None]) -> str:
        """Write the file to `path`, and return its sha256 in hexadecimal digits.

        Args:
            most: the bytes that it may have.
            report: called with the fraction that has come, 0..1.

        Raises:
            DownloadError: it cannot be had within the limits.
            OSError: it cannot be written.
        """
        name = f"{self.address}{file}"
        try:
            async with self._opened(name, self._base.join(file)) as answer:
                return await self._written(name, answer, path, most, report)
        except httpx.TimeoutException as error:
            raise self._stuck(name) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{name} cannot be had: {_reason(error)}") from error

    @asynccontextmanager
    async def _opened(self, name: str, url: httpx.URL) -> AsyncIterator[httpx.Response]:
        """The answer with the file, its body not read yet; redirects are followed up to the limit."""
        for _ in range(self._limits.redirects + 1):
            request = self._web.build_request("GET", url)
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    answer = await self._web.send(request, stream=True)
            except TimeoutError as error:
                raise self._stuck(name) from error
            try:
                if answer.status_code not in _MOVED:
                    _check(name, answer)
                    yield answer
                    return
                url = _redirected(name, url, answer)
            finally:
                await answer.aclose()
        raise DownloadError(
            f"{name} cannot be had: it was redirected more than {self._limits.redirects} times"
        )

    async def _written(
        self, name: str, answer: httpx.Response, path: Path, most: int, report: Callable[[float], None]
    ) -> str:
        announced = answer.headers.get("content-length", "")
        total = int(announced) if announced.isascii() and announced.isdigit() else 0
        if total > most:
            raise _too_large(name, most)
        digest, count, pace = hashlib.sha256(), 0, _Pace(self._limits)
        with path.open("wb") as saved:
            async for chunk in answer.aiter_raw():
                count += len(chunk)
                if count > most:
                    raise _too_large(name, most)
                if not pace.keeps_up(len(chunk)):
                    raise self._stuck(name)
                digest.update(chunk)
                saved.write(chunk)
                report(min(1.0, count / total) if total else 0.0)
        report(1.0)
        return digest.hexdigest()

    def _stuck(self, name: str) -> DownloadError:
        return DownloadError(
            f"{name} cannot be had: fewer than {self._limits.least_rate:g} bytes per second came for "
            f"{self._limits.idle_s:g} s; try again, or take it from another server"
        )


class _Pace:
    """Whether bytes come fast enough, on average over each `idle_s`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began, self._count = time.monotonic(), 0

    def keeps_up(self, count: int) -> bool:
        """Count so many bytes more, and return whether they come fast enough."""
        self._count += count
        seconds = time.monotonic() - self._began
        if seconds < self._limits.idle_s:
            return True
        enough = self._count >= self._limits.least_rate * seconds
        self._began, self._count = time.monotonic(), 0
        return enough


def _check(name: str, answer: httpx.Response) -> None:
    """Raise DownloadError unless the answer holds a whole file as it is on the server's disk."""
    if answer.status_code != httpx.codes.OK:
        # Where it was sent on to may be signed: the status alone is told.
        raise DownloadError(f"{name} cannot be had: HTTP status {answer.status_code}")
    if (encoding := answer.headers.get("content-encoding", "identity").strip().lower()) not in (
        "",
        "identity",
    ):
        raise DownloadError(
            f"{name} cannot be had: it came encoded as {encoding[:20]!a}; "
            "let the server send files as they are, without compression"
        )


def _redirected(name: str, url: httpx.URL, answer: httpx.Response) -> httpx.URL:
    """Where the answer sends on to. Raises DownloadError for an address that is not followed."""
    target = url.join(answer.headers.get("location", ""))
    same_host = (target.scheme, target.host, target.port) == (url.scheme, url.host, url.port)
    if (
        target.userinfo
        or not target.host
        or not (target.scheme == "https" or (same_host and url.scheme == "http"))
    ):
        raise DownloadError(
            f"{name} cannot be had: it was redirected to an address that is not followed; "
            "only https:// addresses, and http:// ones of the same host, are"
        )
    return target


def _too_large(name: str, most: int) -> DownloadError:
    return DownloadError(f"{name} is more than {most} bytes, the most that it may have; compare the digest")


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
