"""The model side of every peer: the graphs of a text request, run for batches of requests.

No serving framework is known here. Reading a picture, the tokens, the engine and the masks' encoding are the
service's own code, so that what differs between the peers and the service is how they serve.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store import artifact as artifacts
from model_store.artifact import Artifact
from service.config import ServeSettings
from service.worker import exemplars, masks
from service.worker.cores import on_cores
from service.worker.engines import Tensors, open_engine
from service.worker.image import decode
from service.worker.tokenizer import TextTokenizer

Arrays = dict[str, NDArray[Any]]

# Of every request, ours included: as many objects on every picture, so that every request is the same work.
SCORE_THRESHOLD = 0.0
MOST_SEGMENTS = 3

# What a text request runs.
GRAPHS = ("image_encoder", "concept_features", "text_encoder", "concept_decoder", "concept_masks")

# The inputs of one graph call: with more bytes, more rows save nothing. The service has the same bound.
_MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as the graphs take it."""

    text: str
    # Pixels, as displayed.
    width: int
    height: int
    # (S, S, 3) uint8 RGB: the whole image, stretched.
    pixels: NDArray[np.uint8]
    # [1, context length]
    tokens: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Found:
    """What the graphs say to a request: n instances, the highest score first."""

    text: str
    # Pixels, as displayed.
    width: int
    height: int
    # [n], 0..1
    scores: NDArray[np.float64]
    # [n, 4] xyxy in pixels of the image, clipped to it.
    boxes_xyxy: NDArray[np.float64]
    # [n, h, w]
    logits: NDArray[np.float32]


def open_artifact(settings: ServeSettings) -> Artifact:
    """The artefact of `default_variant` in the store. Raises ArtifactError."""
    return artifacts.load(settings.store / settings.default_variant)


class Reader:
    """JPEG files and texts, read. Any thread may use it."""

    def __init__(self, artifact: Artifact, settings: ServeSettings) -> None:
        manifest = artifact.manifest
        self._limits, self._image_size = settings, manifest.image_size
        self._tokenize = TextTokenizer(
            artifact.folder / artifacts.TOKENIZER, manifest.context_length, manifest.tokens
        )

    def prepare(self, jpeg: bytes, text: str) -> Prepared:
        """Decode, stretch, tokenize. Raises ServiceError for what is no picture."""
        picture = decode(jpeg, self._limits, self._image_size)
        return Prepared(text, picture.width, picture.height, picture.pixels, self._tokenize(text))


class Model:
    """The graphs of one artefact on an engine of its own, whose one thread has the cores of the settings.

    Any thread may use it.
    """

    def __init__(self, artifact: Artifact, settings: ServeSettings) -> None:
        """Raises EngineError."""
        self._reader = Reader(artifact, settings)
        self._cores = settings.engine_cores
        self._thread = ThreadPoolExecutor(1, "engine")
        self._none = exemplars.as_tensors("", (), 1, 1)
        # By their tokens.
        self._texts: dict[bytes, Arrays] = {}
        with on_cores(self._cores):
            self._engine = open_engine({name: artifact.path(name) for name in GRAPHS}, settings)

    def prepare(self, jpeg: bytes, text: str) -> Prepared:
        """As `Reader.prepare`."""
        return self._reader.prepare(jpeg, text)

    def compute(self, batch: Sequence[Prepared]) -> list[Found]:
        """Run the graphs for all requests at once, in the engine's thread."""
        return self._thread.submit(self._compute, batch).result()

    def predict(self, asked: Sequence[tuple[bytes, str]]) -> list[dict[str, Any]]:
        """Answer JPEG files and texts, all at once. Raises ServiceError for what is no picture."""
        return [finish(found) for found in self.compute([self.prepare(*each) for each in asked])]

    def _compute(self, batch: Sequence[Prepared]) -> list[Found]:
        with on_cores(self._cores):
            embedding = self._run("image_encoder", {"pixels": np.stack([each.pixels for each in batch])})
            seen = self._run("concept_features", embedding)
            texts = [self._text(each.tokens) for each in batch]
            decoded = self._run(
                "concept_decoder",
                {
                    "features_x1": seen["features_x1"],
                    **{name: np.concatenate([text[name] for text in texts]) for name in texts[0]},
                    **{name: np.repeat(each, len(batch), axis=0) for name, each in self._none.items()},
                },
            )
            scores = _sigmoid(decoded["logits"]) * _sigmoid(decoded["presence"])
            best = [_best(each) for each in scores]
            logits = self._masks(seen, decoded, best)
        return [
            Found(
                each.text,
                each.width,
                each.height,
                scores[row, kept],
                _in_pixels(decoded["boxes"][row, kept], each),
                logits[row][: len(kept)],
            )
            for row, (each, kept) in enumerate(zip(batch, best, strict=True))
        ]

    def _masks(self, seen: Arrays, decoded: Arrays, best: Sequence[NDArray[np.intp]]) -> NDArray[np.float32]:
        """[B, n, h, w]: the masks of the best queries; n is that of the request with the most."""
        most = max(map(len, best))
        queries = np.zeros((len(best), most, decoded["queries"].shape[2]), np.float32)
        for row, kept in enumerate(best):
            queries[row, : len(kept)] = decoded["queries"][row, kept]
        shared = {name: decoded[name] for name in ("encoded", "prompt", "prompt_valid")}
        levels = {name: seen[name] for name in ("features_x2", "features_x4")}
        logits: NDArray[np.float32] = self._run("concept_masks", {**shared, **levels, "queries": queries})[
            "mask_logits"
        ]
        return logits

    def _text(self, tokens: NDArray[np.int32]) -> Arrays:
        key = tokens.tobytes()
        if key not in self._texts:
            self._texts[key] = self._engine.run("text_encoder", {"tokens": tokens})
        return self._texts[key]

    def _run(self, graph: str, inputs: Tensors) -> Arrays:
        """The graph's outputs, of as many rows at once as the bound on bytes allows."""
        rows = len(next(iter(inputs.values())))
        at_once = max(1, _MOST_BYTES * rows // sum(each.nbytes for each in inputs.values()))
        parts = [
            self._engine.run(graph, {name: each[first : first + at_once] for name, each in inputs.items()})
            for first in range(0, rows, at_once)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def finish(found: Found) -> dict[str, Any]:
    """The answer as JSON takes it: masks of the picture's size, as COCO's RLE."""
    segments = []
    for score, box, logits in zip(found.scores, found.boxes_xyxy, found.logits, strict=True):
        mask = masks.upscale(logits, found.width, found.height)
        segments.append(
            {
                "score": float(score),
                "box": box.tolist(),
                "area": int(np.count_nonzero(mask)),
                "label": found.text,
                "mask": {"format": "rle", "size": list(mask.shape), "counts": masks.rle(mask)},
            }
        )
    return {"width": found.width, "height": found.height, "segments": segments}


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return values


def _best(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the scores above the threshold, the highest first."""
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] > SCORE_THRESHOLD][:MOST_SEGMENTS]


def _in_pixels(boxes: NDArray[np.float32], of: Prepared) -> NDArray[np.float64]:
    size = np.array([of.width, of.height] * 2, np.float64)
    return np.clip(boxes * size, 0.0, size)
