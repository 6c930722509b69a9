"""Tracking sessions: frames in order, through whatever happens on the way."""

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from service.client.answers import Frame, frame_of
from service.client.patience import frame_may_pass, patiently, patiently_for_frame, until_gone, was_refused
from service.client.transport import Connection, Json, Transport
from service.errors import Kind, ServiceError

# What `POST /v1/sessions/{id}/frames` takes as a prompt, e.g. {"box": [10, 20, 90, 80]}.
TrackPrompt = Mapping[str, Any]
# An encoded file's bytes, and its prompts.
Sent = tuple[bytes, Sequence[TrackPrompt]]

IN_FLIGHT = 4
"""Frames that may be on their way at once: the server keeps the answers of so many, to give them again."""


class AsyncSession:
    """A tracking session on the server. It stays there when the program ends: `id` opens it again.

    Every method raises ServiceError with the server's kind. What may pass (a worker that died, a store that
    restarts, a full queue, a connection that broke) is tried again while the client's patience lasts. So is a
    frame whose deadline passed: the server answers it once, however often it is sent.
    SESSION_ROLLED_BACK: the store lost frames that were answered, and `next_frame` says where to go on.
    """

    def __init__(self, transport: Transport, state: Mapping[str, Any], patience_s: float) -> None:
        """Made by the client."""
        self._transport, self._patience_s = transport, patience_s
        self.id: str = state["session"]
        self.variant: str = state["variant"]
        # Index of the frame that comes next.
        self.next_frame: int = state["next_frame"]
        self._revision: int = state["revision"]

    async def add(self, image: bytes, prompts: Sequence[TrackPrompt] = ()) -> Frame:
        """Follow the objects into the next frame, an encoded file's bytes.

        Prompts begin objects, say where they are on this frame, or end following them.
        """
        return self.done(await self._send(self.next_request(self.next_frame, prompts), image))

    async def stream(
        self, frames: AsyncIterable[Sent] | Iterable[Sent], in_flight: int = IN_FLIGHT
    ) -> AsyncIterator[Frame]:
        """What `add` gives for each of `frames`, an encoded file's bytes and its prompts, in their order.

        `in_flight` of them, 1 to IN_FLIGHT, are on their way at once, so that the server never waits for the
        network: frames are taken that much ahead of the answers. After a frame that is refused no other is
        answered; `next_frame` is the first without an answer.
        """
        flow = self.flow(in_flight)
        try:
            async for image, prompts in _each(frames):
                flow.put(image, prompts)
                if flow.is_full:
                    yield await flow.answer()
            while flow:
                yield await flow.answer()
        finally:
            await flow.close()

    async def correct(self, prompts: Sequence[TrackPrompt], image: bytes | None = None) -> Frame:
        """Answer the last frame anew: `prompts` replace those that it had.

        Its image is needed where the server does not know it any more: IMAGE_REQUIRED says so.
        """
        request: Json = {
            "frame": self.next_frame - 1,
            "revision": self._revision + 1,
            "prompts": list(prompts),
        }
        frame = await self._send(request, image)
        self._revision = frame.revision
        return frame

    async def state(self) -> Mapping[str, Any]:
        """Where the session stands, as `GET /v1/sessions/{id}` describes it."""
        get = self._transport.get_session
        return await patiently_for_frame(lambda: get(self.id), self._patience_s)

    async def fork(self) -> "AsyncSession":
        """Another session that goes on from where this one stands."""
        fork = self._transport.fork_session
        state = await patiently(lambda: fork(self.id), self._patience_s, was_refused)
        return AsyncSession(self._transport, state, self._patience_s)

    async def delete(self) -> None:
        """Have the server forget the session."""
        delete = self._transport.delete_session
        await until_gone(lambda: delete(self.id), self._patience_s, Kind.SESSION_NOT_FOUND, frame_may_pass)

    def flow(self, in_flight: int) -> "Flow":
        """What `stream` is made of. Raises ValueError unless `in_flight` is 1 to IN_FLIGHT."""
        if not 1 <= in_flight <= IN_FLIGHT:
            raise ValueError(f"in_flight is {in_flight}; it is 1 to {IN_FLIGHT}")
        return Flow(self, self._transport, self._patience_s, in_flight)

    def next_request(self, index: int, prompts: Sequence[TrackPrompt]) -> Json:
        """A new frame's. It says which answer it goes on from: a store may have lost that one."""
        follows = self._revision if index == self.next_frame else 0
        return {"frame": index, "follows": follows, "prompts": list(prompts)}

    def done(self, frame: Frame) -> Frame:
        """Note that the frame was answered."""
        self.next_frame, self._revision = frame.index + 1, frame.revision
        return frame

    async def meant(self, error: ServiceError) -> ServiceError:
        """What a frame's refusal comes from. A gap behind a frame that was answered means that the store lost
        frames; what follows an answer that is not known any more, that it lost a correction. We alone know of
        them where the worker that did it is gone as well."""
        if error.kind not in (Kind.FRAME_GAP, Kind.SESSION_ROLLED_BACK):
            return error
        state = await self.state()
        if (state["next_frame"], state["revision"]) >= (self.next_frame, self._revision):
            return error
        self.next_frame, self._revision = state["next_frame"], state["revision"]
        return ServiceError(Kind.SESSION_ROLLED_BACK, error.detail)

    async def _send(self, request: Json, image: bytes | None) -> Frame:
        add = self._transport.add_frame
        try:
            answer = await patiently_for_frame(lambda: add(self.id, request, image), self._patience_s)
            return frame_of(answer)
        except ServiceError as error:
            raise await self.meant(error) from error


class Flow:
    """Frames in flight over a connection that is made when it is needed, and anew after it broke.

    Those that were answered, and whose answers were lost on the way, are answered the same way again. True
    while frames wait for their answers. `close` it.
    """

    def __init__(
        self, session: AsyncSession, transport: Transport, patience_s: float, in_flight: int
    ) -> None:
        """Made by `AsyncSession.flow`."""
        self._session, self._transport = session, transport
        self._patience_s, self._in_flight = patience_s, in_flight
        self._index = session.next_frame
        # Without an answer, in their order; and how many of them went out over this connection.
        self._waiting, self._sent = deque[tuple[Json, bytes]](), 0
        self._connection: Connection | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether an answer is due before the next frame."""
        return len(self._waiting) >= self._in_flight

    def put(self, image: bytes, prompts: Sequence[TrackPrompt]) -> None:
        """One more frame."""
        self._waiting.append((self._session.next_request(self._index, prompts), image))
        self._index += 1

    async def answer(self) -> Frame:
        """The answer to the first frame that waits; all have been sent then. Raises ServiceError."""
        try:
            frame = frame_of(await patiently_for_frame(self._try, self._patience_s))
        except ServiceError as error:
            raise await self._session.meant(error) from error
        self._waiting.popleft()
        return self._session.done(frame)

    async def close(self) -> None:
        """Hang up; what was sent and not answered yet may be computed or not."""
        connection, self._connection, self._sent = self._connection, None, 0
        if connection is not None:
            await connection.close()

    async def _try(self) -> Json:
        try:
            if self._connection is None:
                self._connection = await self._transport.connect(self._session.id)
            await self._send(self._connection)
            answer = await self._connection.receive()
        except ServiceError:
            # Whatever was sent behind a frame that is refused is refused as well: all are asked anew.
            await self.close()
            raise
        self._sent -= 1
        return answer

    async def _send(self, connection: Connection) -> None:
        for request, image in islice(self._waiting, self._sent, None):
            try:
                await connection.send(request, image)
            except ServiceError:
                if not self._sent:
                    raise
                # Those before it are answered first.
                return
            self._sent += 1


async def _each(frames: AsyncIterable[Sent] | Iterable[Sent]) -> AsyncIterator[Sent]:
    if isinstance(frames, AsyncIterable):
        async for each in frames:
            yield each
    else:
        for each in frames:
            yield each
