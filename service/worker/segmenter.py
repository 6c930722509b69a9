"""One request, computed: image bytes and prompts in, segments out. Knows graphs, not gRPC."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Manifest
from service.config import Limits
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import DEFAULT_MAX_SEGMENTS
from service.worker import exemplars
from service.worker.answer import Answer, GoOn, Kept
from service.worker.engines import Engine
from service.worker.image import Picture, decode
from service.worker.stages import Stages
from service.worker.tokenizer import clean

# Kinds of prompt that this worker can put to the graphs.
SERVED = ("text", "exemplar_box")
# What the text encoder hears when a concept is shown by exemplars alone.
VISUAL = "visual"
_TEXTS_KEPT = 256

Arrays = dict[str, NDArray[Any]]
# See `exemplars.as_tensors`.
ExemplarTensors = tuple[NDArray[np.float32], NDArray[np.int32]]
Tokenize = Callable[[str], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Scene:
    """What every prompt of a request shares."""

    picture: Picture
    # `concept_features`' outputs.
    features: Arrays


class Segmenter:
    """One artefact's graphs on one engine. Not thread-safe, as its engine is not.

    Prompts run one by one: a request of k prompts gives to the bit what k requests give.
    """

    def __init__(self, manifest: Manifest, engine: Engine, tokenize: Tokenize, limits: Limits) -> None:
        self._manifest = manifest
        self._engine = engine
        self._tokenize = tokenize
        self._limits = limits
        self._texts: OrderedDict[bytes, Arrays] = OrderedDict()
        self.prompts = tuple(kind for kind in SERVED if kind in manifest.prompts)

    def check(self, prompts: Iterable[pb.Prompt]) -> None:
        """Raise `unsupported_prompt` for the first prompt that the graphs cannot serve. Thread-safe.

        And `invalid_argument` for a text of which cleaning leaves nothing.
        """
        for index, prompt in enumerate(prompts):
            self._check_served(f"prompts[{index}]", prompt)

    def segment(self, request: pb.SegmentRequest, go_on: GoOn = lambda: None) -> pb.SegmentResponse:
        """Answer a request that `prompts.check` and `check` passed and that brings its image's bytes.

        `timings_ms` has the stages `decode`, each graph that ran, and `masks`. Raises ServiceError:
        `unsupported_image`, `payload_too_large`, `invalid_argument`; and what `go_on`
        raises.
        """
        run = _Run(self._engine, Stages(), go_on)
        with run.stages("decode"):
            picture = decode(request.image.data, self._limits, self._manifest.image_size)
        shown = [
            exemplars.as_tensors(f"prompts[{index}]", prompt.exemplars, picture.width, picture.height)
            for index, prompt in enumerate(request.prompts)
        ]
        embedding = run("image_encoder", pixels=picture.pixels[np.newaxis])["embedding"]
        scene = Scene(picture, run("concept_features", embedding=embedding))
        limit = self._limits.max_answer_bytes
        answer = Answer(self._manifest.variant, picture, request.options, limit, go_on)
        for index, prompt in enumerate(request.prompts):
            kept = self._find(run, scene, prompt, shown[index], request.options)
            with run.stages("masks"):
                answer.add(index, prompt.text, kept)
        answer.response.timings_ms.update(run.stages.ms)
        return answer.response

    def encode(self, data: bytes, go_on: GoOn = lambda: None) -> tuple[Picture, dict[str, float]]:
        """Decode and encode an image alone: the picture, and milliseconds by stage.

        Raises ServiceError: `unsupported_image`, `payload_too_large`; and what `go_on` raises.
        """
        run = _Run(self._engine, Stages(), go_on)
        with run.stages("decode"):
            picture = decode(data, self._limits, self._manifest.image_size)
        run("image_encoder", pixels=picture.pixels[np.newaxis])
        return picture, run.stages.ms

    def _check_served(self, path: str, prompt: pb.Prompt) -> None:
        if prompt.text and not clean(prompt.text):
            raise ServiceError(Kind.INVALID_ARGUMENT, f"{path}.text is blank.")
        for kind, present in (
            ("text", bool(prompt.text)),
            ("exemplar_box", any(each.HasField("box") for each in prompt.exemplars)),
            ("exemplar_point", any(each.HasField("point") for each in prompt.exemplars)),
            ("points", bool(prompt.points)),
            ("box", prompt.HasField("box")),
            ("mask", prompt.HasField("mask")),
        ):
            if present and kind not in self.prompts:
                able = ", ".join(self.prompts)
                detail = f"{path} is of the kind {kind}; {self._manifest.variant} can serve: {able}."
                raise ServiceError(Kind.UNSUPPORTED_PROMPT, detail)

    def _find(
        self,
        run: "_Run",
        scene: Scene,
        prompt: pb.Prompt,
        exemplar: ExemplarTensors,
        options: pb.SegmentOptions,
    ) -> Kept:
        decoded = run(
            "concept_decoder",
            features_x1=scene.features["features_x1"],
            **self._text(run, prompt.text or VISUAL),
            exemplar_boxes=exemplar[0],
            exemplar_labels=exemplar[1],
        )
        scores = _sigmoid(decoded["logits"][0]) * _sigmoid(decoded["presence"][0])
        best = _best(scores, self._threshold(prompt, options), options)
        size = np.array([scene.picture.width, scene.picture.height] * 2, np.float64)
        boxes_xyxy = np.clip(decoded["boxes"][0, best] * size, 0.0, size)
        wanted = options.mask_format != pb.MASK_FORMAT_NONE or options.return_logits
        logits = _mask_logits(run, scene, decoded, best) if wanted and best.size else None
        return Kept(scores[best], boxes_xyxy, logits)

    def _threshold(self, prompt: pb.Prompt, options: pb.SegmentOptions) -> float:
        if prompt.HasField("score_threshold"):
            return prompt.score_threshold
        if options.HasField("score_threshold"):
            return options.score_threshold
        return self._manifest.score_threshold

    def _text(self, run: "_Run", text: str) -> Arrays:
        tokens = self._tokenize(text)
        key = tokens.tobytes()
        if key not in self._texts:
            self._texts[key] = run("text_encoder", tokens=tokens)
            if len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]


class _Run:
    """One request's way through the graphs: each timed, and none begun for nobody."""

    def __init__(self, engine: Engine, stages: Stages, go_on: GoOn) -> None:
        self._engine = engine
        self.stages = stages
        self._go_on = go_on

    def __call__(self, graph: str, **inputs: NDArray[Any]) -> Arrays:
        self._go_on()
        with self.stages(graph):
            return self._engine.run(graph, inputs)


def _mask_logits(run: _Run, scene: Scene, decoded: Arrays, best: NDArray[np.intp]) -> NDArray[np.float32]:
    """[n, h, w] float32: the masks of the best queries, and of no others."""
    shared = {name: decoded[name] for name in ("encoded", "prompt", "prompt_valid")}
    levels = {name: scene.features[name] for name in ("features_x2", "features_x4")}
    queries = np.ascontiguousarray(decoded["queries"][:, best])
    logits: NDArray[np.float32] = run("concept_masks", **shared, **levels, queries=queries)["mask_logits"][0]
    return logits


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return values


def _best(scores: NDArray[np.float64], threshold: float, options: pb.SegmentOptions) -> NDArray[np.intp]:
    """Indices of the scores strictly above the threshold, the highest first, equal ones in order."""
    limit = options.max_segments if options.HasField("max_segments") else DEFAULT_MAX_SEGMENTS
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] > threshold][:limit]
