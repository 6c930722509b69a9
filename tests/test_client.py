"""The Python client against a real gateway, over HTTP and gRPC, with an event loop and without."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from service.client import AsyncClient, Client, Segment
from service.client.sessions import AsyncSession
from service.client.videos import begun
from service.errors import Kind, ServiceError
from service.gateway.translate import mask_out
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import image_id
from service.worker import masks
from tests.gateway.serve_fakes import Served
from tests.pictures import encoded

PICTURE = encoded(Image.new("RGB", (6, 4), "grey"), "PNG")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A fake variant "demo"."""
    with Served(tmp_path_factory.mktemp("served") / "log", "1", "demo") as served:
        served.wait_for("demo is ready")
        yield served


@pytest.fixture(params=["http", "grpc"])
def address(request: pytest.FixtureRequest, served: Served) -> str:
    """Where it is served."""
    return served.url if request.param == "http" else served.grpc_url


def test_it_answers_in_types(address: str) -> None:
    with Client(address) as client:
        answer = client.segment(PICTURE, [{"text": "truck"}, {"text": "wheel"}], variant="demo")
        (variant,) = client.variants()
    assert (variant["name"], variant["parameters"], variant["default"]) == ("demo", 0, True)
    assert (answer.variant, answer.width_px, answer.height_px) == ("demo", 6, 4)
    assert answer.image_id == f"sha256:{len(PICTURE)}"
    assert answer.timings_ms["image_encoder"] == 80
    mask = {"format": "rle", "size": [4, 6], "counts": "05l1"}
    assert answer.results == (
        (Segment(0.93, (1.5, 2, 3.25, 4), 7, "truck", mask),),
        (Segment(0.93, (1.5, 2, 3.25, 4), 7, "wheel", mask),),
    )


def test_both_ways_give_the_same_json(served: Served) -> None:
    prompts = [
        {"text": "a", "exemplars": [{"box": [0, 0, 2, 2], "positive": False}, {"point": {"x": 1, "y": 1}}]},
        {"points": [{"x": 1, "y": 2, "positive": False}], "box": (0, 1, 3, 4), "score_threshold": 0.5},
        *(
            {"mask": {"size": [2, 2], **mask}}
            for mask in (
                {"format": "rle", "counts": "04"},
                {"format": "png", "png": "iVBORw0KGgo="},
                {"format": "polygon", "rings": [{"xy": [0, 0, 2, 0, 2, 2]}]},
                {"format": "logits", "logits": "AAAAAAAAAAA="},
            )
        ),
    ]
    with Client(served.url) as one, Client(served.grpc_url) as other:
        for mask_format in ("rle", "png", "polygon", "none"):
            told = [
                client.segment(
                    PICTURE, prompts, mask_format=mask_format, score_threshold=0.25, return_logits=True
                ).raw
                for client in (one, other)
            ]
            assert told[0] == told[1], mask_format
        assert one.variants() == other.variants()


@given(mask=arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=24)))
@example(mask=np.indices((9, 14)).sum(axis=0) % 2 == 0)
@example(mask=np.pad(np.zeros((3, 3), bool), 2, constant_values=True))
def test_a_mask_is_an_array_whatever_its_format(mask: NDArray[np.bool_]) -> None:
    for mask_format in (pb.MASK_FORMAT_RLE, pb.MASK_FORMAT_PNG, pb.MASK_FORMAT_POLYGON):
        told = mask_out(masks.encode(mask.view(np.uint8), mask_format)).model_dump()
        found = Segment(0.9, (0, 0, 1, 1), 0, "", told).mask_array()
        assert found.dtype == bool and found.shape == mask.shape and (found == mask).all()


def test_without_a_mask_there_is_no_array(address: str) -> None:
    with Client(address) as client:
        ((segment,),) = client.segment(PICTURE, [{"text": "a"}], mask_format="none").results
    with pytest.raises(ValueError, match="there is no mask"):
        segment.mask_array()
    logits = {"format": "logits", "size": [1, 1], "logits": "ADw="}
    with pytest.raises(ValueError, match="'logits'"):
        Segment(0.9, (0, 0, 1, 1), 0, "", logits).mask_array()


def test_an_image_is_sent_once_and_named_by_its_id(address: str) -> None:
    with Client(address) as client:
        kept = client.encode_image(PICTURE, variant="demo")
        assert (kept.id, kept.width_px, kept.height_px, kept.variant) == (image_id(PICTURE), 6, 4, "demo")
        assert kept.kept_until == datetime(2026, 11, 24, 10, 20, 30, tzinfo=UTC)
        answer = client.segment(kept.id, [{"text": "truck"}], mask_format="none")
        assert (answer.image_id, len(answer.results[0])) == (kept.id, 1)
        client.delete_image(kept.id)
        for call in (
            lambda: client.delete_image(kept.id),
            lambda: client.segment(kept.id, [{"text": "truck"}]),
        ):
            with pytest.raises(ServiceError) as gone:
                call()
            assert gone.value.kind is Kind.IMAGE_NOT_FOUND
        with pytest.raises(ServiceError, match="id is no image's id"):
            client.delete_image("a")


def test_it_raises_the_servers_errors(address: str) -> None:
    with Client(address) as client:
        with pytest.raises(ServiceError, match="demo") as unknown:
            client.segment(PICTURE, [{"text": "a"}], variant="nope")
        for prompt, says in (
            ({"txt": "a"}, r"prompts\[0\].*"),
            ({"box": [1, 2, 3]}, "box"),
            ({"mask": {"format": "rle", "size": [2, 2], "count": "04"}}, "count"),
            ({"mask": {"format": "tiff", "size": [2, 2]}}, "mask"),
        ):
            with pytest.raises(ServiceError, match=says) as misspelt:
                client.segment(PICTURE, [prompt])
            assert misspelt.value.kind is Kind.INVALID_ARGUMENT
        with pytest.raises(ServiceError) as format:
            client.segment(PICTURE, [{"text": "a"}], mask_format="tiff")
    assert unknown.value.kind is Kind.VARIANT_NOT_FOUND
    assert format.value.kind is Kind.INVALID_ARGUMENT


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs"])
def test_where_nothing_answers_it_is_unavailable(scheme: str) -> None:
    address = f"{scheme}://127.0.0.1:1"
    with Client(address, patience_s=0) as client:
        for call in (client.variants, client.open_session, lambda: client.track_video(b"video")):
            with pytest.raises(ServiceError) as error:
                call()
            assert error.value.kind is Kind.UNAVAILABLE
            assert address in error.value.detail


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_what_may_have_been_made_is_not_made_again(scheme: str) -> None:
    """Where no answer came. With patience for anything else this test would not end in its time."""
    with Client(f"{scheme}://127.0.0.1:1", patience_s=10_000) as client:
        for call in (client.open_session, lambda: client.track_video(b"video")):
            with pytest.raises(ServiceError, match="No server answers"):
                call()


def test_an_address_says_how_it_is_spoken_to() -> None:
    with pytest.raises(ServiceError, match="begins with http://") as error:
        Client("127.0.0.1:8080")
    assert error.value.kind is Kind.INVALID_ARGUMENT


def test_what_is_no_server_of_ours_is_named(served: Served) -> None:
    for address in (f"{served.url}/elsewhere", served.url.replace("http", "grpc")):
        with Client(address, patience_s=0) as client, pytest.raises(ServiceError) as error:
            client.variants()
        assert error.value.kind in (Kind.NOT_FOUND, Kind.INTERNAL, Kind.UNAVAILABLE)


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_its_timeout_is_the_servers_deadline(tmp_path: Path, way: str) -> None:
    with Served(tmp_path / "log", "1", "broken") as served:
        address = served.url if way == "http" else served.grpc_url
        with Client(address, timeout_s=0.3) as client, pytest.raises(ServiceError) as error:
            client.segment(PICTURE, [{"text": "a"}])
        assert "broken has no ready worker" in error.value.detail
        assert error.value.kind is Kind.UNAVAILABLE
        assert error.value.retry_after_s is not None


def test_many_wait_in_one_event_loop(address: str) -> None:
    async def ask() -> None:
        async with AsyncClient(address) as client:
            texts = [f"thing {index}" for index in range(8)]
            answers = await asyncio.gather(
                *(client.segment(PICTURE, [{"text": text}], mask_format="none") for text in texts)
            )
            assert [answer.results[0][0].label for answer in answers] == texts
            # A client of the other kind works beside it, and holds it up as any call would.
            with Client(address) as other:
                assert other.variants() == await client.variants()

    asyncio.run(ask())


def test_threads_share_a_client(address: str) -> None:
    found = dict[int, str]()

    def ask(index: int) -> None:
        found[index] = client.segment(PICTURE, [{"text": f"thing {index}"}]).results[0][0].label

    with Client(address) as client:
        threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {index: f"thing {index}" for index in range(8)}


def test_after_it_was_closed_it_says_so(address: str) -> None:
    client = Client(address)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.variants()


def test_its_methods_are_documented() -> None:
    for name in ("segment", "open_session", "track_video"):
        method, other = getattr(Client, name), getattr(AsyncClient, name)
        assert method.__doc__ == other.__doc__ and not inspect.iscoroutinefunction(method)
        assert inspect.signature(method).parameters.keys() == inspect.signature(other).parameters.keys()


def test_a_videos_answers_are_read_while_nobody_asks_for_them() -> None:
    """What has arrived is given out, and then what the connection ended with."""

    image = {"id": "sha256:0", "width": 6, "height": 4}
    answer = {"revision": 0, "image": image, "objects": [], "memory_bytes": 0, "timings_ms": {}}

    class Sends:
        """A transport, as far as a video asks for one."""

        def __init__(self) -> None:
            self.asked: list[Any] = []
            self.sent, self.closed = asyncio.Event(), 0

        async def track_video(self, video: bytes, request: Any) -> AsyncGenerator[Any, None]:
            self.asked.append(request)
            try:
                yield {"session": "demo.0"}
                for frame in range(request["first"], 5):
                    yield {**answer, "frame": frame}
                self.sent.set()
                if len(self.asked) == 1:
                    raise ServiceError(Kind.UNAVAILABLE, "It broke.")
            finally:
                self.closed += 1

    async def scenario() -> None:
        transport, state = Sends(), {"session": "demo.0", "variant": "demo", "next_frame": 0, "revision": 0}
        session = AsyncSession(transport, state, 30)
        video = await begun(transport, b"", [], {}, session, 30)
        answers = aiter(video)
        first = await anext(answers)
        await asyncio.wait_for(transport.sent.wait(), 30)
        assert (first.index, session.next_frame) == (0, 1)
        assert [frame.index async for frame in answers] == [1, 2, 3, 4]
        assert [each["first"] for each in transport.asked] == [0, 5]
        assert transport.closed == 2

    asyncio.run(scenario())
