"""A frame of a session: its image, its prompts and the state before it -> what is found, the state after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker import mask_prompt
from service.worker.objects import points_of
from service.worker.run import Run
from service.worker.scenes import Seen
from service.worker.tracker.bank import Track, span_of
from service.worker.tracker.follow import Follower, Found, Prompted
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


def step(
    run: Run, follower: Follower, seen: Seen, frame: int, state: State, prompts: Prompts, max_objects: int
) -> Step:
    """Answer one frame.

    Raises ServiceError `invalid_argument` for what a prompt says, and for more than `max_objects` objects.
    """
    size = seen.scene.width, seen.scene.height
    if state.size not in ((0, 0), size):
        detail = f"image has {_pixels(size)} pixels; the session's frames have {_pixels(state.size)}."
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)
    state = _without(replace(state, size=size), prompts)
    ids, next_object = _ids(state, prompts)
    known = {track.id: track for track in state.tracks}
    tracks = [known.get(id, Track(id)) for id in sorted({*known, *ids})]
    if len(tracks) > max_objects:
        detail = f"prompts make {len(tracks)} objects of the session; the limit is {max_objects}."
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)
    with run.stage("prompts"):
        shown = {
            id: _prompted(f"prompts[{index}]", prompts[index], follower, seen) for id, index in ids.items()
        }
    found = follower.follow(run, seen, frame, span_of(state.frames_total), tracks, shown)
    state = replace(state, next_object=next_object, tracks=tuple(each.track for each in found))
    return Step(state, found, ids)


def _without(state: State, prompts: Prompts) -> State:
    """The state without the objects that are removed."""
    known = {track.id for track in state.tracks}
    gone: set[int] = set()
    for index, prompt in enumerate(prompts):
        if not prompt.HasField("remove"):
            continue
        if prompt.remove.object not in known - gone:
            detail = f"prompts[{index}].remove.object {prompt.remove.object}: no such object is followed."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        gone.add(prompt.remove.object)
    return replace(state, tracks=tuple(track for track in state.tracks if track.id not in gone))


def _ids(state: State, prompts: Prompts) -> tuple[dict[int, int], int]:
    """The prompts by the id of their object, and the lowest id that was never used."""
    shown = [(index, prompt) for index, prompt in enumerate(prompts) if not prompt.HasField("remove")]
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
