"""`efficientsam3 bench`, as a user runs it: a worker and a Redis of its own."""

from pathlib import Path

import pytest

from service.bench_sessions import Measured
from tests.command import run_command
from tests.redis_server import RedisServer


def _cells(output: str, row: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.strip().startswith(row)]
    return line.strip().removeprefix(row).split()


def test_the_stages_of_a_frame_are_told_side_by_side() -> None:
    done = run_command(
        "bench", "sessions", "--frames", "3", "--objects", "1", "--objects", "3", "--threads", "1"
    )
    (one, three) = (float(each) for each in _cells(done.stdout, "kept of the objects, KB"))
    assert three == pytest.approx(3 * one, abs=0.2)
    for stage in ("image_encoder", "memory_attention", "memory_encoder", "prompt_decoder", "store", "total"):
        times = [float(each) for each in _cells(done.stdout, f"{stage}, ms")]
        assert len(times) == 2 and all(time > 0 for time in times)
    assert len(_cells(done.stdout, "store, of the frame")) == 6
    assert "3 objects" in done.stderr


def test_a_redis_that_is_there_is_used_and_left_as_it_was(redis_server: RedisServer) -> None:
    before = redis_server.file().stat().st_size
    run_command("bench", "sessions", "--frames", "2", "--objects", "1", "--redis-url", redis_server.url)
    assert redis_server.file().stat().st_size > before
    with redis_server.client() as client:
        assert [key for key in client.scan_iter() if client.type(key) == b"hash"] == []


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    for arguments, says in (
        (["--video", str(tmp_path / "none.mp4")], "none.mp4"),
        (["es-ev-s-mc-s0", "--store", str(tmp_path)], "no artefact of es-ev-s-mc-s0"),
        (["--redis-url", "http://127.0.0.1"], "redis"),
    ):
        done = run_command("bench", "sessions", *arguments, fails=True)
        assert says in done.stderr and "Traceback" not in done.stderr


def test_what_the_next_encoder_hides_of_a_write_is_no_share_of_the_frame() -> None:
    frames = [
        {"store": 10.0, "image_encoder": 50.0, "total": 100.0},
        {"store": 10.0, "image_encoder": 6.0, "total": 100.0},
        {"store": 10.0, "image_encoder": 20.0, "total": 100.0},
    ]
    measured = Measured(frames, 0)
    assert measured.store_shares == [0.1, 0.1, 0.1]
    # Of the first 4 ms are left, in a frame of 94 ms; the second is written beside an encoder of 20 ms.
    assert measured.bare_shares == [4 / 94, 0.0]
