"""Image embeddings that workers share: what is asked of the store, and that nobody waits for it long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.artifact import Artifact, Graph, Tensor
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.sessions.redis_embeddings import RedisEmbeddings
from service.worker.server import StartError
from service.worker.shared import SharedEmbeddings, origin_of, packed, unpacked
from tests.redis_server import RedisServer
from tests.serving import free_ports
from tests.worker.conftest import Client, FakeEngine, Gate, Start, asking, picture, run

PICTURES = [picture() + bytes([index]) for index in range(9)]
SHAPE = (1, 3)
# Those of the small engine.
GRAPHS = {
    "image_encoder": Graph("", "", 0, (), (Tensor("embedding", "float32", ("N", *SHAPE[1:]), ""),), {}, {})
}
IMAGE, OTHER = "sha256:a", "sha256:b"
VALUES = np.array([[0.5, -2.0, 1 / 3]], np.float32)


def sharing(server: RedisServer, **settings: Any) -> Mapping[str, Any]:
    """How a worker is started that shares."""
    return {
        "redis_url": server.url,
        "shared_embedding_ttl_s": 1000,
        "manifest": {"graphs": GRAPHS},
        **settings,
    }


def asked(client: Client) -> dict[str, int]:
    """What was asked of the store by outcome, but for the warming picture, which is never asked for."""
    assert client.worker.shared is not None
    counts = dict(client.worker.shared.counts().asked)
    counts["skipped"] -= 1
    return {outcome: count for outcome, count in counts.items() if count}


async def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


async def answered(client: Client, data: bytes = PICTURES[0]) -> NDArray[np.float32]:
    """The embedding that a picture is answered by."""
    assert (await client.segment(asking(data=data))).results
    return client.engine.inputs["concept_features"]["embedding"]


def test_a_worker_answers_by_what_another_encoded(start: Start, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with start(**sharing(redis_server)) as client:
            first = await answered(client)
            assert client.engine.calls.count("image_encoder") == 1
            exact = client.engine.image_encoder(client.engine.inputs["image_encoder"]["pixels"])["embedding"]
            assert not np.array_equal(first, exact), "it is rounded before it is used"
            assert np.array_equal(first, exact.astype(np.float16).astype(np.float32))
            assert asked(client) == {"miss": 1}
        async with start(**sharing(redis_server)) as client:
            second = await answered(client)
            assert np.array_equal(first, second) and second.dtype == np.float32
            assert "image_encoder" not in client.engine.calls
            await answered(client, PICTURES[1])
            assert client.engine.calls.count("image_encoder") == 1
            assert asked(client) == {"hit": 1, "miss": 1}

    run(scenario())


def test_one_key_is_kept_for_an_image_and_for_its_time(start: Start, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with start(**sharing(redis_server)) as client:
            answer = await client.segment(asking())
        with redis_server.client() as redis:
            (key,) = redis.keys()
            assert key.startswith(b"efficientsam3:embedding:") and key.endswith(answer.image.id.encode())
            assert 0 < redis.ttl(key) <= 1000

    run(scenario())


def test_nothing_is_shared_unless_it_is_asked_for(start: Start, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with start(**sharing(redis_server, shared_embedding_ttl_s=0)) as client:
            await answered(client)
            assert client.worker.shared is None
        with redis_server.client() as redis:
            assert redis.keys() == []

    run(scenario())


def test_what_is_kept_here_is_not_asked_for_and_who_waits_for_it_asks_once(
    start: Start, redis_server: RedisServer
) -> None:
    settings = {"embedding_cache_bytes": 1 << 20, "concurrency": 2}

    async def scenario() -> None:
        async with start(**sharing(redis_server, **settings)) as client:
            client.engine.before = gate = Gate("image_encoder")
            requests = [asyncio.create_task(client.segment(asking())) for _ in range(2)]
            await gate.reached()
            await until(lambda: bool(client.worker.segmenter.caches()["features"]().joined))
            gate.open()
            await asyncio.gather(*requests)
            await client.segment(asking())
            assert asked(client) == {"miss": 1}

    run(scenario())


DAMAGE: dict[str, Callable[[bytes, str], bytes]] = {
    "nothing": lambda data, image: b"",
    "no message": lambda data, image: b"\xff" * len(data),
    "cut short": lambda data, image: data[:-1],
    "another image's": lambda data, image: packed(OTHER, VALUES.astype(np.float16)),
    "of another shape": lambda data, image: packed(image, np.zeros((1, 4), np.float16)),
    "of another value": lambda data, image: data[:-1] + bytes([data[-1] ^ 1]),
    "of another schema": lambda data, image: b"\x08\x02" + data.removeprefix(b"\x08\x01"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_counted_and_not_used(start: Start, redis_server: RedisServer, kind: str) -> None:
    async def scenario() -> None:
        async with start(**sharing(redis_server)) as client:
            first = await answered(client)
            image = (await client.segment(asking(data=PICTURES[0]))).image.id
        with redis_server.client() as redis:
            (key,) = redis.keys()
            whole = redis.get(key)
            assert isinstance(whole, bytes) and unpacked(whole, image, SHAPE) is not None
            redis.set(key, DAMAGE[kind](whole, image))
        async with start(**sharing(redis_server)) as client:
            assert np.array_equal(first, await answered(client))
            assert client.engine.calls.count("image_encoder") == 1
            assert asked(client) == {"damaged": 1}
        with redis_server.client() as redis:
            assert redis.get(key) == whole, "it is written again"

    run(scenario())


def test_answers_go_on_when_redis_is_killed(
    start: Start, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def scenario() -> None:
        async with start(**sharing(redis_server)) as client:
            before = await answered(client)
            redis_server.kill()
            for data in PICTURES:
                assert np.array_equal(before, await answered(client, data))
            assert client.engine.calls.count("image_encoder") == 1 + len(PICTURES)
            assert asked(client) == {"miss": 1, "error": 1, "skipped": len(PICTURES) - 1}

    run(scenario())
    (line,) = [each.message for each in caplog.records if "not shared" in each.message]
    assert line.startswith("The store of embeddings does not answer")


def test_answers_go_on_when_redis_is_full(start: Start, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with start(**sharing(redis_server)) as client:
            shared = client.worker.shared
            assert shared is not None
            await answered(client)
            await until(lambda: shared.counts().writes["written"] == 1)
            with redis_server.client() as redis:
                redis.config_set("maxmemory-policy", "noeviction")
                redis.config_set("maxmemory", "1")
            await answered(client, PICTURES[1])
            await until(lambda: shared.counts().writes["failed"] == 1)
            await answered(client)
            assert client.engine.calls.count("image_encoder") == 2, "what is there is still found"

    run(scenario())


@pytest.mark.parametrize("other", [{"batching": "fixed"}, {"threads": 3}], ids=str)
def test_workers_that_compute_otherwise_share_nothing(
    start: Start, redis_server: RedisServer, other: Mapping[str, Any]
) -> None:
    async def scenario() -> None:
        async with start(**sharing(redis_server, threads=2)) as client:
            await answered(client)
        async with start(**sharing(redis_server, **{"threads": 2, **other})) as client:
            await answered(client)
            assert asked(client) == {"miss": 1}

    run(scenario())


def test_the_origin_of_values_tells_apart_what_makes_them(artifact: Artifact) -> None:
    other, faster = FakeEngine(), FakeEngine()
    other.name, faster.precisions = "other", {"image_encoder": "bf16"}
    settings = WorkerSettings()
    origins = {
        origin_of(artifact, FakeEngine(), settings),
        origin_of(artifact, FakeEngine(), WorkerSettings(max_batch=2)),
        origin_of(replace(artifact, digest="1" * 64), FakeEngine(), settings),
        origin_of(artifact, other, settings),
        origin_of(artifact, faster, settings),
    }
    assert len(origins) == 4


def test_a_worker_without_redis_cannot_share(start: Start) -> None:
    async def scenario() -> None:
        with pytest.raises(StartError, match="shared_embedding_ttl_s: there is no redis_url"):
            async with start(shared_embedding_ttl_s=1):
                pass

    run(scenario())


def test_a_worker_tells_what_it_shares(start: Start, redis_server: RedisServer) -> None:
    (port,) = free_ports(1)

    async def scenario() -> None:
        async with start(**sharing(redis_server, metrics_listen=f"127.0.0.1:{port}")) as client:
            await answered(client)
            shared = client.worker.shared
            assert shared is not None
            await until(lambda: shared.counts().writes["written"] == 1)
            await answered(client)
            told = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")
        with redis_server.client() as redis:
            (key,) = redis.keys()
            size = redis.strlen(key)
        name = 'efficientsam3_cache_%s_total{cache="shared_embeddings",%svariant="tiny"} %s'
        for metric, outcome, value in (
            ("requests", "miss", 1.0),
            ("requests", "hit", 1.0),
            ("requests", "error", 0.0),
            ("requests", "damaged", 0.0),
            ("writes", "written", 1.0),
            ("writes", "failed", 0.0),
            ("writes", "dropped", 0.0),
        ):
            assert name % (metric, f'outcome="{outcome}",', value) in told.text
        assert name % ("written_bytes", "", float(size)) in told.text

    run(scenario())


class FakeStore:
    """Keeps everything, when it is let; notes what is asked of it."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cancelled = 0
        self.free, self.in_reach = asyncio.Event(), True
        self.free.set()

    async def put(self, image: str, data: bytes) -> None:
        await self._answer(image)
        self.kept[image] = data

    async def get(self, image: str) -> bytes | None:
        await self._answer(image)
        return self.kept.get(image)

    async def close(self) -> None:
        pass

    async def _answer(self, image: str) -> None:
        self.asked.append(image)
        if not self.in_reach:
            raise ServiceError(Kind.STORE_UNAVAILABLE, "It is gone.")
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


Scenario = Callable[[FakeStore, SharedEmbeddings], Awaitable[None]]


def with_fake(scenario: Scenario, **options: Any) -> None:
    async def whole() -> None:
        store = FakeStore()
        shared = SharedEmbeddings(store, SHAPE, **options)
        shared.begin()
        await scenario(store, shared)
        store.free.set()
        await shared.close()

    run(whole())


def test_a_store_that_stands_still_is_not_waited_for() -> None:
    async def scenario(store: FakeStore, shared: SharedEmbeddings) -> None:
        shared.put(IMAGE, VALUES)
        await asyncio.sleep(0)
        store.free.clear()
        assert await asyncio.to_thread(shared.get, IMAGE) is None
        await asyncio.sleep(0)
        assert store.cancelled == 1
        store.free.set()
        assert await asyncio.to_thread(shared.get, IMAGE) is None
        assert shared.counts().asked == {"hit": 0, "miss": 0, "error": 1, "damaged": 0, "skipped": 1}

    with_fake(scenario, patience_s=0.05)


def test_a_store_that_is_gone_is_left_alone_for_a_while_and_then_one_finds_out_for_all() -> None:
    moment = 0.0

    async def scenario(store: FakeStore, shared: SharedEmbeddings) -> None:
        nonlocal moment

        async def got() -> bool:
            return await asyncio.to_thread(shared.get, IMAGE) is not None

        rounded = shared.put(IMAGE, VALUES)
        await until(lambda: bool(store.kept))
        assert await got()
        store.in_reach = False
        store.asked.clear()
        assert [await got() for _ in range(3)] == [False] * 3 and len(store.asked) == 1
        moment += 9.0
        assert not await got() and len(store.asked) == 1
        assert np.array_equal(shared.put(OTHER, VALUES), rounded), "it is rounded all the same"
        await asyncio.sleep(0)
        assert len(store.asked) == 1
        moment += 1.0
        store.free.clear()
        store.in_reach = True
        first = asyncio.create_task(got())
        await until(lambda: len(store.asked) == 2)
        assert not await got() and len(store.asked) == 2, "the others do not wait"
        store.free.set()
        assert await first and await got() and len(store.asked) == 3

    with_fake(scenario, rest_s=10.0, patience_s=30.0, now=lambda: moment)


def test_an_answer_that_came_too_late_is_nobodys(redis_server: RedisServer) -> None:
    moment = 0.0

    async def scenario() -> None:
        nonlocal moment
        store = RedisEmbeddings(redis_server.url, "origin", 1000)
        shared = SharedEmbeddings(store, SHAPE, patience_s=0.3, now=lambda: moment)
        shared.begin()
        images = {IMAGE: shared.put(IMAGE, VALUES), OTHER: shared.put(OTHER, -VALUES)}
        await until(lambda: shared.counts().writes["written"] == 2)
        with redis_server.frozen():
            assert await asyncio.to_thread(shared.get, IMAGE) is None
        moment += 100.0
        for image in (OTHER, IMAGE):
            found = await asyncio.to_thread(shared.get, image)
            assert found is not None and np.array_equal(found, images[image])
        assert shared.counts().asked == {"hit": 2, "miss": 0, "error": 1, "damaged": 0, "skipped": 0}
        await shared.close()

    run(scenario())


def test_no_more_are_written_at_once_than_may_be() -> None:
    async def scenario(store: FakeStore, shared: SharedEmbeddings) -> None:
        store.free.clear()
        for index in range(20):
            shared.put(str(index), VALUES)
        await asyncio.sleep(0.01)
        begun = len(store.asked)
        assert 0 < begun < 20
        assert shared.counts().writes == {"written": 0, "failed": 0, "dropped": 20 - begun}
        store.free.set()
        await shared.close()
        assert shared.counts().writes["written"] == begun == len(store.kept)

    with_fake(scenario)


def test_numbers_that_half_floats_do_not_have_are_not_shared_and_not_changed() -> None:
    async def scenario(store: FakeStore, shared: SharedEmbeddings) -> None:
        large = np.array([[1 / 3, 1e6, 0.0]], np.float32)
        assert np.array_equal(shared.put(IMAGE, large), large)
        await shared.close()
        assert not store.asked

    with_fake(scenario)


def test_nothing_is_shared_before_it_begins() -> None:
    async def scenario() -> None:
        store = FakeStore()
        shared = SharedEmbeddings(store, SHAPE)
        shared.put(IMAGE, VALUES)
        assert await asyncio.to_thread(shared.get, IMAGE) is None
        assert store.asked == []
        await shared.close()

    run(scenario())
