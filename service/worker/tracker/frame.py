"""A frame of a session: its image, its prompts and the state before it -> what is found, the state after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker import mask_prompt
from service.worker.objects import points_of
from service.worker.run import Run
from service.worker.scenes import Seen
from service.worker.tracker.associate import Rules
from service.worker.tracker.bank import Track, span_of
from service.worker.tracker.follow import Follower, Found, Prompted
from service.worker.tracker.instances import Instances, Row, cleaned, settled
from service.worker.tracker.state import State

Prompts = Sequence[pb.TrackPrompt]


@dataclass(frozen=True, slots=True)
class Step:
    """What a frame gives."""

    state: State
    # A row per track of the state.
    found: list[Found]
    # The prompt of this frame that each object had, by the object's id.
    prompts: Mapping[int, int]


class Frames:
    """Answers one frame after another. What it knows of a session is the state it is given."""

    def __init__(self, follower: Follower, instances: Instances, limits: WorkerSettings) -> None:
        self._follower, self._instances, self._limits = follower, instances, limits

    def step(self, run: Run, seen: Seen, frame: int, state: State, prompts: Prompts, rules: Rules) -> Step:
        """Answer one frame.

        Raises ServiceError `invalid_argument` for what a prompt says, and for more objects or texts than a
        session may have. Instances of texts beyond that are not begun.
        """
        size = seen.scene.width, seen.scene.height
        if state.size not in ((0, 0), size):
            detail = f"image has {_pixels(size)} pixels; the session's frames have {_pixels(state.size)}."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        state, texts = _texts(_without(replace(state, size=size), prompts), prompts)
        _bound("texts", len(state.concepts), self._limits.max_session_texts)
        ids, next_object = _ids(state, prompts)
        rows = self._look(run, seen, frame, state, prompts, ids)
        if state.concepts and (texts or frame % max(1, state.options.detect_every) == 0):
            span = span_of(state.frames_total)
            rows = self._instances.meet(run, seen, frame, span, rows, state.concepts, rules)
            rows, next_object = _named(rows[: self._limits.max_session_objects], next_object)
        rows = settled(rows, frame, rules)
        tracks, chosen = [row.track for row in rows], [row.chosen for row in rows]
        shown = {row.track.id for row in rows if row.prompted}
        # What a click says of an instance stays as exact as it is of any other object.
        instances = {track.id for track in tracks if track.label and track.id not in ids}
        found = self._follower.keep(run, seen, frame, tracks, chosen, shown, instances)
        state = replace(state, next_object=next_object, tracks=tuple(each.track for each in found))
        known = dict(ids) | {track.id: texts[track.label] for track in tracks if track.label in texts}
        return Step(state, found, known)

    def _look(
        self, run: Run, seen: Seen, frame: int, state: State, prompts: Prompts, ids: Mapping[int, int]
    ) -> list[Row]:
        known = {track.id: track for track in state.tracks}
        tracks = [
            known.get(id, Track(id, selects=state.options.memory_selection)) for id in sorted({*known, *ids})
        ]
        # Whoever shows an object confirms it.
        tracks = [replace(track, trial=None) if track.id in ids else track for track in tracks]
        _bound("objects", len(tracks), self._limits.max_session_objects)
        with run.stage("prompts"):
            shown = {
                id: _prompted(f"prompts[{index}]", prompts[index], self._follower, seen)
                for id, index in ids.items()
            }
        chosen = self._follower.look(run, seen, frame, span_of(state.frames_total), tracks, shown)
        return [
            cleaned(Row(track, each, track.id in shown)) for track, each in zip(tracks, chosen, strict=True)
        ]


def _bound(what: str, count: int, limit: int) -> None:
    if count > limit:
        detail = f"prompts make {count} {what} of the session; the limit is {limit}."
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)


def _texts(state: State, prompts: Prompts) -> tuple[State, dict[str, int]]:
    """The state with the texts that are new, and the prompt of each of these."""
    new: dict[str, int] = {}
    for index, prompt in enumerate(prompts):
        if not prompt.text:
            continue
        if prompt.text in state.concepts or prompt.text in new:
            detail = f"prompts[{index}].text {prompt.text[:100]!r} is followed already."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        new[prompt.text] = index
    return replace(state, concepts=(*state.concepts, *new)), new


def _named(rows: Sequence[Row], next_object: int) -> tuple[list[Row], int]:
    """The rows with ids for the tracks that have none, and the lowest id that was never used."""
    named = []
    for row in rows:
        if row.track.id < 0:
            row = replace(row, track=replace(row.track, id=next_object))
            next_object += 1
        named.append(row)
    return named, next_object


def _without(state: State, prompts: Prompts) -> State:
    """The state without what is removed."""
    for index, prompt in enumerate(prompts):
        if not prompt.HasField("remove"):
            continue
        path = f"prompts[{index}].remove"
        tracks, concepts = state.tracks, state.concepts
        if prompt.remove.WhichOneof("what") == "text":
            text = prompt.remove.text
            tracks = tuple(track for track in tracks if track.label != text)
            concepts = tuple(each for each in concepts if each != text)
            if concepts == state.concepts:
                detail = f"{path}.text {text[:100]!r}: no such text is followed."
                raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        else:
            tracks = tuple(track for track in tracks if track.id != prompt.remove.object)
            if tracks == state.tracks:
                detail = f"{path}.object {prompt.remove.object}: no such object is followed."
                raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        state = replace(state, tracks=tracks, concepts=concepts)
    return state


def _ids(state: State, prompts: Prompts) -> tuple[dict[int, int], int]:
    """The prompts by the id of their object, and the lowest id that was never used."""
    shown = [
        (index, prompt)
        for index, prompt in enumerate(prompts)
        if not (prompt.HasField("remove") or prompt.text)
    ]
    ids: dict[int, int] = {}
    for index, prompt in shown:
        if not prompt.HasField("object"):
            continue
        if prompt.object in ids:
            detail = f"prompts[{index}].object {prompt.object} has another prompt on this frame: send one."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        ids[prompt.object] = index
    next_object = max(state.next_object, *(id + 1 for id in ids), 0)
    for index, prompt in shown:
        if not prompt.HasField("object"):
            ids[next_object] = index
            next_object += 1
    return ids, next_object


def _prompted(path: str, prompt: pb.TrackPrompt, follower: Follower, seen: Seen) -> Prompted:
    width, height = seen.scene.width, seen.scene.height
    xy, labels = points_of(path, prompt, width, height)
    points = np.reshape(np.array(xy, np.float32), (-1, 2)), np.array(labels, np.int32)
    if not prompt.HasField("mask"):
        return Prompted(*points)
    if prompt.points or prompt.HasField("box"):
        return Prompted(*points, hint=mask_prompt.logits_of(f"{path}.mask", prompt.mask, follower.side))
    mask = mask_prompt.binary_of(f"{path}.mask", prompt.mask)
    return Prompted(*points, given=follower.given(mask, width, height))


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
