"""The client for programs without an event loop: the other one, run in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from service.client.answers import Frame
from service.client.asynchronous import AsyncClient
from service.client.sessions import IN_FLIGHT, AsyncSession, Sent
from service.client.videos import AsyncVideo

_Of = TypeVar("_Of")
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class _LoopThread:
    """An event loop in a thread of its own, for whose work any other thread may wait."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._live(),), daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def lives(self) -> bool:
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The work's result. Raises RuntimeError after `close`."""
        if not self.lives:
            work.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Also where whoever waits was interrupted.
            future.cancel()
            raise

    def close(self) -> None:
        """End what still runs."""
        if self.lives:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _live(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._end.wait()


class _Sync(Generic[_Of]):
    """Something of the other client's, and the loop that it lives in."""

    def __init__(self, loop: _LoopThread, of: _Of) -> None:
        self._loop, self._of = loop, of


def _sync(
    method: Callable[Concatenate[_Of, _Given], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate[_Sync[_Of], _Given], _Result]:
    """The same method, which waits."""

    @wraps(method)
    def wait(self: _Sync[_Of], /, *args: _Given.args, **named: _Given.kwargs) -> _Result:
        return self._loop.run(method(self._of, *args, **named))

    return wait


def _session(
    method: Callable[Concatenate[_Of, _Given], Coroutine[Any, Any, AsyncSession]],
) -> "Callable[Concatenate[_Sync[_Of], _Given], Session]":
    """The same method, which waits."""
    wait = _sync(method)

    @wraps(method)
    def opened(self: _Sync[_Of], /, *args: _Given.args, **named: _Given.kwargs) -> "Session":
        return Session(self._loop, wait(self, *args, **named))

    return opened


def _video(
    method: Callable[Concatenate[_Of, _Given], Coroutine[Any, Any, AsyncVideo]],
) -> "Callable[Concatenate[_Sync[_Of], _Given], Video]":
    """The same method, which waits."""
    wait = _sync(method)

    @wraps(method)
    def begun(self: _Sync[_Of], /, *args: _Given.args, **named: _Given.kwargs) -> "Video":
        return Video(self._loop, wait(self, *args, **named))

    return begun


class Session(_Sync[AsyncSession]):
    """`AsyncSession` for programs without an event loop. Any thread may use it, one at a time."""

    @property
    def id(self) -> str:
        """Opens the session again, from wherever."""
        return self._of.id

    @property
    def variant(self) -> str:
        return self._of.variant

    @property
    def next_frame(self) -> int:
        """Index of the frame that comes next."""
        return self._of.next_frame

    @next_frame.setter
    def next_frame(self, index: int) -> None:
        self._of.next_frame = index

    add = _sync(AsyncSession.add)
    correct = _sync(AsyncSession.correct)
    state = _sync(AsyncSession.state)
    fork = _session(AsyncSession.fork)
    delete = _sync(AsyncSession.delete)

    def stream(self, frames: Iterable[Sent], in_flight: int = IN_FLIGHT) -> Iterator[Frame]:
        """As `AsyncSession.stream`; `frames` are taken in the thread that takes the answers."""
        flow = self._of.flow(in_flight)
        try:
            for image, prompts in frames:
                flow.put(image, prompts)
                if flow.is_full:
                    yield self._loop.run(flow.answer())
            while flow:
                yield self._loop.run(flow.answer())
        finally:
            if self._loop.lives:
                self._loop.run(flow.close())


class Video(_Sync[AsyncVideo]):
    """`AsyncVideo` for programs without an event loop: iterate over it, once."""

    @property
    def session(self) -> Session:
        """Stays on the server: its `next_frame` is the first without an answer."""
        return Session(self._loop, self._of.session)

    def __iter__(self) -> Iterator[Frame]:
        answers = aiter(self._of)

        async def following() -> Frame | None:
            return await anext(answers, None)

        async def left() -> None:
            await answers.aclose()

        try:
            while (frame := self._loop.run(following())) is not None:
                yield frame
        finally:
            if self._loop.lives:
                self._loop.run(left())


class Client(_Sync[AsyncClient]):
    """`AsyncClient` for programs without an event loop, and for threads beside one. Any thread may use it.

    Use it as a context manager, or `close` it.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8080",
        *,
        timeout_s: float = 60.0,
        patience_s: float | None = None,
        key: str = "",
        ca: Path | None = None,
    ) -> None:
        """As of `AsyncClient`."""
        of = AsyncClient(address, timeout_s=timeout_s, patience_s=patience_s, key=key, ca=ca)
        super().__init__(_LoopThread(), of)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._loop.lives:
            self._loop.run(self._of.close())
            self._loop.close()

    segment = _sync(AsyncClient.segment)
    encode_image = _sync(AsyncClient.encode_image)
    delete_image = _sync(AsyncClient.delete_image)
    variants = _sync(AsyncClient.variants)
    open_session = _session(AsyncClient.open_session)
    session = _session(AsyncClient.session)
    track_video = _video(AsyncClient.track_video)
