"""Sessions over bare gRPC, and a rival that asks a worker itself for the same frame by another request."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from service.client import messages
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.chaos.clients import TIMEOUT_S, Recorder
from tests.chaos.plans import Step

# A rival outlasts a worker that is frozen with its request.
_RIVAL_S = 40.0
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


class BareDriver:
    """`Tracking.AddFrame`. Some frames are asked for a second time at once, of a worker, by a rival.

    The two requests differ, so that at most one of them may be answered; the other gets `frame_conflict`. A
    worker that is frozen with a rival's frame wakes up when the session has gone on elsewhere: its answer
    must never be accepted.
    """

    def __init__(
        self, target: str, workers: Sequence[str], recorder: Recorder, seed: int, share: float
    ) -> None:
        """`share`: of the frames that have a rival."""
        self._channels = [grpc.aio.insecure_channel(each, options=_OPTIONS) for each in (target, *workers)]
        self._stub, *self._workers = (TrackingStub(channel) for channel in self._channels)
        self._recorder, self._random, self._share = recorder, random.Random(seed), share
        self._session = ""
        self._rivals: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "BareDriver":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end_rivals()
        for channel in self._channels:
            await channel.close()

    async def open(self) -> str:
        await self._end_rivals()
        self._session = (await _asked(self._stub.OpenSession, pb.OpenSessionRequest())).session
        return self._session

    def batch(self, steps: Sequence[Step]) -> Sequence[Step]:
        return steps[:1]

    async def send(self, steps: Sequence[Step]) -> AsyncIterator[tuple[Mapping[str, Any], str]]:
        step = steps[0]
        if not step.revision and self._random.random() < self._share:
            rival = asyncio.create_task(self._compete(step, self._random.choice(self._workers)))
            self._rivals.add(rival)
            rival.add_done_callback(self._rivals.discard)
            await asyncio.sleep(self._random.uniform(0, 0.2))
        try:
            yield await self._add(self._stub, step), step.digest()
        except ServiceError as error:
            if error.kind is not Kind.FRAME_CONFLICT:
                raise
            # The rival was faster: its request is the one that has an answer.
            yield await self._add(self._stub, step, rival=True), step.digest(rival=True)

    async def state(self) -> tuple[int, int]:
        state = await _asked(self._stub.GetSession, pb.SessionRequest(session=self._session))
        return state.next_frame, state.revision

    async def delete(self) -> None:
        await self._end_rivals()
        await _asked(self._stub.DeleteSession, pb.SessionRequest(session=self._session))

    async def _compete(self, step: Step, worker: TrackingStub) -> None:
        recorder = self._recorder.rival()
        # Sometimes after the other one, sometimes before it.
        await asyncio.sleep(self._random.uniform(0, 0.2))
        started_s = recorder.now_s()
        at = {"frame": step.frame, "revision": step.revision}
        try:
            answer = await self._add(worker, step, rival=True, timeout_s=_RIVAL_S)
        except ServiceError as error:
            recorder.failed("frame", started_s, error, **at)
        else:
            recorder.answered(step, started_s, answer, step.digest(rival=True), 1)

    async def _add(
        self, stub: TrackingStub, step: Step, *, rival: bool = False, timeout_s: float = TIMEOUT_S
    ) -> Mapping[str, Any]:
        frame = messages.frame(step.request(rival=rival), step.image)
        request = pb.AddFrameRequest(session=self._session, frame=frame)
        return messages.frame_answer(await _asked(stub.AddFrame, request, timeout_s))

    async def _end_rivals(self) -> None:
        for rival in list(self._rivals):
            rival.cancel()
        await asyncio.gather(*self._rivals, return_exceptions=True)


async def _asked(method: Any, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
    """Return the method's response. Raises ServiceError."""
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
