"""Whole videos: the server decodes the file, and answers frame by frame."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from service.client.answers import Frame, frame_of
from service.client.patience import (
    MOST_BEGUN,
    MOST_BEGUN_FRAME,
    Patience,
    frame_may_pass,
    patiently,
    was_refused,
)
from service.client.sessions import AsyncSession
from service.client.transport import Json, Transport
from service.errors import Kind, ServiceError
from service.prompts import variant_of_session

# What `POST /v1/videos/track` takes as a prompt, e.g. {"frame": 12, "box": [10, 20, 90, 80]}.
VideoPrompt = Mapping[str, Any]


class AsyncVideo:
    """A video that is tracked. Iterate over it, once, for its frames' answers as they are done.

    Answers are read as they come, and wait here for whoever iterates. What may pass is tried again while the
    client's patience lasts, from the frame that is missed. `session` stays on the server: its `next_frame` is
    the first that was not given out.
    """

    def __init__(
        self,
        transport: Transport,
        video: bytes,
        prompts: Sequence[VideoPrompt],
        session: AsyncSession,
        answers: AsyncGenerator[Json, None],
        patience_s: float,
    ) -> None:
        """Made by `begun`. `answers` are those that come behind the one that names the session."""
        self._transport, self._video, self._prompts = transport, video, list(prompts)
        self._answers, self._patience_s = answers, patience_s
        self.session = session

    async def __aiter__(self) -> AsyncGenerator[Frame, None]:
        patience = Patience(self._patience_s, MOST_BEGUN_FRAME)
        while True:
            answered = False
            try:
                async with aclosing(_read_ahead(self._answers)) as answers:
                    async for body in answers:
                        if "frame" in body:
                            yield self.session.done(frame_of(body))
                            answered, patience = True, Patience(self._patience_s, MOST_BEGUN_FRAME)
                return
            except ServiceError as error:
                # An answer has one deadline, and a long video takes several.
                if not (answered and error.kind is Kind.DEADLINE_EXCEEDED):
                    await self._wait(patience, error)
            going_on = {"session": self.session.id, "first": self.session.next_frame}
            self._answers = self._transport.track_video(self._video, {**going_on, "prompts": self._prompts})

    async def _wait(self, patience: Patience, error: ServiceError) -> None:
        try:
            await patience.wait(error, frame_may_pass)
        except ServiceError:
            raise await self.session.meant(error) from error


async def _read_ahead(answers: AsyncGenerator[Json, None]) -> AsyncGenerator[Json, None]:
    """The same, each taken when it comes. The server keeps few of its answers to give them again, and does
    not wait for whoever is slow to use them: what has arrived is not lost with the connection."""
    arrived = asyncio.Queue[Json | Exception | None]()

    async def read() -> None:
        try:
            async with aclosing(answers):
                async for body in answers:
                    arrived.put_nowait(body)
            arrived.put_nowait(None)
        except Exception as error:
            arrived.put_nowait(error)

    reading = asyncio.create_task(read())
    try:
        while (each := await arrived.get()) is not None:
            if isinstance(each, Exception):
                raise each
            yield each
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def begun(
    transport: Transport,
    video: bytes,
    prompts: Sequence[VideoPrompt],
    opening: Json,
    session: AsyncSession | None,
    patience_s: float,
) -> AsyncVideo:
    """The video, in the session that it began in or in a new one, which `opening` describes."""
    going_on = {"session": session.id, "first": session.next_frame} if session else opening

    async def ask() -> tuple[AsyncGenerator[Json, None], Json]:
        answers = transport.track_video(video, {**going_on, "prompts": list(prompts)})
        return answers, await anext(answers)

    # A session that is there may be asked again.
    passes, most = (frame_may_pass, MOST_BEGUN_FRAME) if session else (was_refused, MOST_BEGUN)
    answers, opened = await patiently(ask, patience_s, passes, most)
    if session is None:
        id = opened["session"]
        state = {"session": id, "variant": variant_of_session(id), "next_frame": 0, "revision": 0}
        session = AsyncSession(transport, state, patience_s)
    return AsyncVideo(transport, video, prompts, session, answers, patience_s)
