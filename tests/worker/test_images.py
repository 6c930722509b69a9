"""Images that are sent once and named by their id: what a worker keeps, for whom, and how it is told."""

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import redis

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc
from service.rpc import from_rpc_error
from tests.redis_server import RedisServer
from tests.worker.conftest import Client, Gate, Start, asking, blank, picture, run

PICTURE = picture()
ID = f"sha256:{hashlib.sha256(PICTURE).hexdigest()}"


class Images:
    """Calls one worker on behalf of an owner; failures come as ServiceErrors."""

    def __init__(self, client: Client, owner: str | None = None) -> None:
        self._stub = segmentation_pb2_grpc.SegmentationStub(client.channel)
        self._metadata = () if owner is None else (("x-owner", owner),)

    async def encode(self, data: bytes = PICTURE, **fields: Any) -> pb.EncodeImageResponse:
        request = pb.EncodeImageRequest(**{"image": pb.Image(data=data), **fields})
        return await self._call(self._stub.EncodeImage, request)

    async def delete(self, id: str = ID) -> None:
        await self._call(self._stub.DeleteImage, pb.DeleteImageRequest(id=id))

    async def segment(self, id: str = ID, *prompts: pb.Prompt) -> pb.SegmentResponse:
        request = pb.SegmentRequest(image=pb.Image(id=id), prompts=prompts or [pb.Prompt(text="dog")])
        return await self._call(self._stub.Segment, request)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=30, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


async def refused(call: Any, kind: Kind) -> str:
    """The detail of the refusal, which must be of that kind."""
    with pytest.raises(ServiceError) as failure:
        await call
    assert failure.value.kind is kind, failure.value.detail
    return failure.value.detail


def test_an_image_sent_once_answers_as_one_sent_with_its_prompts(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            images = Images(client)
            before = datetime.now(UTC).replace(microsecond=0)
            kept = await images.encode(variant="tiny")
            assert kept.variant == "tiny"
            assert kept.image == pb.ImageInfo(id=ID, width=80, height=40)
            until = datetime.fromisoformat(kept.kept_until)
            assert kept.kept_until.endswith("Z")
            assert before <= until and 0 <= (until - before).total_seconds() - 600 < 60
            assert kept.timings_ms.keys() == {"queue", "decode", "image_encoder", "total"}
            assert client.engine.calls == ["image_encoder"]
            by_id, by_bytes = await images.segment(), await client.segment(asking())
            assert by_id.image.id == ID
            assert by_id.results == by_bytes.results and by_id.results[0].segments

    run(scenario())


def test_an_image_is_its_owners_alone(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            mine, theirs, nobodys = Images(client, "mine"), Images(client, "theirs"), Images(client)
            await mine.encode()
            for other in (theirs, nobodys):
                await refused(other.segment(), Kind.IMAGE_NOT_FOUND)
                await refused(other.delete(), Kind.IMAGE_NOT_FOUND)
            assert (await mine.segment()).results
            await theirs.encode()
            await mine.delete()
            await refused(mine.segment(), Kind.IMAGE_NOT_FOUND)
            assert (await theirs.segment()).results

    run(scenario())


def test_a_deleted_image_is_not_found(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            images = Images(client)
            await images.encode()
            await images.delete()
            detail = await refused(images.segment(), Kind.IMAGE_NOT_FOUND)
            assert f"image.id {ID}" in detail and "send the image again" in detail
            assert ID in await refused(images.delete(), Kind.IMAGE_NOT_FOUND)

    run(scenario())


def test_a_miss_is_told_without_waiting(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            client.engine.before = gate = Gate("image_encoder")
            running = asyncio.create_task(client.segment(asking()))
            await gate.reached()
            await refused(Images(client).segment(), Kind.IMAGE_NOT_FOUND)
            gate.open()
            await running

    run(scenario())


def test_kept_images_are_bounded_and_one_over_the_bound_is_refused(start: Start) -> None:
    second = PICTURE + b"\0"

    async def scenario() -> None:
        async with start(max_kept_image_bytes=len(second)) as client:
            images = Images(client)
            await images.encode()
            other = (await images.encode(second)).image.id
            assert (await images.segment(other)).results
            await refused(images.segment(ID), Kind.IMAGE_NOT_FOUND)
            detail = await refused(images.encode(second + b"\0"), Kind.PAYLOAD_TOO_LARGE)
            assert f"{len(second) + 1:,} bytes" in detail
            assert (await images.segment(other)).results

    run(scenario())


DEFECTS: dict[str, tuple[dict[str, Any], Kind, str]] = {
    "no image": ({"image": pb.Image()}, Kind.INVALID_ARGUMENT, "image is missing"),
    "an id": ({"image": pb.Image(id=ID)}, Kind.INVALID_ARGUMENT, "image.id names an image that was sent"),
    "an address": ({"image": pb.Image(url="http://a/b")}, Kind.INVALID_ARGUMENT, "image.url is not taken"),
    "another variant": ({"variant": "es-xl"}, Kind.VARIANT_NOT_FOUND, "'es-xl'"),
    "no picture": ({"image": pb.Image(data=b"no image")}, Kind.UNSUPPORTED_IMAGE, "JPEG"),
    "many pixels": ({"image": pb.Image(data=blank(12_000, 12_000))}, Kind.PAYLOAD_TOO_LARGE, "12,000"),
    "many bytes": ({"image": pb.Image(data=bytes(1_100_000))}, Kind.PAYLOAD_TOO_LARGE, "1,000,000 bytes"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_what_cannot_be_encoded_is_refused_and_not_kept(start: Start, defect: str) -> None:
    fields, kind, words = DEFECTS[defect]

    async def scenario() -> None:
        async with start(max_body_bytes=1_000_000) as client:
            images = Images(client)
            assert words in await refused(images.encode(**fields), kind)
            assert client.engine.calls == []
            data = fields.get("image", pb.Image()).data
            id = f"sha256:{hashlib.sha256(data).hexdigest()}"
            await refused(images.segment(id), Kind.IMAGE_NOT_FOUND)

    run(scenario())


def test_what_is_no_id_is_refused(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            images = Images(client)
            for id in ("", "sha256:00", ID.upper()):
                assert "id" in await refused(images.delete(id), Kind.INVALID_ARGUMENT)
            assert "image.id" in await refused(images.segment("sha256:00"), Kind.INVALID_ARGUMENT)

    run(scenario())


def test_with_redis_an_image_outlives_the_worker_it_was_sent_to(
    start: Start, redis_server: RedisServer
) -> None:
    settings = {"redis_url": redis_server.url, "image_ttl_s": 1000}

    async def scenario() -> None:
        async with start(**settings) as client:
            await Images(client, "mine").encode()
        async with start(**settings) as client:
            assert (await Images(client, "mine").segment()).results
            await refused(Images(client, "theirs").segment(), Kind.IMAGE_NOT_FOUND)
            with redis.Redis.from_url(redis_server.url) as store:
                (key,) = store.keys()
                assert 0 < store.ttl(key) <= 1000
            await Images(client, "mine").delete()
            await refused(Images(client, "mine").segment(), Kind.IMAGE_NOT_FOUND)

    run(scenario())


def test_without_its_redis_a_worker_says_so_and_answers_what_brings_its_image(
    start: Start, redis_server: RedisServer
) -> None:
    async def scenario() -> None:
        async with start(redis_url=redis_server.url) as client:
            images = Images(client)
            redis_server.kill()
            for call in (images.encode(), images.segment(), images.delete()):
                await refused(call, Kind.STORE_UNAVAILABLE)
            assert (await client.segment(asking())).results

    run(scenario())


@pytest.mark.parametrize("index", [0, len(PICTURE) // 2, len(PICTURE) - 1])
def test_a_kept_image_with_a_damaged_byte_is_not_kept(
    start: Start, redis_server: RedisServer, index: int
) -> None:
    async def scenario() -> None:
        async with start(redis_url=redis_server.url) as client:
            images = Images(client)
            await images.encode()
            found = (await images.segment()).results
            with redis_server.client() as store:
                (key,) = store.keys("efficientsam3:image:*")
                whole = store.get(key)
                assert whole == PICTURE
                store.set(key, whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
                assert "send the image again" in await refused(images.segment(), Kind.IMAGE_NOT_FOUND)
                assert not store.exists(key)
            await images.encode()
            assert (await images.segment()).results == found

    run(scenario())
