"""The client against a student that is served: streams, whole videos, drawings, TLS and keys."""

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image, ImageChops
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from service.client import AsyncClient, Client, Frame
from service.client.sessions import Sent
from service.errors import Kind, ServiceError
from service.overlay import draw
from tests.certificates import Authority
from tests.pictures import encoded, moving_clip, moving_square
from tests.place import Place
from tests.relay import Relay
from tests.serving import Serving, free_ports
from tests.tls_relay import TlsRelay

REPOSITORY = Path(__file__).parents[2]
FRAMES = 12
CLICK = {"points": [{"x": 30, "y": 30}]}
BOX = {"frame": 4, "box": [20, 10, 60, 40]}
SENT: list[Sent] = [
    (encoded(moving_square(index), "PNG"), [] if index else [CLICK]) for index in range(FRAMES)
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return moving_clip(tmp_path_factory.mktemp("clip"), FRAMES).read_bytes()


def found(frames: list[Frame]) -> list[Any]:
    """What was answered, but for how long it took."""
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [{**frame.raw, "timings_ms": None} for frame in frames]


def test_frames_may_come_as_they_are_made(lasting: Serving, way: str) -> None:
    with Client(lasting.url) as client:
        expected = found(list(client.open_session().stream(SENT)))

    async def camera() -> AsyncIterator[Sent]:
        for each in SENT:
            await asyncio.sleep(0)
            yield each

    async def follow() -> list[Frame]:
        async with AsyncClient(lasting.address(way)) as client:
            session, frames = await client.open_session(), list[Frame]()
            async for frame in session.stream(camera()):
                frames.append(frame)
                if frame.index == 3:
                    lasting.workers()[0].kill()
            fork = await session.fork()
            assert (await session.correct([{"remove": {"object": 1}}])).objects == ()
            assert [each.id for each in (await fork.add(*SENT[-1])).objects] == [1]
            await session.delete()
            with pytest.raises(ServiceError, match="no session"):
                await session.state()
            return frames

    assert found(asyncio.run(follow())) == expected


def test_a_stream_that_is_left_goes_on_later(small: Serving, way: str) -> None:
    with Client(small.address(way)) as client:
        expected = found(list(client.open_session().stream(SENT)))
        session, frames = client.open_session(), list[Frame]()
        for frame in session.stream(SENT):
            frames.append(frame)
            if frame.index == 4:
                break
        assert session.next_frame == 5
        assert found([*frames, *session.stream(SENT[5:])]) == expected


def test_a_video_is_tracked_through_a_killed_worker(lasting: Serving, clip: bytes, way: str) -> None:
    with Client(lasting.url) as client:
        expected = found(list(client.track_video(clip, [CLICK, BOX])))
    with Client(lasting.address(way)) as client:
        frames, video = list[Frame](), client.track_video(clip, [CLICK, BOX], variant=lasting.variant)
        for frame in video:
            frames.append(frame)
            if frame.index in (2, 7):
                # None, where it was so far ahead that the next has not come yet.
                for worker in lasting.workers():
                    worker.kill()
        assert found(frames) == expected
        assert (video.session.variant, video.session.next_frame) == (lasting.variant, FRAMES)
        assert video.session.state()["next_frame"] == FRAMES
        # The session is one like any other.
        assert [each.id for each in video.session.add(*SENT[-1]).objects] == [1, 2]
        video.session.delete()


def test_a_video_whose_answer_is_cut_off_goes_on(lasting: Serving, clip: bytes, way: str) -> None:
    port = lasting.http_port if way == "http" else lasting.grpc_port
    with Client(lasting.url) as client:
        expected = found(list(client.track_video(clip, [CLICK, BOX])))
    with Relay([port], way) as relay, Client(relay.url) as client:
        frames = list[Frame]()
        for frame in client.track_video(clip, [CLICK, BOX]):
            frames.append(frame)
            if frame.index in (1, 4):
                relay.cut(after_bytes=100)
        assert found(frames) == expected and relay.cuts == 2


def test_a_video_that_was_left_is_gone_on_with(lasting: Serving, clip: bytes, way: str) -> None:
    async def follow() -> None:
        async with AsyncClient(lasting.address(way)) as client:
            whole = [frame async for frame in await client.track_video(clip, [CLICK])]
            video, frames = await client.track_video(clip, [CLICK]), list[Frame]()
            async for frame in video:
                frames.append(frame)
                if frame.index == 2:
                    break
            id = video.session.id
        async with AsyncClient(lasting.address(way)) as client:
            # What the server was ahead, up to the end perhaps, it does not answer again unless it is asked.
            again = await client.track_video(clip, [CLICK], session=id)
            rest = [frame async for frame in again]
            assert again.session.id == id and len(rest) <= FRAMES - 3
            assert found([*whole[: FRAMES - len(rest)], *rest]) == found(whole)
            again = await client.track_video(clip, [CLICK], session=id, first=3)
            frames.extend([frame async for frame in again])
            assert again.session.id == id and found(frames) == found(whole)

    asyncio.run(follow())


def test_a_video_says_what_is_wrong(lasting: Serving, clip: bytes, way: str) -> None:
    with Client(lasting.address(way)) as client:
        for video, prompts, says in (
            (b"no video", [CLICK], "cannot be read as a video"),
            (clip, [{"frame": 1, "txt": "a"}], "prompts"),
            (clip, [{"frame": 3}], r"prompts\[0\] is empty"),
        ):
            with pytest.raises(ServiceError, match=says):
                client.track_video(video, prompts)
        outside = {"frame": 2, "points": [{"x": 500, "y": 1}]}
        frames, tracked = list[Frame](), client.track_video(clip, [CLICK, outside])
        with pytest.raises(ServiceError) as refused:
            frames.extend(tracked)
        assert refused.value.kind is Kind.INVALID_ARGUMENT
        assert len(frames) == tracked.session.next_frame == 2


def test_a_lost_answer_leaves_nothing_behind(lasting: Serving, way: str) -> None:
    """What is deleted is gone, though the answer was lost; what may have been opened is not opened again."""
    port = lasting.http_port if way == "http" else lasting.grpc_port
    with Relay([port], way) as relay, Client(relay.url) as client:
        session = client.open_session()
        relay.cut(after_bytes=1)
        session.delete()
        with pytest.raises(ServiceError, match="no session"):
            session.state()
        relay.cut(after_bytes=1)
        with pytest.raises(ServiceError) as lost:
            client.open_session()
        assert lost.value.kind is Kind.UNAVAILABLE
        assert client.variants()


def test_both_ways_draw_the_same(place: Place) -> None:
    place.deployment.complete()
    image, prompts = place.frames[0]
    drawn = []
    for way in ("http", "grpc"):
        for mask_format in ("png", "rle", "polygon"):
            with Client(place.deployment.addresses_over(way)[0]) as client:
                frame = client.open_session(mask_format=mask_format).add(image, prompts)
            assert all(each.mask_array().sum() == each.area_px > 0 for each in frame.objects if each.visible)
            drawn.append(draw(image, frame, prompts))
    assert drawn[0].size == (frame.width_px, frame.height_px)
    assert ImageChops.difference(drawn[0], Image.open(io.BytesIO(image)).convert("RGB")).getbbox()
    assert not any(ImageChops.difference(drawn[0], other).getbbox() for other in drawn[1:])


def test_it_speaks_tls(place: Place, way: str, tmp_path: Path) -> None:
    place.deployment.complete()
    authority = Authority(tmp_path / "authority")
    shown = authority.issue("localhost", "IP:127.0.0.1")

    async def ask() -> None:
        async with TlsRelay(place.deployment.ports[way][0], shown) as relay:
            address = f"{way}s://127.0.0.1:{relay.port}"
            async with AsyncClient(address, ca=authority.ca) as client:
                session = await client.open_session()
                assert [frame.index async for frame in session.stream(place.frames[:5])] == list(range(5))
            async with AsyncClient(address, patience_s=0) as client:
                with pytest.raises(ServiceError) as unknown:
                    await client.variants()
                assert unknown.value.kind is Kind.UNAVAILABLE

    asyncio.run(ask())


def test_the_readmes_examples_run(place: Place, tmp_path: Path) -> None:
    place.deployment.complete()
    (tmp_path / "model_store").symlink_to(REPOSITORY / "model_store")
    examples = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(examples) == 2
    for code in examples:
        for way, documented in (("http", "http://localhost:8080"), ("grpc", "grpc://localhost:8081")):
            code = code.replace(documented, place.deployment.addresses_over(way)[0])
        assert "localhost" not in code
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            check=True,
        )
    assert (tmp_path / "overlay.png").stat().st_size


# What a session's state is, where only the key is looked at.
STATE = {"session": f"demo.{32 * '0'}", "variant": "demo", "next_frame": 0, "revision": 0}
SEEN = "Bearer secret-key"


@contextmanager
def http_listener(seen: list[tuple[str, str]]) -> Iterator[str]:
    """Gives a session's state, and refuses streams. Notes paths and what they are authorized by."""

    def note(connection: ServerConnection, request: Request) -> Response:
        seen.append((request.path, request.headers.get("Authorization", "")))
        if not request.path.endswith("/stream"):
            return Response(200, "OK", Headers({"Content-Length": str(len(state))}), state)
        return Response(401, "No", Headers({"Content-Length": str(len(refusal))}), refusal)

    state = json.dumps(STATE).encode()
    refusal = json.dumps({"type": "/problems/unauthenticated", "detail": "Who are you?"}).encode()
    with serve(lambda _: None, "127.0.0.1", 0, process_request=note) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def grpc_listener(seen: list[tuple[str, str]]) -> Iterator[str]:
    """Has no method. Notes which were asked for, and what they are authorized by."""

    class Note(grpc.GenericRpcHandler):
        def service(self, details: Any) -> None:
            authorized = dict(details.invocation_metadata).get("authorization", "")
            seen.append((details.method, authorized))

    (port,) = free_ports(1)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Note()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def test_its_key_goes_to_the_server_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = list[tuple[str, str]]()
    with http_listener(seen) as address, Client(address, key="secret-key") as client:
        session = client.session(STATE["session"])
        with pytest.raises(ServiceError, match="Who are you") as refused:
            next(session.stream(SENT))
        assert refused.value.kind is Kind.UNAUTHENTICATED
        assert "secret-key" not in repr(client) + repr(session)
    path = f"/v1/sessions/{STATE['session']}"
    assert seen == [(path, SEEN), (f"{path}/stream", SEEN)]
    seen.clear()
    with grpc_listener(seen) as address, Client(address, key="secret-key") as client:
        for call in (client.variants, lambda: client.track_video(b"video")):
            with pytest.raises(ServiceError) as unknown:
                call()
            assert unknown.value.kind is Kind.INTERNAL
    assert [(name.rpartition("/")[2], key) for name, key in seen] == [
        ("ListVariants", SEEN),
        ("TrackVideo", SEEN),
    ]
    # The listener's own log is not the client's.
    logged = [each.getMessage() for each in caplog.records if not each.name.startswith("websockets.server")]
    assert logged and "secret-key" not in " ".join(logged)
