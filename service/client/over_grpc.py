"""One server over gRPC."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from service.client import messages
from service.client.transport import GRACE_S, Json, NoAnswerError, Server, nobody, too_late
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import (
    segmentation_pb2_grpc,
    tracking_pb2_grpc,
    variants_pb2,
    variants_pb2_grpc,
)
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.rpc import REQUEST_ID_KEY, from_rpc_error, is_broken, told

if TYPE_CHECKING:
    from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationAsyncStub
    from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingAsyncStub

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")

_OPTIONS = [
    # Answers may hold megabytes of masks.
    ("grpc.max_receive_message_length", -1),
    # By default gRPC waits up to two minutes before it looks for a lost server again; patience is ours.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Clients of the same address would share a connection, and its failures.
    ("grpc.use_local_subchannel_pool", 1),
]


# What gRPC says where nothing was sent.
_UNCONNECTED = "failed to connect"


class OverGrpc:
    """A `Transport`."""

    def __init__(self, server: Server) -> None:
        """Raises OSError where the authorities' file cannot be read."""
        self._server = server
        self._authorities = server.ca.read_bytes() if server.ca else None

    async def segment(self, image: bytes | str, request: Json) -> Json:
        asked = messages.segment_request(image, request)
        return messages.answer(await self._ask(self._segmentation.Segment, asked))

    async def encode_image(self, image: bytes, variant: str) -> Json:
        sent = segmentation_pb.Image(data=image)
        asked = segmentation_pb.EncodeImageRequest(variant=variant, image=sent)
        return messages.kept_image(await self._ask(self._segmentation.EncodeImage, asked))

    async def delete_image(self, id: str) -> None:
        await self._ask(self._segmentation.DeleteImage, segmentation_pb.DeleteImageRequest(id=id))

    async def variants(self) -> list[Json]:
        stub = variants_pb2_grpc.VariantsStub(self._channel)
        answer = await self._ask(stub.ListVariants, variants_pb2.ListVariantsRequest())
        return [messages.variant(each) for each in answer.variants]

    async def open_session(self, request: Json) -> Json:
        asked = messages.open_request(request)
        return messages.session(await self._ask(self._tracking.OpenSession, asked))

    async def get_session(self, id: str) -> Json:
        return messages.session(await self._ask(self._tracking.GetSession, pb.SessionRequest(session=id)))

    async def fork_session(self, id: str) -> Json:
        return messages.session(await self._ask(self._tracking.ForkSession, pb.SessionRequest(session=id)))

    async def delete_session(self, id: str) -> None:
        await self._ask(self._tracking.DeleteSession, pb.SessionRequest(session=id))

    async def add_frame(self, session: str, request: Json, image: bytes | None) -> Json:
        asked = pb.AddFrameRequest(session=session, frame=messages.frame(request, image))
        return messages.frame_answer(await self._ask(self._tracking.AddFrame, asked))

    async def connect(self, session: str) -> "_Stream":
        stream = _Stream(self._tracking, self._server, self._metadata())
        await stream.open(session)
        return stream

    async def track_video(self, video: bytes, request: Json) -> AsyncGenerator[Json, None]:
        asked = messages.video_request(request, video)
        call = self._tracking.TrackVideo(asked, metadata=self._metadata())
        try:
            while (answer := await _read(call, self._server)) is not None:
                yield _answered(answer)
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()

    async def _ask(self, method: "grpc.aio.UnaryUnaryMultiCallable[_Asked, _Told]", request: _Asked) -> _Told:
        with _telling(self._server):
            return await method(request, timeout=self._server.timeout_s, metadata=self._metadata())

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Of a new request."""
        key = (("authorization", self._server.bearer),) if self._server.key else ()
        return ((REQUEST_ID_KEY, uuid.uuid4().hex), *key)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        """Made when it is first used: it belongs to the event loop that runs then."""
        scheme, _, target = self._server.address.rstrip("/").partition("://")
        if scheme == "grpc":
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self._authorities)
        return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)

    @cached_property
    def _segmentation(self) -> "SegmentationAsyncStub":
        return segmentation_pb2_grpc.SegmentationStub(self._channel)

    @cached_property
    def _tracking(self) -> "TrackingAsyncStub":
        return tracking_pb2_grpc.TrackingStub(self._channel)


class _Stream:
    """A `Connection`. gRPC takes from a queue what is sent: an answer is never behind a frame on its way."""

    def __init__(
        self, tracking: "TrackingAsyncStub", server: Server, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self._server, self._asked = server, asyncio.Queue[pb.TrackRequest | None]()
        self._call = tracking.Track(_each(self._asked), metadata=metadata)

    async def open(self, session: str) -> None:
        """Name the session that the frames are of."""
        self._asked.put_nowait(pb.TrackRequest(open=pb.OpenSessionRequest(session=session)))
        try:
            await self.receive()
        except BaseException:
            await self.close()
            raise

    async def send(self, request: Json, image: bytes) -> None:
        self._asked.put_nowait(pb.TrackRequest(frame=messages.frame(request, image)))

    async def receive(self) -> Json:
        if (answer := await _read(self._call, self._server)) is None:
            raise NoAnswerError(Kind.UNAVAILABLE, f"{self._server.address} ended the stream.", begun=True)
        return _answered(answer)

    async def close(self) -> None:
        self._asked.put_nowait(None)
        self._call.cancel()


async def _each(asked: "asyncio.Queue[pb.TrackRequest | None]") -> AsyncIterator[pb.TrackRequest]:
    while (request := await asked.get()) is not None:
        yield request


async def _read(
    call: "grpc.aio.StreamStreamCall[pb.TrackRequest, pb.TrackResponse]"
    " | grpc.aio.UnaryStreamCall[pb.TrackVideoRequest, pb.TrackResponse]",
    server: Server,
) -> pb.TrackResponse | None:
    """The next answer of a stream; None at its end."""
    try:
        with _telling(server):
            async with asyncio.timeout(server.timeout_s + GRACE_S):
                answer = await call.read()
    except TimeoutError as error:
        raise too_late(server.address, server.timeout_s) from error
    return answer if isinstance(answer, pb.TrackResponse) else None


def _answered(answer: pb.TrackResponse) -> Json:
    """The JSON of a session or of a frame. Raises what the answer says of one that was refused."""
    if answer.HasField("error"):
        known = answer.error.kind in set(Kind)
        raise ServiceError(Kind(answer.error.kind) if known else Kind.INTERNAL, answer.error.detail)
    if answer.HasField("opened"):
        return messages.session(answer.opened)
    return messages.frame_answer(answer.frame)


@contextmanager
def _telling(server: Server) -> Iterator[None]:
    """Raises what gRPC raises as ServiceErrors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise told(error) or _guessed(error, server) from error


def _guessed(error: grpc.aio.AioRpcError, server: Server) -> ServiceError:
    """For statuses that are not our service's: what they mean for the request."""
    match grpc.StatusCode.UNAVAILABLE if is_broken(error) else error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            details = error.details() or ""
            return nobody(server.address, details, begun=_UNCONNECTED not in details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return too_late(server.address, server.timeout_s)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return from_rpc_error(error)
        case code:
            detail = f"{server.address} answered {code.name}, and not as this service does: {error.details()}"
            return ServiceError(Kind.INTERNAL, detail)
