"""The instances of a text in the reference's clip, found and followed by the service's own loop on torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from model_store import tokenizer
from model_store.artifact import TOKENIZER, Manifest
from model_store.importing import constants_of, memory_of
from model_store.networks.student import Student
from service.config import WorkerSettings
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker import masks
from service.worker.concepts import Concepts
from service.worker.run import Run
from service.worker.scenes import Scene, Scenes
from service.worker.tokenizer import TextTokenizer
from service.worker.tracker.associate import Rules, distinct
from service.worker.tracker.follow import Follower
from service.worker.tracker.frame import Frames
from service.worker.tracker.instances import Detections, Instances
from service.worker.tracker.shown import answer_of
from service.worker.tracker.specks import without_specks
from service.worker.tracker.state import Origin, State
from service.worker.tracker.tracker import Detector
from tests.torch_engine import Arrays, TorchEngine

Mask = NDArray[np.uint8]
_SETTINGS = WorkerSettings()


class HalvesEngine(TorchEngine):
    """The reference keeps a video's pictures as half floats: what the trunk sees is rounded to these."""

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """As an engine's; keeps what the trunk saw, (1, 3, S, S), as `picture`."""
        if graph != "image_encoder":
            return super().run(graph, inputs)
        levels = torch.from_numpy(inputs["pixels"]).permute(0, 3, 1, 2)
        self.picture = ((levels.half() / 255 - 0.5) / 0.5).float()
        module = self._modules[graph]
        with torch.inference_mode():
            embedding = module.head(module.trunk.forward_features(self.picture))
        return {"embedding": embedding.numpy()}


@dataclass(frozen=True)
class Agreement:
    """How far the objects of an answer are from the reference's."""

    # Of the masks, sampled at every fourth pixel as the golden has them.
    smallest_iou: float
    # Largest difference in a mask's area, as a share of the reference's.
    largest_area_share: float
    # Largest difference of a box's place or side, as a share of the picture's.
    largest_box: float
    # Largest difference of a score.
    largest_score: float


class TextClip:
    """The clip, and the objects of one text in it."""

    def __init__(self, student: Student, reference: Path, text: str, rules: Rules, folder: Path) -> None:
        """Some files are written to `folder`."""
        self.engine = HalvesEngine(student, texts=True)
        # What the text found in the last frame, the best first.
        self.found: Detections
        self._reference, self._text, self._rules = reference, text, rules
        self._image_size = student.sizes.image_size
        manifest = _manifest(student)
        assert manifest.memory is not None
        self._follower = Follower(
            manifest.memory,
            manifest.constants,
            mask_size=manifest.mask_size,
            image_size=manifest.image_size,
            rounded=lambda values: values,
        )
        self._scenes = Scenes(_SETTINGS, manifest.image_size, 0, 0)
        concepts = Concepts(manifest, _tokenizer(folder, manifest))
        self._detector = Detector(concepts, self._scenes, manifest.mask_size)

    def follow(self, frames: int) -> Iterator[pb.FrameAnswer]:
        """The answers of the first frames, to the first of which the text comes. Ids begin at 0."""
        loop = Frames(self._follower, Instances(self._follower, self._find), _SETTINGS)
        state = State(Origin("", ""), next_object=0)
        for frame in range(frames):
            run = Run(self.engine, lambda: None)
            seen = self._scenes.see(self._scene(frame), "interactive_features", run)
            prompts = [] if frame else [pb.TrackPrompt(text=self._text)]
            step = loop.step(run, seen, frame, state, prompts, self._rules)
            state = step.state
            options, bytes = pb.TrackOptions(), _SETTINGS.max_answer_bytes
            yield answer_of(pb.Frame(frame=frame), seen.scene, step, options, bytes, run.go_on)

    def detected(self, width: int, height: int) -> tuple[list[float], list[Mask]]:
        """Scores and masks of what the text found in the last frame, without specks and duplicates."""
        rows = distinct(self.found.scores, self.found.logits > 0, self._rules)
        shown = [masks.upscale(without_specks(self.found.logits[row]), width, height) for row in rows]
        return [self.found.scores[row] for row in rows], shown

    def _find(self, run: Run, scene: Scene, texts: Sequence[str], threshold: float) -> list[Detections]:
        found = self._detector(run, scene, texts, threshold)
        (self.found,) = found
        return found

    def _scene(self, frame: int) -> Scene:
        # The reference resizes a video's pictures as Pillow does, and single pictures as torch does.
        side = self._image_size
        with Image.open(self._reference / "video" / f"{frame:05d}.jpg") as picture:
            pixels = np.array(picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
            return Scene("", *picture.size, pixels[np.newaxis])


def compare(
    golden: Mapping[str, NDArray[Any]], key: str, found: Mapping[int, Mask], scores: Sequence[float]
) -> Agreement:
    """Masks (H, W) by their objects' ids, and scores, beside those of the golden named `key` and more.

    Raises AssertionError where the ids are others.
    """
    ids: list[int] = golden[f"{key}_ids"].tolist()
    assert list(found) == ids, f"{key}: objects {list(found)} instead of {ids}"
    probs, bits, areas, boxes = (golden[f"{key}_{name}"] for name in ("probs", "bits_s4", "areas", "boxes"))
    ious, shares, distances = [], [], []
    for row, mask in enumerate(found.values()):
        ours = mask[::4, ::4] > 0
        theirs = np.unpackbits(bits.reshape(len(ids), -1)[row], count=ours.size).reshape(ours.shape) > 0
        ious.append(float((ours & theirs).sum() / (ours | theirs).sum()))
        shares.append(abs(int(mask.sum()) - int(areas[row])) / int(areas[row]))
        distances.append(float(np.abs(boxes[row] - _box(mask)).max()))
    return Agreement(min(ious), max(shares), max(distances), float(np.abs(probs - scores).max()))


def _box(mask: Mask) -> tuple[float, float, float, float]:
    """Place and sides, 0..1 of the picture's. The reference's end where the last pixel begins."""
    height, width = mask.shape
    x0, y0, x1, y1 = masks.bounds_xyxy(mask)
    return x0 / width, y0 / height, (x1 - 1 - x0) / width, (y1 - 1 - y0) / height


def masks_of(answer: pb.FrameAnswer) -> dict[int, Mask]:
    """An answer's masks (H, W), by their objects' ids."""
    return {
        found.object: coco.decode({"size": [found.mask.height, found.mask.width], "counts": found.mask.rle})
        for found in answer.objects
    }


def _manifest(student: Student) -> Manifest:
    sizes = student.sizes
    return Manifest(
        variant="",
        image_encoder="",
        text_encoder="mobileclip_s0",
        context_length=sizes.text.context,
        image_size=sizes.image_size,
        mask_size=sizes.mask_size,
        prompts=("text",),
        unserved={},
        score_threshold=0.5,
        parameters={},
        synthetic=True,
        licence="",
        source={},
        audit={},
        preprocessing={},
        graphs={},
        constants=constants_of(student),
        memory=memory_of(student),
    )


def _tokenizer(folder: Path, manifest: Manifest) -> TextTokenizer:
    file = folder / TOKENIZER
    file.write_text(tokenizer.build().to_str(), encoding="utf-8")
    return TextTokenizer(file, manifest.context_length, manifest.tokens)
