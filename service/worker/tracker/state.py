"""A session between two frames: its tracks and options, to and from the parts that a store keeps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.state.v1 import session_pb2 as state_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.sessions.session_store import Parts
from service.worker.tensors import message_of, tensor_of
from service.worker.tracker.bank import Array, Kept, Track
from service.worker.tracker.trial import Trial

SCHEMA = 1
HEAD, BASE = "head", "base"


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose memory it is: nobody else's graphs can go on with it."""

    variant: str
    # sha256 of the artefact's manifest.
    artefact: str


@dataclass(frozen=True, slots=True)
class State:
    """What one frame leaves for the next."""

    origin: Origin
    options: pb.TrackOptions = field(default_factory=pb.TrackOptions)
    frames_total: int | None = None
    # Lowest id that no object of the session ever had.
    next_object: int = 1
    # Pixels of every frame; (0, 0) before the first.
    size: tuple[int, int] = (0, 0)
    # In the order of their ids.
    tracks: tuple[Track, ...] = ()
    # Texts whose instances are followed: the label of their tracks.
    concepts: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Of what is kept of its objects."""
        return sum(track.nbytes for track in self.tracks)


def answer_part(frame: int) -> str:
    """Name of the part with the answer to a frame."""
    return f"answer:{frame}"


def head_of(state: State) -> bytes:
    """All of a state but its tensors."""
    width, height = state.size
    head = state_pb.Head(
        schema=SCHEMA,
        variant=state.origin.variant,
        artefact=state.origin.artefact,
        frames_total=state.frames_total or 0,
        options=state.options,
        next_object=state.next_object,
        width=width,
        height=height,
        tracks=[
            state_pb.Track(
                object=track.id,
                label=track.label,
                prompted=_listed(track.prompted),
                followed=_listed(track.followed),
                hidden=track.hidden,
                trial=_trial_part(track.trial),
                selects=track.selects,
            )
            for track in state.tracks
        ],
        concepts=state.concepts,
    )
    return head.SerializeToString(deterministic=True)


def tensors_of(state: State) -> dict[str, Array]:
    """The tensors by the name of the part that keeps each."""
    named: dict[str, Array] = {}
    for track in state.tracks:
        for kept in (*track.prompted, *track.followed):
            named[_pointer(track.id, kept.frame)] = kept.pointer
            if kept.memory is not None:
                named[_memory(track.id, kept.frame)] = kept.memory
    return named


def packed(tensor: Array) -> bytes:
    """A tensor as a part."""
    return message_of(tensor).SerializeToString()


def state_of(parts: Parts, origin: Origin, part: str = HEAD) -> State:
    """The state that `part` is the head of.

    Raises `artefact_mismatch` where it is another artefact's, or of another version of the service.
    """
    head = state_pb.Head.FromString(parts[part])
    found = Origin(head.variant, head.artefact)
    if head.schema != SCHEMA or found != origin:
        detail = (
            f"The session is of {found.variant} ({found.artefact[:12]}, state {head.schema}); "
            f"here is {origin.variant} ({origin.artefact[:12]}, state {SCHEMA})."
        )
        raise ServiceError(Kind.ARTEFACT_MISMATCH, detail)
    tracks = (
        Track(
            track.object,
            track.label,
            _read(parts, track.object, track.prompted),
            _read(parts, track.object, track.followed),
            track.hidden,
            _trial(track),
            track.selects,
        )
        for track in head.tracks
    )
    size, total = (head.width, head.height), head.frames_total or None
    followed, concepts = tuple(tracks), tuple(head.concepts)
    return State(origin, head.options, total, head.next_object, size, followed, concepts)


def _trial_part(trial: Trial | None) -> state_pb.Trial | None:
    if trial is None:
        return None
    return state_pb.Trial(found=trial.found, missed=trial.missed, shared=trial.shared)


def _trial(track: state_pb.Track) -> Trial | None:
    trial = track.trial
    return Trial(trial.found, trial.missed, trial.shared) if track.HasField("trial") else None


def _listed(kept: Iterable[Kept]) -> list[state_pb.Kept]:
    return [state_pb.Kept(frame=each.frame, memory=each.memory is not None, poor=each.poor) for each in kept]


def _read(parts: Mapping[str, bytes], id: int, listed: Iterable[state_pb.Kept]) -> tuple[Kept, ...]:
    return tuple(
        Kept(
            each.frame,
            _unpacked(parts[_memory(id, each.frame)]) if each.memory else None,
            _unpacked(parts[_pointer(id, each.frame)]),
            each.poor,
        )
        for each in listed
    )


def _unpacked(part: bytes) -> NDArray[np.float16]:
    return tensor_of(state_pb.Tensor.FromString(part))


def _memory(id: int, frame: int) -> str:
    return f"memory:{id}:{frame}"


def _pointer(id: int, frame: int) -> str:
    return f"pointer:{id}:{frame}"
