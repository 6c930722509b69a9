"""Concept prompts: a text and exemplars to every instance."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Manifest
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import max_segments
from service.worker.answer import Kept
from service.worker.exemplars import Exemplars
from service.worker.run import Arrays, Run
from service.worker.scenes import Seen

# What the text encoder hears when a concept is shown by exemplars alone.
VISUAL = "visual"
_TEXTS_KEPT = 256

Tokenize = Callable[[str], NDArray[np.int32]]


class Concepts:
    """The graphs of the concept side. Prompts run one by one."""

    def __init__(self, manifest: Manifest, tokenize: Tokenize) -> None:
        self._manifest = manifest
        self._tokenize = tokenize
        self._has_texts = "text" in manifest.prompts
        self._texts: OrderedDict[bytes, Arrays] = OrderedDict()

    def find(
        self,
        run: Run,
        seen: Seen,
        prompt: pb.Prompt,
        exemplars: Exemplars,
        options: pb.SegmentOptions,
    ) -> Kept:
        """Every instance in the scene that scores above the prompt's threshold.

        Args:
            seen: the scene, with `concept_features`.
        """
        features = seen.features
        decoded = run(
            "concept_decoder",
            features_x1=features["features_x1"],
            **self._text(run, prompt.text or VISUAL),
            **exemplars,
        )
        scores = _sigmoid(decoded["logits"][0]) * _sigmoid(decoded["presence"][0])
        best = _best(scores, self._threshold(prompt, options), options)
        size = np.array([seen.scene.width, seen.scene.height] * 2, np.float64)
        boxes_xyxy = np.clip(decoded["boxes"][0, best] * size, 0.0, size)
        wanted = options.mask_format != pb.MASK_FORMAT_NONE or options.return_logits
        logits = _mask_logits(run, features, decoded, best) if wanted and best.size else None
        return Kept(scores[best], boxes_xyxy, logits)

    def _threshold(self, prompt: pb.Prompt, options: pb.SegmentOptions) -> float:
        if prompt.HasField("score_threshold"):
            return prompt.score_threshold
        if options.HasField("score_threshold"):
            return options.score_threshold
        return self._manifest.score_threshold

    def _text(self, run: Run, text: str) -> Arrays:
        tokens = self._tokenize(text) if self._has_texts else None
        key = tokens.tobytes() if tokens is not None else b""
        if key not in self._texts:
            encode = run("text_encoder", tokens=tokens) if tokens is not None else run("visual_prompt")
            self._texts[key] = encode
            if len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]


def _mask_logits(run: Run, features: Arrays, decoded: Arrays, best: NDArray[np.intp]) -> NDArray[np.float32]:
    """[n, h, w] float32: the masks of the best queries, and of no others."""
    shared = {name: decoded[name] for name in ("encoded", "prompt", "prompt_valid")}
    levels = {name: features[name] for name in ("features_x2", "features_x4")}
    queries = np.ascontiguousarray(decoded["queries"][:, best])
    logits: NDArray[np.float32] = run("concept_masks", **shared, **levels, queries=queries)["mask_logits"][0]
    return logits


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return values


def _best(scores: NDArray[np.float64], threshold: float, options: pb.SegmentOptions) -> NDArray[np.intp]:
    """Indices of the scores strictly above the threshold, the highest first, equal ones in order."""
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] > threshold][: max_segments(options)]
