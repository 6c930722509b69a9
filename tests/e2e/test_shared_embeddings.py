"""Two workers of the embedded student, in processes of their own, share what one of them encoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from service import processes
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc
from tests.place import DEMO
from tests.redis_server import RedisServer

PICTURE = Path("model_store/samples/pets.jpg")


@contextmanager
def _worker(folder: Path, redis_url: str) -> Iterator[segmentation_pb2_grpc.SegmentationStub]:
    folder.mkdir()
    with (
        processes.worker(DEMO, folder, "--engine", "openvino", redis_url=redis_url) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield segmentation_pb2_grpc.SegmentationStub(channel)


def test_another_process_answers_the_same_to_the_bit(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFICIENTSAM3_SHARED_EMBEDDING_TTL_S", "60")
    request = pb.SegmentRequest(
        image=pb.Image(data=PICTURE.read_bytes()),
        prompts=[pb.Prompt(text="animal"), pb.Prompt(points=[pb.Point(x=260, y=265)])],
        options=pb.SegmentOptions(return_logits=True),
    )
    answers = []
    for name in ("first", "second"):
        with _worker(tmp_path / name, redis_server.url) as stub:
            answers.append(stub.Segment(request, timeout=60))
    first, second = answers
    assert "image_encoder" in first.timings_ms and "image_encoder" not in second.timings_ms
    assert first.results == second.results and all(result.segments for result in first.results)
