"""The Redis store behind real sentinels, whose master dies and comes back."""

import asyncio
from pathlib import Path

import pytest

from service.errors import Kind, ServiceError
from service.sessions.image_store import ImageStore
from service.sessions.redis_images import RedisImages
from service.sessions.redis_store import RedisStore
from tests.sentinels import Sentinels

_ID = "sha256:" + 64 * "0"


async def _kept(images: ImageStore, data: bytes) -> None:
    """Return when the store has taken it: while there is no master it refuses."""
    while True:
        try:
            await images.put("", _ID, data)
        except ServiceError as error:
            assert error.kind is Kind.STORE_UNAVAILABLE
            await asyncio.sleep(0.1)
        else:
            return


def test_the_client_follows_the_master(tmp_path: Path) -> None:
    servers = Sentinels(tmp_path)

    async def scenario() -> None:
        store, images = RedisStore(servers.url), RedisImages(servers.url, 100)
        try:
            await _kept(images, b"first")
            servers.first.kill()
            with pytest.raises(ServiceError) as failure:
                await store.ping()
            assert failure.value.kind is Kind.STORE_UNAVAILABLE
            await _kept(images, b"second")
            await store.ping()
            # It comes back as a master that it is no longer, until a sentinel tells it so.
            servers.first.start()
            while servers.roles() != {"master", "slave"}:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await _kept(images, b"third")
            assert await images.get("", _ID) == b"third"
        finally:
            await images.close()
            await store.close()

    with servers.running():
        asyncio.run(asyncio.wait_for(scenario(), 120))


def test_without_sentinels_the_store_is_unavailable() -> None:
    async def scenario() -> None:
        store = RedisStore("redis+sentinel://127.0.0.1:1,[::1]:1/tracked")
        with pytest.raises(ServiceError) as failure:
            await store.ping()
        assert failure.value.kind is Kind.STORE_UNAVAILABLE
        await store.close()

    asyncio.run(scenario())
