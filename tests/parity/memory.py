"""A student with a video memory and the reference's weights, and objects followed through its clip."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store import registry
from model_store.importing import constants_of, memory_of
from model_store.networks.keys import sources
from model_store.networks.objects import NO_POINT, POSITIVE
from model_store.networks.sizes import sizes_of
from model_store.networks.student import Abilities, Student, blank, build, shapes
from model_store.registry import MemoryKind
from service.config import Limits
from service.worker.image import decode
from service.worker.run import Run
from service.worker.scenes import Scene, Seen
from service.worker.tracker.bank import Kept, Rounded, Track, span_of
from service.worker.tracker.follow import Follower, Found, Prompted
from tests.released import weight_recipe
from tests.torch_engine import TorchEngine


def remembering(reference: Path, variant: str, kind: MemoryKind, *, concepts: bool = False) -> Student:
    """The variant with that memory; it finds concepts only if it is told to."""
    recipe = weight_recipe(reference)
    sizes = sizes_of(registry.find(variant))
    abilities = Abilities(concepts=concepts, memory=kind)
    wanted = shapes(blank(sizes, abilities))
    weights: dict[str, Tensor] = {}
    for name, source in sources(wanted).items():
        first, *rest = wanted[name]
        if source.third is None:
            weights[name] = torch.from_numpy(recipe.fill(source.key, (first, *rest)))
        else:
            whole = torch.from_numpy(recipe.fill(source.key, (3 * first, *rest)))
            weights[name] = whole.chunk(3)[source.third].clone()
    return build(sizes, weights, abilities)


class Clip:
    """The reference's clip, its objects followed by the service's own loop on torch."""

    def __init__(
        self, student: Student, reference: Path, frames_total: int, rounded: Rounded = lambda values: values
    ) -> None:
        self.engine = TorchEngine(student)
        self._student, self._reference = student, reference
        self._span = span_of(frames_total)
        memory = memory_of(student)
        assert memory is not None
        sizes = student.sizes
        self.follower = Follower(
            memory,
            constants_of(student),
            mask_size=sizes.mask_size,
            image_size=sizes.image_size,
            rounded=rounded,
        )

    def follow(self, frames: int, prompts: Mapping[int, Prompted]) -> Iterator[list[Found]]:
        """What is found of the objects that the prompts of frame 0 show, frame by frame."""
        tracks = [Track(id) for id in prompts]
        for frame in range(frames):
            run = Run(self.engine, lambda: None)
            seen = self._see(run, frame)
            shown = {} if frame else prompts
            chosen = self.follower.look(run, seen, frame, self._span, tracks, shown)
            found = self.follower.keep(run, seen, frame, tracks, chosen, shown)
            tracks = [each.track for each in found]
            yield found

    def _see(self, run: Run, frame: int) -> Seen:
        file = (self._reference / "video" / f"{frame:05d}.jpg").read_bytes()
        picture = decode(file, Limits(), self._student.sizes.image_size)
        embedding = run("image_encoder", pixels=picture.pixels[None])["embedding"]
        scene = Scene("", picture.width, picture.height, None, embedding)
        return Seen(scene, run("interactive_features", embedding=embedding))


def memory_as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Memories as the reference keeps them; pointers stay as they are."""
    if values.ndim == 1:
        return values
    rounded: NDArray[np.float32] = torch.from_numpy(np.ascontiguousarray(values)).bfloat16().float().numpy()
    return rounded


def click(x: float, y: float) -> Prompted:
    """A click on the object, in 0..1, and the token that ends it."""
    points = np.array([(x, y), (0, 0)], np.float32)
    return Prompted(points, np.array([POSITIVE, NO_POINT], np.int32))


def latest(found: Found) -> Kept:
    """What was kept of the last frame."""
    track = found.track
    return max((*track.prompted, *track.followed), key=lambda kept: kept.frame)


def golden(reference: Path, file: str) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of a golden."""
    with np.load(reference / "goldens" / f"{file}.npz") as archive:
        return {name: archive[name] for name in archive.files}
