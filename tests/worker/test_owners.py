"""No owner can tell by its answers, or by what had to be computed for them, what another has sent."""

import asyncio
from typing import Any

import pytest

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc
from tests.redis_server import RedisServer
from tests.worker.conftest import Client, Gate, Start, asking, run
from tests.worker.test_shared import sharing

CLICK = pb.Prompt(points=[pb.Point(x=4, y=4, positive=True)])
TEXT = pb.Prompt(text="a cat")
# Room for all that these tests bring.
ROOM: dict[str, Any] = {"embedding_cache_bytes": 1 << 20, "feature_cache_bytes": 1 << 20}
FIRST_TIME = {"decode", "image_encoder", "concept_features", "text_encoder"}


async def stages(client: Client, owner: str, prompt: pb.Prompt = TEXT) -> set[str]:
    """The stages of an answer to this owner."""
    stub = segmentation_pb2_grpc.SegmentationStub(client.channel)
    answer = await stub.Segment(asking(prompt), timeout=30, metadata=(("x-owner", owner),))
    assert answer.results
    return set(answer.timings_ms)


def test_an_owners_image_and_text_are_computed_anew_for_another(start: Start) -> None:
    async def scenario() -> None:
        async with start(**ROOM) as client:
            for owner in ("alice", "bob", ""):
                assert await stages(client, owner) >= FIRST_TIME, owner
                assert not await stages(client, owner) & FIRST_TIME, owner
            assert client.engine.calls.count("image_encoder") == 3
            assert client.engine.calls.count("text_encoder") == 3

    run(scenario())


def test_clicks_are_kept_apart_too(start: Start) -> None:
    async def scenario() -> None:
        async with start(**ROOM) as client:
            for owner in ("alice", "bob"):
                for first in (True, False):
                    told = await stages(client, owner, CLICK)
                    assert ({"decode", "interactive_features"} <= told) is first, owner

    run(scenario())


def test_an_image_that_is_encoded_for_another_is_not_waited_for(start: Start) -> None:
    async def scenario() -> None:
        async with start(**ROOM, concurrency=2, batching="fixed") as client:
            client.engine.before = gate = Gate("image_encoder")
            asked = [asyncio.create_task(stages(client, owner)) for owner in ("alice", "bob")]
            await gate.reached()
            gate.open()
            for told in await asyncio.gather(*asked):
                assert told >= FIRST_TIME
            counts = [read() for read in client.worker.segmenter.caches().values()]
            assert sum(each.joined + each.hits for each in counts) == 0

    run(scenario())


def test_workers_do_not_tell_one_another_across_owners(start: Start, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with start(**sharing(redis_server)) as client:
            await stages(client, "alice")
        async with start(**sharing(redis_server)) as client:
            assert "image_encoder" in await stages(client, "bob")
            assert "image_encoder" in await stages(client, "")
            assert "image_encoder" not in await stages(client, "alice")
        with redis_server.client() as redis:
            keys = {key.split(b":", 3)[3].partition(b"sha256:")[0] for key in redis.scan_iter()}
            assert keys == {b"alice/", b"bob/", b""}

    run(scenario())


@pytest.mark.parametrize("shared", [True, False])
def test_a_setting_has_all_owners_share(start: Start, redis_server: RedisServer, shared: bool) -> None:
    settings = {**ROOM, "share_cache_between_keys": True}

    async def scenario() -> None:
        async with start(**(sharing(redis_server, **settings) if shared else settings)) as client:
            assert await stages(client, "alice") >= FIRST_TIME
            assert not await stages(client, "bob") & FIRST_TIME
            assert client.engine.calls.count("image_encoder") == 1

    run(scenario())
