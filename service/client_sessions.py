"""Tracking sessions of the typed client: frames in order, through whatever happens on the way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from service.client_http import Http, Patience, parts
from service.client_stream import Asked, Stream
from service.errors import Kind, ServiceError

# What `POST /v1/sessions/{id}/frames` takes as a prompt, e.g. {"box": [10, 20, 90, 80]}.
TrackPrompt = Mapping[str, Any]

IN_FLIGHT = 4
"""Frames that may be on their way at once: the server keeps the answers of so many, to give them again."""


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """One object on a frame."""

    id: int
    # The text that found it, or empty.
    label: str
    # How sure it is that the object is in the picture, 0..1.
    score: float
    # False: it is hidden, or has left; it has no box and no mask then.
    visible: bool
    # x0, y0, x1, y1 in pixels of the frame.
    box_xyxy: tuple[float, float, float, float] | None
    area_px: int
    # As the API writes it, by its "format".
    mask: Mapping[str, Any] | None
    # Index of the prompt that showed it on this frame.
    prompt: int | None


@dataclass(frozen=True, slots=True)
class Frame:
    """The answer to a frame."""

    index: int
    revision: int
    # Pixels.
    width_px: int
    height_px: int
    # Every object that is followed, in the order of their ids.
    objects: tuple[TrackedObject, ...]
    timings_ms: Mapping[str, float]
    # The answer's JSON as it came.
    raw: Mapping[str, Any]


class Session:
    """A tracking session on the server. It stays there when the program ends: `id` opens it again.

    Every method raises ServiceError with the server's kind. What may pass (a worker that died, a store that
    restarts, a full queue, a connection that broke) is tried again for `patience_s`. SESSION_ROLLED_BACK:
    the store lost frames that were answered, and `next_frame` says where to go on.
    """

    def __init__(self, http: Http, state: Mapping[str, Any], patience_s: float) -> None:
        """Made by `Client.open_session` and `Client.session`."""
        self._http, self._patience_s = http, patience_s
        self.id: str = state["session"]
        self.variant: str = state["variant"]
        # Index of the frame that comes next.
        self.next_frame: int = state["next_frame"]
        self._revision: int = state["revision"]

    def add(self, image: bytes, prompts: Sequence[TrackPrompt] = ()) -> Frame:
        """Follow the objects into the next frame, an encoded file's bytes.

        Prompts begin objects, say where they are on this frame, or end following them.
        """
        return self._done(self._send(self._next(self.next_frame, prompts), image))

    def stream(
        self, frames: Iterable[tuple[bytes, Sequence[TrackPrompt]]], in_flight: int = IN_FLIGHT
    ) -> Iterator[Frame]:
        """What `add` gives for each of `frames`, an encoded file's bytes and its prompts, in their order.

        `in_flight` of them, 1 to IN_FLIGHT, are on their way at once, so that the server never waits for the
        network: frames are taken that much ahead of the answers. After a frame that is refused no other is
        answered; `next_frame` is the first without an answer.
        """
        if not 1 <= in_flight <= IN_FLIGHT:
            raise ValueError(f"in_flight is {in_flight}; it is 1 to {IN_FLIGHT}")
        stream, waiting = Stream(self._http, self._path, self._patience_s), deque[Asked]()
        coming = (
            Asked(self._next(index, prompts), image)
            for index, (image, prompts) in enumerate(frames, self.next_frame)
        )
        try:
            waiting.extend(islice(coming, in_flight))
            while waiting:
                answer = self._understood(lambda: stream.answer(list(waiting)))
                waiting.popleft()
                yield self._done(_frame(answer))
                waiting.extend(islice(coming, 1))
        finally:
            stream.close()

    def correct(self, prompts: Sequence[TrackPrompt], image: bytes | None = None) -> Frame:
        """Answer the last frame anew: `prompts` replace those that it had.

        Its image is needed where the server does not know it any more: IMAGE_REQUIRED says so.
        """
        request = {
            "frame": self.next_frame - 1,
            "revision": self._revision + 1,
            "prompts": list(prompts),
        }
        frame = self._send(request, image)
        self._revision = frame.revision
        return frame

    def state(self) -> Mapping[str, Any]:
        """Where the session stands, as `GET /v1/sessions/{id}` describes it."""
        return self._patiently(lambda: self._http.send("GET", self._path))

    def fork(self) -> "Session":
        """Another session that goes on from where this one stands."""
        state = self._patiently(lambda: self._http.send("POST", f"{self._path}/fork"))
        return Session(self._http, state, self._patience_s)

    def delete(self) -> None:
        """Have the server forget the session."""
        self._patiently(lambda: self._http.send("DELETE", self._path))

    @property
    def _path(self) -> str:
        return f"/v1/sessions/{self.id}"

    def _next(self, index: int, prompts: Sequence[TrackPrompt]) -> Mapping[str, Any]:
        """A new frame's request. It says which answer it goes on from: a store may have lost that one."""
        follows = self._revision if index == self.next_frame else 0
        return {"frame": index, "follows": follows, "prompts": list(prompts)}

    def _send(self, request: Mapping[str, Any], image: bytes | None) -> Frame:
        content = {"json": request} if image is None else {"files": parts(image, request)}
        path = f"{self._path}/frames"
        return _frame(
            self._understood(lambda: self._patiently(lambda: self._http.send("POST", path, **content)))
        )

    def _done(self, frame: Frame) -> Frame:
        self.next_frame, self._revision = frame.index + 1, frame.revision
        return frame

    def _understood(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The work's result. A gap behind a frame that was answered means that the store lost frames; what
        follows an answer that is not known any more, that it lost a correction. We alone know of them where
        the worker that did it is gone as well."""
        try:
            return work()
        except ServiceError as error:
            if error.kind not in (Kind.FRAME_GAP, Kind.SESSION_ROLLED_BACK):
                raise
            state = self.state()
            if (state["next_frame"], state["revision"]) >= (self.next_frame, self._revision):
                raise
            self.next_frame, self._revision = state["next_frame"], state["revision"]
            raise ServiceError(Kind.SESSION_ROLLED_BACK, error.detail) from error

    def _patiently(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        patience = Patience(self._patience_s)
        while True:
            try:
                return work()
            except ServiceError as error:
                patience.wait(error)


def _frame(body: dict[str, Any]) -> Frame:
    image = body["image"]
    return Frame(
        index=body["frame"],
        revision=body["revision"],
        width_px=image["width"],
        height_px=image["height"],
        objects=tuple(_tracked(each) for each in body["objects"]),
        timings_ms=body["timings_ms"],
        raw=body,
    )


def _tracked(body: Mapping[str, Any]) -> TrackedObject:
    box = body.get("box")
    return TrackedObject(
        id=body["object"],
        label=body["label"],
        score=body["score"],
        visible=body["visible"],
        box_xyxy=(box[0], box[1], box[2], box[3]) if box else None,
        area_px=body["area"],
        mask=body.get("mask"),
        prompt=body.get("prompt"),
    )
