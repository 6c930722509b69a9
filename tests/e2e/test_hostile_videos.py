"""Videos that are made to crash, to block or to deceive the worker that tracks them."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import hostile_videos as videos
from tests.place import DEMO
from tests.serving import Serving, free_ports

MIB = 2**20
CLICK = {"points": [{"x": 160, "y": 100}]}
# Below the worker's working directory, which is that of the tests.
SAMPLE = "model_store/samples/traffic-lights.mp4"
# One sentence or two about the file, without a path, an address, or the name of a class or of an error.
PLAIN = re.compile(r"video [A-Za-z0-9 ,.:()-]*\.")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student; its decoders may use little, and its frames are 4K at most."""
    limits = {"max_image_pixels": 9_000_000, "video_decoder_memory_bytes": 128 * MIB}
    with Serving(DEMO, tmp_path_factory.mktemp("guarded") / "log", precision="f32", **limits) as serving:
        yield serving


@pytest.fixture(autouse=True)
def one_worker(guarded: Serving) -> Iterator[None]:
    """After each test the same worker runs, and no decoder."""
    before = guarded.workers()
    yield
    assert len(before) == 1 and guarded.workers() == before, guarded.log.read_text()[-4000:]
    for _ in range(300):
        if not decoders(guarded):
            return
        time.sleep(0.1)
    raise AssertionError("decoders are left")


@pytest.fixture(scope="module")
def small() -> bytes:
    return videos.written(320, 240, 5)


@pytest.fixture(scope="module")
def large() -> bytes:
    return videos.written(1280, 720, 40)


def decoders(serving: Serving) -> list[psutil.Process]:
    """The decoder processes of the worker."""
    found = []
    for worker in serving.workers():
        for child in worker.children():
            with suppress(psutil.NoSuchProcess):
                if "decoder_child" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def stream(serving: Serving, video: bytes, deadline_ms: int = 60_000, **request: Any) -> Any:
    return serving.client.stream(
        "POST",
        "/v1/videos/track",
        files={"video": ("clip.mp4", video, "video/mp4")},
        data={"request": json.dumps(request)},
        headers={"X-Deadline-Ms": str(deadline_ms)},
    )


def tracked(
    serving: Serving, video: bytes, deadline_ms: int = 60_000, **request: Any
) -> tuple[int, list[Any]]:
    """The status, and every line of the answer."""
    with stream(serving, video, deadline_ms, **request) as answer:
        return answer.status_code, [json.loads(line) for line in answer.iter_lines()]


def refused(serving: Serving, video: bytes) -> str:
    """The detail of `unsupported_video`."""
    status, (problem,) = tracked(serving, video)
    assert (status, problem["type"]) == (415, "/problems/unsupported_video"), problem
    assert PLAIN.fullmatch(problem["detail"]), problem["detail"]
    return str(problem["detail"])


def test_a_text_that_names_other_files_is_no_video(guarded: Serving) -> None:
    assert Path(SAMPLE).is_file()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1.0)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name, text in videos.playlists(address, SAMPLE):
            assert "cannot be read as a video" in refused(guarded, text), name
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_session_description_binds_no_port(guarded: Serving) -> None:
    (port,) = free_ports(1)
    for _ in range(12):
        assert "cannot be read as a video" in refused(guarded, videos.sdp(port & ~1))
    for process in (*guarded.workers(), *decoders(guarded)):
        assert not process.net_connections(kind="udp")


def test_pixels_in_another_file_are_not_read(guarded: Serving, small: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(small)
    assert "video has no frame" in refused(guarded, videos.referring(small, other))


def test_tags_in_any_encoding_do_no_harm(guarded: Serving, small: bytes) -> None:
    status, lines = tracked(guarded, videos.tagged(small), prompts=[CLICK])
    assert status == 200 and [line["frame"] for line in lines] == list(range(5))
    assert [line["objects"] for line in lines] == [
        line["objects"] for line in tracked(guarded, small, prompts=[CLICK])[1]
    ]


def test_files_that_cannot_be_decoded_are_refused_with_a_sentence(guarded: Serving, small: bytes) -> None:
    noise = bytes(range(256)) * 64
    matroska = videos.written(320, 240, 5, "matroska")
    for video, says in (
        (videos.unknown_codec(small), "codec that is not supported (unknown)"),
        (videos.encrypted(), "is encrypted"),
        (videos.written(64, 64, 2, "avi", "asv1"), "codec that is not supported (asv1)"),
        (videos.written(64, 64, 2, "flv", "flv"), "cannot be read as a video"),
        (small[:200], "container is damaged"),
        (matroska[: matroska.index(b"\x1f\x43\xb6\x75")], "container is damaged"),
        (b"\0\0\0\x20ftypisom" + noise, "video"),
        (b"\x1aE\xdf\xa3" + noise, "video"),
        (b"RIFF\0\0\0\0AVI LIST" + noise, "video"),
        (b"\x47" + bytes(187) + b"\x47" + bytes(187) + b"\x47" + noise, "video"),
    ):
        assert says in refused(guarded, video), says


def test_a_header_may_state_any_number_of_frames(guarded: Serving, small: bytes) -> None:
    status, lines = tracked(guarded, videos.many_frames(small), prompts=[CLICK])
    assert status == 200 and [line["frame"] for line in lines] == list(range(5)), lines


@pytest.mark.parametrize("format", ["mp4", "mov", "matroska", "avi", "mpegts"])
def test_every_format_that_is_allowed_is_tracked(guarded: Serving, format: str) -> None:
    status, lines = tracked(guarded, videos.written(320, 240, 3, format), prompts=[CLICK])
    assert status == 200 and [line.get("frame") for line in lines] == [0, 1, 2], lines
    assert all(line["objects"] for line in lines)


def test_a_frame_that_grows_past_the_limits_ends_the_video(guarded: Serving) -> None:
    grown = videos.written(320, 240, 10, "mpegts") + videos.written(4096, 2304, 2, "mpegts")
    status, lines = tracked(guarded, grown, prompts=[CLICK])
    assert status == 200 and [line["frame"] for line in lines] == list(range(11))
    assert lines[-1]["type"] == "/problems/payload_too_large"
    assert "4,096 x 2,304 pixels; the limits are 9,000,000" in lines[-1]["detail"]
    status, (problem,) = tracked(guarded, videos.written(4096, 2304, 2))
    assert (status, problem["type"]) == (413, "/problems/payload_too_large")


def test_a_video_that_takes_too_much_memory_is_refused(guarded: Serving) -> None:
    assert "the limit of 134,217,728 bytes of memory" in refused(guarded, videos.written(3840, 2160, 2))


def test_a_decoder_that_is_killed_ends_its_video_only(guarded: Serving, large: bytes) -> None:
    with stream(guarded, large, prompts=[CLICK]) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines))["frame"] == 0
        for decoder in decoders(guarded):
            decoder.send_signal(signal.SIGKILL)
        *_, last = map(json.loads, lines)
    assert last["type"] == "/problems/unsupported_video", last
    assert last["detail"] == "video made its decoder fail: it may be damaged."


@pytest.mark.parametrize("way", ["leaves", "deadline", "refused"])
def test_a_video_that_ends_while_it_is_decoded_harms_nobody(
    guarded: Serving, small: bytes, large: bytes, way: str
) -> None:
    outside = {"frame": 1, "points": [{"x": 5000, "y": 1}]}
    prompts, deadline_ms = ([CLICK, outside], 60_000) if way == "refused" else ([CLICK], 60_000)
    for attempt in range(20):
        if way == "deadline":
            deadline_ms = 200 + 50 * attempt
        with suppress(httpx.TransportError), stream(guarded, large, deadline_ms, prompts=prompts) as answer:
            lines = answer.iter_lines()
            first = json.loads(next(lines))
            if way == "leaves":
                assert first["frame"] == 0
                continue
            *_, last = first, *map(json.loads, lines)
            kinds = {"deadline": ("deadline_exceeded", "overloaded"), "refused": ("invalid_argument",)}
            assert last["type"].removeprefix("/problems/") in kinds[way], last
    status, lines = tracked(guarded, small, prompts=[CLICK])
    assert status == 200 and [line["frame"] for line in lines] == list(range(5))
