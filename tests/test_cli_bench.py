"""`efficientsam3 bench`, as a user runs it: a worker and a Redis of its own."""

import ast
import re
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


def _found(output: str, *parts: str) -> list[str]:
    """What stands in the places of the one line that is so: `#` for a number, `*` for whatever."""
    pattern = re.escape("".join(parts)).replace(r"\#", r"(-?\d+(?:\.\d+)?)").replace(r"\*", "(.+)")
    found = [line for each in output.splitlines() if (line := re.fullmatch(pattern, each))]
    assert len(found) == 1, output
    return list(found[0].groups())


def _numbers(output: str, *parts: str) -> list[float]:
    return [float(each) for each in _found(output, *parts)]


def _bare(output: str) -> float:
    """Its requests per second at the best size of batches."""
    best, batch, *listed = _numbers(
        output, "bare engine: # requests/s in batches of # (1: #, 2: #, 4: #, 8: #)"
    )
    assert best == max(listed) and batch == 2 ** listed.index(best)
    return best


def _answered(output: str, clients: int) -> float:
    """Requests per second of so many clients."""
    per_s, share, bare, p50, p99 = _numbers(
        output,
        f"{clients} clients: # requests/s (# of the bare engine, # in turn with them), p50 # ms, p99 # ms",
    )
    # Both are rounded.
    assert share == pytest.approx(per_s / bare, rel=0.02, abs=0.01) and 0 < p50 <= p99
    assert _bare(output) > 0
    return per_s


def _stages(output: str) -> dict[str, float]:
    """Milliseconds of one request's."""
    (listed,) = _found(output, "  of one request, ms: *")
    return {name: float(ms) for name, _, ms in (each.rpartition(" ") for each in listed.split(", "))}


def test_load_beside_the_bare_engine_and_more_than_can_be_answered() -> None:
    output = run_command(
        *("bench", "load", "--clients", "1", "--clients", "2", "--runs", "1", "--seconds", "0.1"),
        *("--overload", "50", "--overload-seconds", "1"),
    ).stdout
    assert output.startswith("OpenVINO ")
    assert all(_answered(output, clients) > 0 for clients in (1, 2))
    stages = _stages(output)
    assert {"queue", "rest of the worker", "gateway and transport"} < stages.keys()
    for stage in ("decode", "image_encoder", "concept_features", "concept_decoder", "concept_masks", "masks"):
        assert stages[stage] > 0, stage
    *times, ended = _found(
        output,
        "50 times as many as #/s for 1 s: # answered/s (#), p99 # ms; how they ended: *",
    )
    full, answered, share, p99 = map(float, times)
    assert share == pytest.approx(answered / full, rel=0.02, abs=0.01) and p99 > 0
    refused, p50, p99, told = _numbers(
        output, "  # refused, p50 # ms, p99 # ms; # of them told when to come back"
    )
    counted = ast.literal_eval(ended)
    assert counted == {"ok": counted["ok"], "overloaded": refused} and refused == told
    assert 0 < p50 <= p99
    # As many were sent as it says, but for what was rounded.
    assert sum(counted.values()) == pytest.approx(50 * full, abs=4)
    assert all(each > 0 for each in _numbers(output, "  resident, MB: # before, # after"))
    per_s, share = _numbers(output, "  afterwards: # requests/s (#)")
    assert share == pytest.approx(per_s / full, rel=0.02, abs=0.01)


def test_load_of_clicks_asks_the_graph_of_clicks_alone() -> None:
    output = run_command(
        *("bench", "load", "--kind", "click", "--clients", "1", "--runs", "1", "--seconds", "0.1")
    ).stdout
    assert _answered(output, 1) > 0
    rest = {"queue", "masks", "rest of the worker", "gateway and transport"}
    assert _stages(output).keys() == {"prompt_decoder", *rest}
    assert "times as many" not in output


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
