"""Clients that ask a running service at once: as many as there are, or as often as they are told."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from service.errors import Kind
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from service.rpc import from_rpc_error

if TYPE_CHECKING:
    from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
    from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationAsyncStub

_OK = "ok"

# The next request, each time it is called.
Requests = Callable[[], "pb.SegmentRequest"]


@dataclass(slots=True)
class Answers:
    """What became of the requests of one run."""

    # Of the answered, from sending to having the answer.
    seconds: list[float] = field(default_factory=list)
    # `timings_ms` of the answered.
    timings_ms: list[dict[str, float]] = field(default_factory=list)
    # Every request by how it ended: "ok", or the error's kind.
    kinds: Counter[str] = field(default_factory=Counter)
    # Of the refused because there were too many, from sending to being told so; and how many of these were
    # told when to come back.
    refused_seconds: list[float] = field(default_factory=list)
    told_when: int = 0
    # From the first request to the last answer.
    took_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Answered requests per second."""
        return len(self.seconds) / self.took_s if self.took_s else 0.0


def percentile_ms(seconds: Sequence[float], percent: int) -> float:
    """Of requests' times; 0 of none."""
    if len(seconds) < 2:
        return 1e3 * sum(seconds)
    return 1e3 * quantiles(seconds, n=100, method="inclusive")[percent - 1]


async def closed(
    address: str, requests: Requests, clients: int, seconds: float, deadline_s: float
) -> Answers:
    """So many clients, each of which asks again as soon as it has its answer."""
    answers = Answers()

    async def client(ask: Callable[[], Awaitable[None]]) -> None:
        while time.perf_counter() - started < seconds:
            await ask()

    async with _channel(address) as channel:
        stub: SegmentationAsyncStub = SegmentationStub(channel)
        started = time.perf_counter()
        await asyncio.gather(
            *(client(lambda: _ask(stub, requests, deadline_s, answers)) for _ in range(clients))
        )
        answers.took_s = time.perf_counter() - started
    return answers


async def opened(
    address: str, requests: Requests, per_s: float, seconds: float, deadline_s: float
) -> Answers:
    """So many requests per second, whether they are answered or not."""
    answers = Answers()
    asked: set[asyncio.Task[None]] = set()
    async with _channel(address) as channel:
        stub: SegmentationAsyncStub = SegmentationStub(channel)
        started = time.perf_counter()
        for due in _times(per_s, seconds):
            await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
            task = asyncio.create_task(_ask(stub, requests, deadline_s, answers))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)
        answers.took_s = time.perf_counter() - started
    return answers


def _times(per_s: float, seconds: float) -> Iterator[float]:
    return (index / per_s for index in range(int(per_s * seconds)))


def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])


async def _ask(
    stub: "SegmentationAsyncStub", requests: Requests, deadline_s: float, answers: Answers
) -> None:
    request = requests()
    started = time.perf_counter()
    try:
        answer = await stub.Segment(request, timeout=deadline_s)
    except grpc.RpcError as failure:
        error = from_rpc_error(failure)
        answers.kinds[error.kind.value] += 1
        if error.kind is Kind.OVERLOADED:
            answers.refused_seconds.append(time.perf_counter() - started)
            answers.told_when += error.retry_after_s is not None
        return
    answers.seconds.append(time.perf_counter() - started)
    answers.timings_ms.append(dict(answer.timings_ms))
    answers.kinds[_OK] += 1
