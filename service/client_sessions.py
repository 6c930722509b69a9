"""Tracking sessions of the typed client: frames in order, through whatever happens on the way."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.client_http import Http, parts
from service.errors import Kind, ServiceError

if TYPE_CHECKING:
    pass

# What `POST /v1/sessions/{id}/frames` takes as a prompt, e.g. {"box": [10, 20, 90, 80]}.
TrackPrompt = Mapping[str, Any]

# A frame is answered the same way however often it is sent: these are tried again.
_PASSING = frozenset({Kind.UNAVAILABLE, Kind.STORE_UNAVAILABLE, Kind.OVERLOADED})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


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
    restarts, a full queue) is tried again for `patience_s`. SESSION_ROLLED_BACK: the store lost frames, and
    `next_frame` says where to go on.
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
        frame = self._send({"frame": self.next_frame, "prompts": list(prompts)}, image)
        self.next_frame, self._revision = frame.index + 1, frame.revision
        return frame

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

    def _send(self, request: Mapping[str, Any], image: bytes | None) -> Frame:
        content = {"json": request} if image is None else {"files": parts(image, request)}
        try:
            return _frame(self._patiently(lambda: self._http.send("POST", f"{self._path}/frames", **content)))
        except ServiceError as error:
            if error.kind is Kind.SESSION_ROLLED_BACK:
                state = self.state()
                self.next_frame, self._revision = state["next_frame"], state["revision"]
            raise

    def _patiently(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        until, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return work()
            except ServiceError as error:
                wait_s = max(pause_s, error.retry_after_s or 0.0)
                if error.kind not in _PASSING or time.monotonic() + wait_s > until:
                    raise
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


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
