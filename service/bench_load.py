"""Load measured: what the service answers per second beside what its engine could if it did nothing else."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from service import processes
from service.bench_bare import BareEngine, Work, requests, shown
from service.bench_clients import Answers, Requests, closed, opened, percentile_ms
from service.config import WorkerSettings
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from service.processes import Served
from service.rpc import from_rpc_error
from service.worker.cores import on_cores

if TYPE_CHECKING:
    from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationAsyncStub

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is measured."""

    clients: Sequence[int]
    runs: int
    # Of each run.
    seconds: float
    # Then so many times as many requests as can be answered, for so long; 0: not.
    overload: float
    overload_s: float
    # Of the processor, for all but the engine.
    cores: Sequence[int]


def stages_of(runs: Sequence[Answers]) -> str:
    """Medians of the stages of a request, in words; `other` is what its client waits for beyond them."""
    timings = [timing for each in runs for timing in each.timings_ms]
    stages = {name: median(timing.get(name, 0.0) for timing in timings) for name in timings[0]}
    total = stages.pop("total")
    whole = median(1e3 * seconds for each in runs for seconds in each.seconds)
    parts = {
        **stages,
        "rest of the worker": total - sum(stages.values()),
        "gateway and transport": whole - total,
    }
    return ", ".join(f"{name} {value:.2f}" for name, value in parts.items())


def resident_mb(served: Served) -> float:
    """Of its gateway and its workers; 0 where the system does not say."""
    return sum(map(processes.resident_bytes, (served.gateway, *served.workers))) / 1e6


async def keep(address: str, picture: bytes) -> None:
    """Have the picture encoded and kept, for clicks. Raises ServiceError."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: SegmentationAsyncStub = SegmentationStub(channel)
        request = pb.EncodeImageRequest(image=pb.Image(data=picture))
        try:
            await stub.EncodeImage(request, timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def run(work: Work, plan: Plan, settings: WorkerSettings, say: Callable[[str], None]) -> None:
    """Measure, and say what was found as it is found. Raises CommandError."""
    with on_cores(plan.cores), closing(BareEngine(work, settings)) as engine:
        say(engine.name)
        bare = engine.rates(plan.runs, plan.seconds)
        say(f"bare engine: {shown(bare.best)} requests/s in batches of {bare.best_batch} ({bare.listed})")
        with processes.counting(plan.cores):
            beside = median(engine.per_s(bare.best_batch, plan.seconds) for _ in range(plan.runs))
        say(f"  {shown(beside)} ({beside / bare.best:.2f}) while the other cores do nothing but count")
        same = {
            "engine": settings.engine,
            "precision": settings.precision,
            "threads": settings.threads,
            "engine_cores": settings.engine_cores,
            "image_ttl_s": 86_400,
        }
        with processes.service(work.folder, plan.cores, **same) as served:
            measured = _Measured(served, work, plan, partial(engine.per_s, bare.best_batch, plan.seconds))
            asyncio.run(measured.tell(say))


@dataclass(frozen=True, slots=True)
class _Measured:
    """The service, measured."""

    served: Served
    work: Work
    plan: Plan
    # The bare engine's requests per second, now. Machines are not as fast at any time, so it is measured in
    # turn with the service, which rests meanwhile.
    bare_now: Callable[[], float]

    async def tell(self, say: Callable[[str], None]) -> None:
        """Measure, and say what was found as it is found. Raises ServiceError."""
        asked = requests(self.work.kind, self.work.picture, self.work.text)
        await keep(self.served.grpc, self.work.picture)
        # Once for the engine to prepare for the shapes.
        await self._closed(asked, max(self.plan.clients))
        for clients in self.plan.clients:
            await self._saturated(asked, clients, say)
        if self.plan.overload:
            await self._overloaded(asked, say)

    async def _saturated(self, asked: Requests, clients: int, say: Callable[[str], None]) -> None:
        bare, runs = [], []
        for _ in range(self.plan.runs):
            bare.append(self.bare_now())
            runs.append(await self._closed(asked, clients))
        share = median(each.per_s / alone for each, alone in zip(runs, bare, strict=True))
        p50, p99 = (median(percentile_ms(each.seconds, percent) for each in runs) for percent in (50, 99))
        say(
            f"{clients} clients: {shown(median(each.per_s for each in runs))} requests/s "
            f"({share:.2f} of the bare engine, {shown(median(bare))} in turn with them), "
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )
        if clients == 1:
            say(f"  of one request, ms: {stages_of(runs)}")

    async def _overloaded(self, asked: Requests, say: Callable[[str], None]) -> None:
        plan, most = self.plan, max(self.plan.clients)
        full = (await self._closed(asked, most)).per_s
        before = resident_mb(self.served)
        over = await opened(self.served.grpc, asked, plan.overload * full, plan.overload_s, _DEADLINE_S)
        say(
            f"{plan.overload:g} times as many as {shown(full)}/s for {plan.overload_s:g} s: "
            f"{shown(over.per_s)} answered/s ({over.per_s / full:.2f}), "
            f"p99 {percentile_ms(over.seconds, 99):.0f} ms; how they ended: {dict(over.kinds)}"
        )
        p50, p99 = (percentile_ms(over.refused_seconds, percent) for percent in (50, 99))
        say(
            f"  {len(over.refused_seconds)} refused, p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
            f"{over.told_when} of them told when to come back"
        )
        say(f"  resident, MB: {before:.0f} before, {resident_mb(self.served):.0f} after")
        after = (await self._closed(asked, most)).per_s
        say(f"  afterwards: {shown(after)} requests/s ({after / full:.2f})")

    async def _closed(self, asked: Requests, clients: int) -> Answers:
        return await closed(self.served.grpc, asked, clients, self.plan.seconds, _DEADLINE_S)
