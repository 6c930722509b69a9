"""Concept prompts: a text and exemplars to every instance."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Manifest
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import max_segments
from service.worker.answer import Kept
from service.worker.cache import Cache
from service.worker.exemplars import Exemplars
from service.worker.merge import joined
from service.worker.run import Arrays, Run
from service.worker.scenes import Seen, nbytes_of

# What the text encoder hears when a concept is shown by exemplars alone.
VISUAL = "visual"
# Bytes of texts' features that are kept: of a full-size student's, hundreds.
_TEXT_BYTES = 32 << 20
# Prompts that are decoded at once: each brings 5 MB of features to a full-size student.
_AT_ONCE = 8

# A prompt of a text or exemplars, and the latter as the graph takes them.
Prompts = Sequence[tuple[pb.Prompt, Exemplars]]
Tokenize = Callable[[str], NDArray[np.int32]]


class Concepts:
    """The graphs of the concept side. All concepts of a request are decoded as one batch.

    Any thread may use it.
    """

    def __init__(self, manifest: Manifest, tokenize: Tokenize) -> None:
        self._manifest = manifest
        self._tokenize = tokenize
        self._has_texts = "text" in manifest.prompts
        self.texts = Cache[Arrays](_TEXT_BYTES, nbytes_of)

    def find(self, run: Run, seen: Seen, prompts: Prompts, options: pb.SegmentOptions) -> list[Kept]:
        """For each prompt, every instance in the scene that scores above its threshold.

        Args:
            seen: the scene, with `concept_features`.
        """
        texts = [self._text(run, prompt.text, seen.scene.owner) for prompt, _ in prompts]
        rows = [{**text, **exemplars} for text, (_, exemplars) in zip(texts, prompts, strict=True)]
        inputs = {name: joined([row[name] for row in rows]) for name in rows[0]}
        inputs["features_x1"] = joined([seen.features["features_x1"]] * len(prompts))
        decoded = run.rows("concept_decoder", _AT_ONCE, inputs)
        return [
            self._kept(
                run, seen, prompt, {name: each[row : row + 1] for name, each in decoded.items()}, options
            )
            for row, (prompt, _) in enumerate(prompts)
        ]

    def _kept(
        self, run: Run, seen: Seen, prompt: pb.Prompt, decoded: Arrays, options: pb.SegmentOptions
    ) -> Kept:
        scores = _sigmoid(decoded["logits"][0]) * _sigmoid(decoded["presence"][0])
        best = _best(scores, self._threshold(prompt, options), options)
        size = np.array([seen.scene.width, seen.scene.height] * 2, np.float64)
        boxes_xyxy = np.clip(decoded["boxes"][0, best] * size, 0.0, size)
        wanted = options.mask_format != pb.MASK_FORMAT_NONE or options.return_logits
        logits = _mask_logits(run, seen.features, decoded, best) if wanted and best.size else None
        return Kept(scores[best], boxes_xyxy, logits)

    def _threshold(self, prompt: pb.Prompt, options: pb.SegmentOptions) -> float:
        if prompt.HasField("score_threshold"):
            return prompt.score_threshold
        if options.HasField("score_threshold"):
            return options.score_threshold
        return self._manifest.score_threshold

    def _text(self, run: Run, text: str, owner: str) -> Arrays:
        """The features of a text, which are kept for its owner; of no text, those of exemplars alone."""
        if not self._has_texts:
            return self.texts.get_or_make(b"", lambda: run("visual_prompt"))
        tokens = self._tokenize(text or VISUAL)
        key = (owner if text else "", tokens.tobytes())
        return self.texts.get_or_make(key, lambda: run("text_encoder", tokens=tokens))


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
