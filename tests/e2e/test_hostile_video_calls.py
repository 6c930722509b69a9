"""Files that are no videos, or bad ones: refused alike over HTTP and over gRPC, with a plain sentence."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import hostile_videos as videos
from tests.e2e.entry_points import VIDEOS, Send, is_plain
from tests.place import DEMO
from tests.serving import Serving, free_ports

CLICK = {"points": [{"x": 20, "y": 20}]}
SAMPLE = "model_store/samples/traffic-lights.mp4"
NOISE = bytes(range(256)) * 64


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student behind a gateway, with one worker that must live to the end."""
    with Serving(DEMO, tmp_path_factory.mktemp("calls") / "log", precision="f32") as serving:
        before = serving.workers()
        yield serving
        assert serving.workers() == before
        assert "Traceback" not in serving.log.read_text()


@pytest.fixture(scope="module")
def small() -> bytes:
    return videos.written(160, 120, 2)


@pytest.fixture(scope="module")
def files(small: bytes) -> dict[str, bytes]:
    """Files that are not supported, by name."""
    (port,) = free_ports(1)
    return {
        "an unknown codec": videos.unknown_codec(small),
        "encrypted samples": videos.encrypted(),
        "a codec that is not allowed": videos.written(64, 64, 2, "avi", "asv1"),
        "a container that is not allowed": videos.written(64, 64, 2, "flv", "flv"),
        "a container cut short": small[:200],
        "noise": NOISE,
        "noise in an MP4": b"\0\0\0\x20ftypisom" + NOISE,
        "noise in a Matroska file": b"\x1aE\xdf\xa3" + NOISE,
        "an address and a class": b"<object at 0x7f00deadbeef> /usr/lib/x.py OSError",
        "a session description": videos.sdp(port & ~1),
        **dict(videos.playlists("http://127.0.0.1:9", SAMPLE)),
    }


@pytest.mark.parametrize("send", VIDEOS)
def test_what_cannot_be_decoded_is_unsupported(serving: Serving, files: dict[str, bytes], send: Send) -> None:
    assert Path(SAMPLE).is_file()
    for name, video in files.items():
        outcome = send(serving, video, CLICK)
        assert outcome[0] == "unsupported_video" and is_plain(outcome), (name, outcome)
    for process in psutil.Process(serving.process.pid).children(recursive=True):
        assert not process.net_connections(kind="udp")


@pytest.mark.parametrize("send", VIDEOS)
def test_tags_in_any_encoding_are_ignored(serving: Serving, small: bytes, send: Send) -> None:
    assert send(serving, videos.tagged(small), CLICK) == ("ok", "")
    assert send(serving, videos.many_frames(small), CLICK) == ("ok", "")


@pytest.mark.parametrize("send", VIDEOS)
def test_an_empty_video_is_refused(serving: Serving, send: Send) -> None:
    outcome = send(serving, b"", CLICK)
    assert outcome[0] == "invalid_argument" and is_plain(outcome), outcome
