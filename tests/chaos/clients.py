"""Clients that follow sessions frame by frame, through whatever happens, and record what they see."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from service.client import AsyncClient, Client
from service.client.sessions import AsyncSession
from service.client.synchronous import Session
from service.errors import Kind, ServiceError
from tests.chaos.checker import LOST, RIVAL, TRANSIENT
from tests.chaos.history import Call, History, answer_digest, masks_of
from tests.chaos.plans import Plan, Step

_T = TypeVar("_T")

# One try, and how long `service.client` retries by itself before this client records an error.
TIMEOUT_S, PATIENCE_S = 15.0, 20.0
_PAUSE_S = 0.5


class Driver(Protocol):
    """One way to speak to the service. All of it raises ServiceError."""

    async def open(self) -> str:
        """Open a session and return its id."""

    def send(self, steps: Sequence[Step]) -> AsyncIterator[tuple[Mapping[str, Any], str]]:
        """Send steps, and give the JSON of each answer and the digest of the request that it answers."""

    async def state(self) -> tuple[int, int]:
        """Return the session's next frame and its last revision."""

    async def delete(self) -> None:
        """Delete the session."""

    def batch(self, steps: Sequence[Step]) -> Sequence[Step]:
        """Return the first of these steps that are sent together."""


class Recorder:
    """Writes the calls of one client into the history."""

    def __init__(self, name: str, history: History, now_s: Callable[[], float]) -> None:
        self.name, self._history, self._now_s = name, history, now_s
        self.plan = self.session = ""

    def now_s(self) -> float:
        """Return the seconds since the piece began."""
        return self._now_s()

    def rival(self) -> "Recorder":
        """Return the recorder of a rival of the current session."""
        rival = Recorder(f"{self.name}-rival", self._history, self._now_s)
        rival.plan, rival.session = self.plan, self.session
        return rival

    def call(self, action: str, started_s: float, **facts: Any) -> None:
        """Record a call of the current session that ends now."""
        self._history.add(Call(self.name, self.plan, self.session, action, started_s, self._now_s(), **facts))

    def answered(
        self, step: Step, started_s: float, answer: Mapping[str, Any], request: str, attempt: int
    ) -> None:
        """Record a frame's answer."""
        facts = {"answer": answer_digest(answer), "masks": masks_of(answer), "request": request}
        at = {"frame": answer["frame"], "revision": answer["revision"]}
        self.call("frame", started_s, attempt=attempt, **at, **facts)

    def failed(self, action: str, started_s: float, error: ServiceError, **facts: Any) -> None:
        """Record an error."""
        self.call(action, started_s, outcome=error.kind.value, detail=error.detail[:200], **facts)


class Follower:
    """Follows one session after another until it is told to stop, and then finishes the one that it has."""

    def __init__(self, driver: Driver, recorder: Recorder, choices: Sequence[Plan], seed: int) -> None:
        self._driver, self._recorder, self._choices = driver, recorder, choices
        self._random = random.Random(seed)
        self._plan = choices[0]
        # Index of the step that comes next, and how often it was sent.
        self._index = self._attempt = 0

    async def follow(self, stop: asyncio.Event, think_s: float) -> None:
        """Follow sessions with pauses of up to `think_s` between frames."""
        while not stop.is_set():
            self._plan = self._random.choice(self._choices)
            self._index, self._attempt = 0, 1
            self._recorder.plan, self._recorder.session = self._plan.name, ""
            self._recorder.session = await self._retried("open", self._driver.open)
            self._recorder.call("open", self._recorder.now_s())
            if await self._followed(stop, think_s):
                await self._finish()

    async def _followed(self, stop: asyncio.Event, think_s: float) -> bool:
        """Send every step; whether the session is there at the end."""
        while self._index < len(self._plan.steps):
            steps, started_s = self._driver.batch(self._plan.steps[self._index :]), self._recorder.now_s()
            try:
                async for answer, request in self._driver.send(steps):
                    step = self._plan.steps[self._index]
                    self._recorder.answered(step, started_s, answer, request, self._attempt)
                    self._index, self._attempt = self._index + 1, 1
                    if not stop.is_set():
                        await asyncio.sleep(self._random.uniform(0, think_s))
                    started_s = self._recorder.now_s()
            except ServiceError as error:
                if not await self._goes_on(error, started_s):
                    return False
        return True

    async def _goes_on(self, error: ServiceError, started_s: float) -> bool:
        """Whether the session can be gone on with after the error, at the step that comes next then."""
        step = self._plan.steps[self._index]
        at = {"frame": step.frame, "revision": step.revision, "attempt": self._attempt}
        self._recorder.failed("frame", started_s, error, **at)
        self._attempt += 1
        if error.kind.value in TRANSIENT:
            await asyncio.sleep(_PAUSE_S)
            return True
        if error.kind is not Kind.SESSION_ROLLED_BACK and error.kind.value not in RIVAL:
            return False
        try:
            next_frame, revision = await self._state()
        except ServiceError as gone:
            self._recorder.failed("state", started_s, gone)
            return False
        facts = {"next_frame": next_frame, "revision": revision, "outcome": error.kind.value}
        self._recorder.call("rollback", started_s, **facts)
        self._index = self._plan.index_after(next_frame, revision)
        return True

    async def _finish(self) -> None:
        """Compare with the store's state, and have it forget the session."""
        recorder, started_s = self._recorder, self._recorder.now_s()
        try:
            await self._state()
            recorder.call("finish", started_s)
            await self._retried("delete", self._driver.delete)
        except ServiceError as error:
            recorder.failed("state", started_s, error)

    async def _state(self) -> tuple[int, int]:
        started_s = self._recorder.now_s()
        next_frame, revision = await self._retried("state", self._driver.state)
        self._recorder.call("state", started_s, next_frame=next_frame, revision=revision)
        return next_frame, revision

    async def _retried(self, action: str, work: Callable[[], Awaitable[_T]]) -> _T:
        """Return the work's result, and retry transient errors. Raises the others."""
        attempt = 1
        while True:
            started_s = self._recorder.now_s()
            try:
                return await work()
            except ServiceError as error:
                gone = action == "delete" and error.kind.value in LOST
                if gone or (error.kind.value not in TRANSIENT and action != "open"):
                    raise
                self._recorder.failed(action, started_s, error, attempt=attempt)
                attempt += 1
                await asyncio.sleep(_PAUSE_S)


class AsyncDriver:
    """`service.client.AsyncClient`: one frame at a time, or streamed with several in flight."""

    def __init__(self, client: AsyncClient, *, streams: bool) -> None:
        self._client, self._streams = client, streams
        self._session: AsyncSession | None = None

    async def open(self) -> str:
        self._session = await self._client.open_session()
        return self._session.id

    def batch(self, steps: Sequence[Step]) -> Sequence[Step]:
        return new_frames(steps) if self._streams else steps[:1]

    async def send(self, steps: Sequence[Step]) -> AsyncIterator[tuple[Mapping[str, Any], str]]:
        session = self._known()
        if steps[0].revision:
            yield (await session.correct(steps[0].prompts, steps[0].image)).raw, steps[0].digest()
        elif not self._streams:
            yield (await session.add(steps[0].image, steps[0].prompts)).raw, steps[0].digest()
        else:
            sent = [(step.image, step.prompts) for step in steps]
            async with aclosing(session.stream(sent)) as answers:
                for step in steps:
                    yield (await anext(answers)).raw, step.digest()

    async def state(self) -> tuple[int, int]:
        state = await self._known().state()
        # Another object, that goes on from where the server stands now.
        self._session = await self._client.session(self._known().id)
        if self._session.next_frame != state["next_frame"]:
            return await self.state()
        return state["next_frame"], state["revision"]

    async def delete(self) -> None:
        await self._known().delete()

    def _known(self) -> AsyncSession:
        assert self._session is not None
        return self._session


class SyncDriver:
    """`service.client.Client` in threads: one frame at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._session: Session | None = None

    async def open(self) -> str:
        self._session = await asyncio.to_thread(self._client.open_session)
        return self._session.id

    def batch(self, steps: Sequence[Step]) -> Sequence[Step]:
        return steps[:1]

    async def send(self, steps: Sequence[Step]) -> AsyncIterator[tuple[Mapping[str, Any], str]]:
        session, step = self._known(), steps[0]
        if step.revision:
            frame = await asyncio.to_thread(session.correct, step.prompts, step.image)
        else:
            frame = await asyncio.to_thread(session.add, step.image, step.prompts)
        yield frame.raw, step.digest()

    async def state(self) -> tuple[int, int]:
        state = await asyncio.to_thread(self._known().state)
        self._session = await asyncio.to_thread(self._client.session, self._known().id)
        if self._session.next_frame != state["next_frame"]:
            return await self.state()
        return state["next_frame"], state["revision"]

    async def delete(self) -> None:
        await asyncio.to_thread(self._known().delete)

    def _known(self) -> Session:
        assert self._session is not None
        return self._session


def new_frames(steps: Sequence[Step]) -> Sequence[Step]:
    """Return the steps up to the next correction; a correction alone."""
    count = next((index for index, step in enumerate(steps) if step.revision), len(steps))
    return steps[: max(count, 1)]
