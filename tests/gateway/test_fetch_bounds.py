"""Hosts that answer with too much, too slowly, in crumbs, compressed, or with no image at all."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest

from service.errors import Kind
from tests.gateway.internet import Internet, endless, fetch, page, play, redirect, refused, silence


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """An answer that is none."""


BROKEN = {
    "a status": (page(b"secret", "404 Not Found"), "its host answered with status 404"),
    "a server's failure": (page(b"secret", "503 Secret"), "its host answered with status 503"),
    "no redirect's address": (page(b"secret", "302 Found"), "its host answered with status 302"),
    "nothing": (page(b""), "without content"),
    "no content": (page(b"", "204 No Content", content_length=""), "status 204"),
    "half a body": (page(content_length="50"), "broke off, or does not speak HTTP"),
    "no HTTP": (endless(b"secret" * 10_000, head="\0"), "broke off, or does not speak HTTP"),
    "a hang-up": (hang_up, "broke off, or does not speak HTTP"),
    "another protocol": (page(b"", "101 Switching", content_length=""), "broke off, or does not speak HTTP"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_host_that_does_not_answer_with_an_image_is_told_without_its_words(case: str) -> None:
    answer, words = BROKEN[case]

    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = answer
        detail = await refused(internet.fetcher(), internet.base)
        assert words in detail and "secret" not in detail.lower()

    play(scenario)


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Header: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


def test_headers_without_end_are_cut_off() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = endless_headers
        assert "broke off" in await refused(internet.fetcher(), internet.base)

    play(scenario)


LARGE = {
    "announced": page(b"", content_length="100001"),
    "announced beyond measure": page(b"", content_length="9" * 15),
    "streamed": page(bytes(100_001), content_length=""),
    "without end": endless(bytes(10_000)),
    "chunks without end": endless(b"3E8\r\n" + bytes(1000) + b"\r\n", head="Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("case", LARGE)
def test_more_bytes_than_a_body_may_have_are_refused(case: str) -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = LARGE[case]
        detail = await refused(internet.fetcher(), internet.base, Kind.PAYLOAD_TOO_LARGE)
        assert "more bytes than the limit of 100,000" in detail

    play(scenario)


def test_the_largest_image_is_taken_and_a_lying_length_brings_no_more_than_it_says() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages |= {"/": page(bytes(100_000)), "/lies": page(bytes(200_000), content_length="5")}
        assert await fetch(internet.fetcher(), internet.base) == bytes(100_000)
        assert await fetch(internet.fetcher(), f"{internet.base}/lies") == bytes(5)

    play(scenario)


def test_an_image_in_crumbs_is_refused_before_it_costs_much() -> None:
    async def scenario(internet: Internet) -> None:
        chunked = "Transfer-Encoding: chunked"
        internet.pages["/"] = endless(b"1\r\na\r\n" * 1000, head=chunked)
        assert "too small pieces" in await refused(internet.fetcher(), internet.base)
        small = b"32\r\n" + bytes(50) + b"\r\n"
        whole = small * 1900 + b"0\r\n\r\n"
        internet.pages["/"] = page(whole, content_length="", transfer_encoding="chunked")
        assert await fetch(internet.fetcher(), internet.base) == bytes(95_000)

    play(scenario)


def test_what_is_compressed_is_refused_and_never_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000

    async def scenario(internet: Internet) -> None:
        for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "Identity, gzip"):
            internet.pages["/"] = page(bomb, content_encoding=encoding)
            assert "compressed" in await refused(internet.fetcher(), internet.base)
        internet.pages["/"] = page(bomb, content_encoding="", content_type="application/gzip")
        assert await fetch(internet.fetcher(), internet.base) == bomb
        internet.pages["/"] = page(content_encoding="Identity")
        assert await fetch(internet.fetcher(), internet.base) == b"an image"

    play(scenario)


async def stops(writer: asyncio.StreamWriter) -> None:
    await page(content_length="50000")(writer)
    await silence(writer)


@pytest.mark.parametrize("answer", [silence, endless(b"a", 0.02), stops], ids=["silent", "drips", "stops"])
def test_a_slow_host_is_cut_off_by_the_first_of_two_limits(answer: Callable[..., Awaitable[None]]) -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = answer
        late = Kind.DEADLINE_EXCEEDED
        detail = await refused(internet.fetcher(max_seconds=0.3), internet.base, late)
        assert "within the limit of 0.3 s" in detail
        detail = await refused(internet.fetcher(), internet.base, late, seconds=0.3)
        assert "within the request's deadline" in detail

    play(scenario)


def test_redirects_share_one_limit_of_time() -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        await redirect("/slow")(writer)

    async def scenario(internet: Internet) -> None:
        internet.pages["/slow"] = slowly
        url = f"{internet.base}/slow"
        assert await refused(internet.fetcher(max_seconds=1), url, Kind.DEADLINE_EXCEEDED)

    play(scenario)


def test_a_name_that_is_never_found_is_cut_off() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async def scenario(internet: Internet) -> None:
        fetcher = internet.fetcher(max_seconds=0.2, resolve=never)
        await refused(fetcher, internet.base, Kind.DEADLINE_EXCEEDED)

    play(scenario)


def test_no_more_than_some_are_fetched_at_once() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = silence
        fetcher = internet.fetcher()
        fetching = [asyncio.create_task(fetch(fetcher, internet.base)) for _ in range(40)]
        while len(internet.asked) < 32:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await refused(fetcher, internet.base, Kind.DEADLINE_EXCEEDED, seconds=0.3)
        assert len(internet.asked) == 32
        for each in fetching:
            each.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)
        internet.pages["/"] = page()
        assert await fetch(fetcher, internet.base) == b"an image"

    play(scenario)
