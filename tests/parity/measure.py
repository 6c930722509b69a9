"""An artefact's graphs, run through the worker's Engine, beside the reference outputs."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from model_store.artifact import TOKENIZER, Artifact
from service.config import Limits, WorkerSettings
from service.worker.engines import Engine, open_engine
from service.worker.exemplars import PADDING, Exemplars
from service.worker.image import decode
from service.worker.tokenizer import TextTokenizer
from tests.parity.goldens import MASKS, Array, Difference, Subject, compare, golden
from tests.parity.objects import objects

# The padding that stands for no exemplars.
NO_EXEMPLARS: Exemplars = {
    "exemplar_points": np.zeros((1, 1, 2), np.float32),
    "exemplar_point_labels": np.full((1, 1), PADDING, np.int32),
    "exemplar_boxes": np.zeros((1, 1, 4), np.float32),
    "exemplar_box_labels": np.full((1, 1), PADDING, np.int32),
}
# The reference's case of exemplar points, which its list of cases does not have.
_POINTS_CASE = "vis_points"
_POINTS = {
    "exemplar_points": np.array([[[0.3, 0.5], [0.6, 0.2]]], np.float32),
    "exemplar_point_labels": np.array([[1, 0]], np.int32),
}


def measure(
    subject: Subject, loaded: Artifact, engine_name: str, precision: str, reference: Path
) -> list[Difference]:
    """Every golden of the subject, compared with what the engine gives at that precision."""
    with opened(loaded, engine_name, precision) as (engine, tokenize):
        found = [each for name in subject.texts for each in _texts(engine, tokenize, reference, name)]
        for picture in {**({"truck": ""} if subject.image else {}), **subject.whole}:
            file = (reference / "pictures" / f"{picture}.jpg").read_bytes()
            pixels = decode(file, Limits(), loaded.manifest.image_size).pixels
            embedding = engine.run("image_encoder", {"pixels": pixels[np.newaxis]})
            if subject.image and picture == "truck":
                found += _image(engine, golden(reference, subject.image), pixels, embedding["embedding"])
            if picture in subject.whole:
                whole = golden(reference, subject.whole[picture])
                features = engine.run("concept_features", embedding)
                found += _concepts(engine, tokenize, picture, whole, features)
                found += objects(engine, loaded.manifest, picture, whole, embedding["embedding"])
    return found


@contextmanager
def opened(loaded: Artifact, engine_name: str, precision: str) -> Iterator[tuple[Engine, TextTokenizer]]:
    """The artefact's graphs on the worker's engine, and its tokenizer."""
    manifest = loaded.manifest
    settings = WorkerSettings(engine=engine_name, precision=precision)
    engine = open_engine({graph: loaded.path(graph) for graph in manifest.graphs}, settings)
    try:
        yield engine, TextTokenizer(loaded.folder / TOKENIZER, manifest.context_length, manifest.tokens)
    finally:
        engine.close()


def _texts(engine: Engine, tokenize: TextTokenizer, reference: Path, name: str) -> Iterator[Difference]:
    texts = golden(reference, name)
    prompts: list[str] = json.loads(str(texts["__meta__"]))["prompts"]
    tokens = np.concatenate([tokenize(prompt) for prompt in prompts])
    where = ("-", name, "text_encoder")
    yield compare(where, "tokens", tokens, texts["tokens"], 0.0)
    answer = engine.run("text_encoder", {"tokens": tokens})
    yield compare(where, "text_valid", ~answer["text_valid"], texts["mask"], 0.0)
    step = int(texts["step"]) if "step" in texts else 1
    yield compare(where, "text_features", answer["text_features"][..., ::step], texts["features"])


def _image(
    engine: Engine, image: Mapping[str, Array], pixels: Array, embedding: Array
) -> Iterator[Difference]:
    where = ("truck", "-", "image_encoder")
    normalised = ((pixels.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)
    yield compare(where, "pixels (its input)", normalised[:, ::21, ::21], image["pre_sub"], 1e-6)
    yield compare(where, "embedding", embedding[0, ::64], image["head_sub"])
    features = engine.run("concept_features", {"embedding": embedding})
    for output, level, step in (("features_x4", 0, 8), ("features_x2", 1, 4), ("features_x1", 2, 2)):
        ours = features[output][0, ::16, ::step, ::step]
        yield compare(("truck", "-", "concept_features"), output, ours, image[f"sam3_fpn{level}"])
    # The two finer maps come projected; the goldens hold them before that.
    coarse = engine.run("interactive_features", {"embedding": embedding})["interactive_x1"]
    where = ("truck", "-", "interactive_features")
    yield compare(where, "interactive_x1", coarse[0, ::16, ::2, ::2], image["sam2_fpn2"])


def _concepts(
    engine: Engine,
    tokenize: TextTokenizer,
    picture: str,
    whole: Mapping[str, Array],
    features: Mapping[str, Array],
) -> Iterator[Difference]:
    cases = json.loads(str(whole["__meta__"]))["cases"]
    if f"{_POINTS_CASE}__logits" in whole:
        cases.append([_POINTS_CASE, "visual", None, None])
    for case, text, boxes, positive in cases:
        tokens = tokenize(text)
        prompt = engine.run("text_encoder", {"tokens": tokens})
        shown = _exemplars(boxes, positive) | (_POINTS if case == _POINTS_CASE else {})
        decoded = engine.run("concept_decoder", {"features_x1": features["features_x1"], **prompt, **shown})
        yield from _decoder(picture, case, whole, decoded, tokens.shape[1])
        yield from _masks(engine, picture, case, whole, decoded, features)


def _exemplars(boxes: list[list[float]] | None, positive: list[bool] | None) -> Exemplars:
    """Exemplars as the graph takes them (xyxy, 0..1) from the goldens' (centre and size)."""
    if not boxes:
        return NO_EXEMPLARS
    centre_size = np.asarray(boxes, np.float32)
    half = centre_size[:, 2:] / 2
    corners = np.concatenate([centre_size[:, :2] - half, centre_size[:, :2] + half], axis=1)
    labels = np.asarray(positive, np.int32)[None]
    return NO_EXEMPLARS | {"exemplar_boxes": corners[None], "exemplar_box_labels": labels}


def _decoder(
    picture: str, case: str, whole: Mapping[str, Array], decoded: Mapping[str, Array], text_length: int
) -> Iterator[Difference]:
    where = (picture, case, "concept_decoder")
    x0, y0, x1, y1 = np.moveaxis(decoded["boxes"][0], -1, 0)
    boxes = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=-1)
    encoded = decoded["encoded"][0].reshape(256, -1).T
    yield compare(where, "logits", decoded["logits"][0], whole[f"{case}__logits"])
    yield compare(where, "presence", decoded["presence"][0], whole[f"{case}__presence"])
    yield compare(where, "boxes", boxes, whole[f"{case}__boxes"])
    yield compare(where, "queries", decoded["queries"][0, ::8], whole[f"{case}__queries_sub"])
    yield compare(where, "encoded", encoded[::97], whole[f"{case}__enc_sub"])
    if f"{case}__geo" in whole:
        geometry = decoded["prompt"][0, text_length:][decoded["prompt_valid"][0, text_length:]]
        yield compare(where, "prompt", geometry, whole[f"{case}__geo"])


def _masks(
    engine: Engine,
    picture: str,
    case: str,
    whole: Mapping[str, Array],
    decoded: Mapping[str, Array],
    features: Mapping[str, Array],
) -> Iterator[Difference]:
    """All 200 queries' masks, so that no choice of queries can hide a difference."""
    masks = engine.run(
        "concept_masks",
        {name: decoded[name] for name in ("encoded", "prompt", "prompt_valid", "queries")}
        | {name: features[name] for name in ("features_x2", "features_x4")},
    )["mask_logits"][0]
    where = (picture, case, "concept_masks")
    top = whole[f"{case}__top"]
    step = 288 // whole[f"{case}__top_masks"].shape[-1]
    yield compare(where, "mask_logits", masks[top][:, ::step, ::step], whole[f"{case}__top_masks"], MASKS)
    yield compare(where, "mean of each mask", masks.mean((1, 2)), whole[f"{case}__mask_mean"], MASKS)
