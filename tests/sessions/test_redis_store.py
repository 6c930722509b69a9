"""The Redis store against a real redis-server that is killed and comes back."""

import asyncio

import pytest

from service.errors import Kind, ServiceError
from service.sessions.redis_store import RedisStore
from tests.redis_server import RedisServer


def test_a_killed_server_is_store_unavailable_and_its_return_is_noticed(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = RedisStore(redis_server.url)
        try:
            await store.ping()
            redis_server.kill()
            with pytest.raises(ServiceError) as failure:
                await store.ping()
            assert failure.value.kind is Kind.STORE_UNAVAILABLE
            redis_server.start()
            await store.ping()
        finally:
            await store.close()

    asyncio.run(scenario())
