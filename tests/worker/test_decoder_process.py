"""Decoder processes: their results, their limits, and what is left of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.worker.decoder_process import (
    DecodeRejected,
    DecoderError,
    DecoderLimits,
    DecoderProcesses,
    DecoderStartError,
    Results,
)

MIB = 2**20
LIMITS = DecoderLimits(memory_bytes=256 * MIB, cpu_s=20, timeout_s=60.0, max_result_bytes=64 * MIB)


def limits(**changed: Any) -> DecoderLimits:
    return DecoderLimits(**{name: getattr(LIMITS, name) for name in LIMITS.__slots__} | changed)


def named(function: str) -> str:
    return f"tests.worker.decoding:{function}"


def children() -> list[psutil.Process]:
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            if "service.worker.decoder_child" in " ".join(each.cmdline()):
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def run(work: Callable[[DecoderProcesses], Coroutine[Any, Any, None]], most: int = 4) -> None:
    """Run the work; afterwards there are no more children, descriptors or threads than before."""

    async def warmed() -> None:
        processes = DecoderProcesses(most)
        assert await processes.decode_one(named("parts"), b"x", {"size": 1}, LIMITS) == b"x"
        before = psutil.Process().num_fds(), psutil.Process().num_threads()
        await work(processes)
        await processes.close()
        for _ in range(300):
            # Whoever waits for a child in a thread is told a moment after it is gone.
            after = psutil.Process().num_fds(), psutil.Process().num_threads()
            if after <= before and not children():
                break
            await asyncio.sleep(0.1)
        assert not children() and after <= before

    asyncio.run(warmed())


async def gathered(
    processes: DecoderProcesses, function: str, data: bytes = b"", **options: Any
) -> list[bytes]:
    async with processes.decode(named(function), data, options, LIMITS) as results:
        return [result async for result in results]


async def failed(processes: DecoderProcesses, function: str, changed: DecoderLimits, **options: Any) -> str:
    """The reason of the failure."""
    with pytest.raises(DecoderError) as error:
        async with processes.decode(named(function), b"input", options, changed) as results:
            async for _ in results:
                pass
    return error.value.reason


def test_results_come_in_order_and_whole() -> None:
    async def work(processes: DecoderProcesses) -> None:
        data = os.urandom(9 * MIB + 7)
        found = await gathered(processes, "parts", data, size=2 * MIB)
        assert [len(part) for part in found] == [2 * MIB] * 4 + [MIB + 7] and b"".join(found) == data
        assert await gathered(processes, "parts", b"", size=1) == []

    run(work)


def test_a_rejection_and_every_failure_end_one_child_only() -> None:
    async def work(processes: DecoderProcesses) -> None:
        async with aclosing(_endless(processes)) as others:
            assert await anext(others) == 0
            with pytest.raises(DecodeRejected) as rejected:
                await gathered(processes, "rejecting")
            assert rejected.value.kind == "unsupported_video"
            assert rejected.value.detail == "video is of no use."
            assert await failed(processes, "raising", LIMITS) == "crashed"
            assert await failed(processes, "crashing", LIMITS) == "crashed"
            assert await failed(processes, "sleeping", limits(timeout_s=1.0)) == "time"
            assert await failed(processes, "spinning", limits(cpu_s=1)) == "cpu"
            assert await failed(processes, "allocating", LIMITS, size=300 * MIB) == "memory"
            assert await failed(processes, "parts", limits(max_result_bytes=4), size=5) == "memory"
            assert await gathered(processes, "allocating", size=100 * MIB) == [b"\0"]
            assert await anext(others) == 1

    run(work)


def test_a_child_that_is_killed_is_a_failure_and_one_that_cannot_start_is_another() -> None:
    async def work(processes: DecoderProcesses) -> None:
        with pytest.raises(DecoderError) as error:
            async with processes.decode(named("sleeping"), b"", {}, LIMITS) as results:
                assert await anext(results) == b"first"
                (child,) = children()
                child.send_signal(signal.SIGKILL)
                await anext(results)
        assert error.value.reason == "crashed"
        for nowhere in ("tests.worker.decoding:nothing", "tests.worker.nowhere:parts"):
            with pytest.raises(DecoderStartError):
                await processes.decode_one(nowhere, b"", {}, LIMITS)

    run(work)


def test_a_child_has_no_secret_and_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFICIENTSAM3_REDIS_URL", "redis://:secret@127.0.0.1:1/0")

    async def work(processes: DecoderProcesses) -> None:
        environment, *attempts, modules = await gathered(processes, "surroundings")
        assert b"secret" not in environment and b"EFFICIENTSAM3" not in environment
        assert attempts == [b"24"] * 3
        assert not {"grpc", "asyncio", "numpy", "google"} & set(json.loads(modules.replace(b"'", b'"')))

    run(work)


def test_a_child_computes_no_further_than_its_results_are_read() -> None:
    async def work(processes: DecoderProcesses) -> None:
        async with processes.decode(named("endless"), bytes(4 * MIB), {}, LIMITS) as results:
            assert await anext(results)
            (child,) = children()
            # It sleeps in a write: its processor time stands still.
            used = -1.0
            while used != (now := sum(child.cpu_times()[:2])):
                used = now
                await asyncio.sleep(1.0)
            before = psutil.Process().memory_info().rss
            await asyncio.sleep(0.5)
            assert psutil.Process().memory_info().rss < before + 16 * MIB
            assert int.from_bytes((await anext(results))[:8], "big") == 1

    run(work)


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_consumer_leaves_no_child(times: int) -> None:
    async def work(processes: DecoderProcesses) -> None:
        for delay_s in (0.0, 0.001, 0.01, 0.1, 0.3, 0.5):
            consumer = asyncio.create_task(gathered(processes, "endless", bytes(MIB)))
            await asyncio.sleep(delay_s)
            for _ in range(times):
                consumer.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await consumer
        # Every place is free again.
        assert await asyncio.gather(*(gathered(processes, "parts", b"x", size=1) for _ in range(6)))

    run(work, most=2)


def test_no_more_children_run_than_are_allowed() -> None:
    async def work(processes: DecoderProcesses) -> None:
        async def one() -> int:
            async with processes.decode(named("endless"), b"", {}, LIMITS) as results:
                assert await anext(results)
                count = len(children())
                await asyncio.sleep(0.2)
                return count

        assert max(await asyncio.gather(*(one() for _ in range(6)))) == 2

    run(work, most=2)


def test_the_owner_with_the_fewest_children_is_next() -> None:
    async def work(processes: DecoderProcesses) -> None:
        order = list[str]()

        async def one(owner: str) -> None:
            async with processes.decode(named("parts"), b"x", {"size": 1}, LIMITS, owner):
                order.append(owner)
                await asyncio.sleep(0.1)

        waiting = []
        for owner in ("greedy", "greedy", "greedy", "greedy", "modest"):
            waiting.append(asyncio.create_task(one(owner)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*waiting)
        assert order[:2] == ["greedy"] * 2 and "modest" in order[2:4]

    run(work, most=2)


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    program = """
        import asyncio
        from service.worker.decoder_process import DecoderLimits, DecoderProcesses

        async def main():
            limits, function = DecoderLimits(2**28, 600, 600.0, 2**20), "tests.worker.decoding:sleeping"
            async with DecoderProcesses(1).decode(function, b"", {}, limits) as results:
                await anext(results)
                print("decoding", flush=True)
                await anext(results)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"decoding\n"
        (child,) = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.communicate()
    child.wait(timeout=60)


async def _endless(processes: DecoderProcesses) -> Any:
    async with processes.decode(named("endless"), b"", {}, LIMITS) as results:
        async for result in results:
            yield int.from_bytes(result[:8], "big")


def test_a_closed_pool_has_no_children() -> None:
    async def work(processes: DecoderProcesses) -> None:
        async def consume(results: Results) -> None:
            async for _ in results:
                await asyncio.sleep(0.01)

        with pytest.raises(DecoderError):
            async with processes.decode(named("endless"), bytes(MIB), {}, LIMITS) as results:
                consumer = asyncio.create_task(consume(results))
                await asyncio.sleep(0.1)
                assert len(children()) == 1
                await processes.close()
                await consumer

    run(work)
