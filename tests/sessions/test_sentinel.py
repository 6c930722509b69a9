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
            await asyncio.wait_for(_kept(images, b"second"), 60)
            await store.ping()
            # It comes back as the replica that it is now; the one that was asked last stays the master.
            servers.first.start()
            with servers.first.client() as client:
                while client.info("replication")["role"] != "slave":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await _kept(images, b"third")
            assert await images.get("", _ID) == b"third"
            with servers.second.client() as client:
                assert client.info("replication")["role"] == "master"
        finally:
            await images.close()
            await store.close()

    with servers.running():
        asyncio.run(scenario())


def test_without_sentinels_the_store_is_unavailable() -> None:
    async def scenario() -> None:
        store = RedisStore("redis+sentinel://127.0.0.1:1,[::1]:1/tracked")
        with pytest.raises(ServiceError) as failure:
            await store.ping()
        assert failure.value.kind is Kind.STORE_UNAVAILABLE
        await store.close()

    asyncio.run(scenario())
