"""An artefact's graphs, run through the worker's Engine, beside the reference outputs.

`python -m tests.parity.measure FOLDER...` prints the table of docs/parity.md for these artefacts.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import TOKENIZER, Artifact, Manifest
from service.config import Limits, WorkerSettings
from service.worker.engines import Engine, open_engine
from service.worker.image import decode
from service.worker.tokenizer import TextTokenizer

Array = NDArray[Any]
# Largest absolute differences allowed in f32 (students.md, section 13).
FEATURES = 1e-4
MASKS = 5e-4
# (goldens of the whole student, goldens of its image encoder) by variant and picture.
GOLDENS = {
    ("es-ev-s-mc-s0", "truck"): ("full_ev_s_s0_truck", "enc_ev_s"),
    ("es-ev-m-mc-s0", "truck"): ("full_ev_m_s0_truck", "enc_ev_m"),
    ("es-ev-m-mc-s0", "groceries"): ("full_ev_m_s0_groceries", None),
}
TEXTS = "text_s0_ctx16"
# The one padding box that stands for no exemplars.
NO_EXEMPLARS = {
    "exemplar_boxes": np.zeros((1, 1, 4), np.float32),
    "exemplar_labels": np.full((1, 1), -10, np.int32),
}


@dataclass(frozen=True)
class Difference:
    """How far one output of one graph is from the reference."""

    picture: str
    case: str
    graph: str
    output: str
    largest: float
    bound: float
    # Largest absolute value of the reference, for scale.
    scale: float


def measure(loaded: Artifact, engine_name: str, precision: str, reference: Path) -> list[Difference]:
    """Every golden of the artefact's variant, compared with what the engine gives at that precision."""
    with opened(loaded, engine_name, precision) as (engine, tokenize):
        return list(_differences(engine, tokenize, loaded.manifest, reference))


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


def _differences(
    engine: Engine, tokenize: TextTokenizer, manifest: Manifest, reference: Path
) -> Iterator[Difference]:
    yield from _texts(engine, tokenize, reference)
    for (name, picture), (full, encoder) in GOLDENS.items():
        if name != manifest.variant:
            continue
        file = (reference / "pictures" / f"{picture}.jpg").read_bytes()
        pixels = decode(file, Limits(), manifest.image_size).pixels
        embedding = engine.run("image_encoder", {"pixels": pixels[np.newaxis]})
        features = engine.run("concept_features", embedding)
        if encoder:
            golden = np.load(reference / "goldens" / f"{encoder}.npz")
            yield from _image(picture, golden, pixels, embedding["embedding"], features)
        yield from _concepts(
            engine, tokenize, picture, np.load(reference / "goldens" / f"{full}.npz"), features
        )


def _compare(
    where: tuple[str, str, str], output: str, ours: Array, theirs: Array, bound: float = FEATURES
) -> Difference:
    assert ours.shape == theirs.shape, (where, output, ours.shape, theirs.shape)
    largest = float(np.abs(ours.astype(np.float64) - theirs).max())
    return Difference(*where, output, largest, bound, float(np.abs(theirs).max()))


def _texts(engine: Engine, tokenize: TextTokenizer, reference: Path) -> Iterator[Difference]:
    golden = np.load(reference / "goldens" / f"{TEXTS}.npz")
    prompts: list[str] = json.loads(str(golden["__meta__"]))["prompts"]
    tokens = np.concatenate([tokenize(prompt) for prompt in prompts])
    where = ("-", "6 texts", "text_encoder")
    yield _compare(where, "tokens", tokens, golden["tokens"], 0.0)
    answer = engine.run("text_encoder", {"tokens": tokens})
    yield _compare(where, "text_valid", ~answer["text_valid"], golden["mask"], 0.0)
    yield _compare(where, "text_features", answer["text_features"], golden["features"])


def _image(
    picture: str,
    golden: Mapping[str, Array],
    pixels: Array,
    embedding: Array,
    features: Mapping[str, Array],
) -> Iterator[Difference]:
    where = (picture, "-", "image_encoder")
    normalised = ((pixels.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)
    yield _compare(where, "pixels (its input)", normalised[:, ::21, ::21], golden["pre_sub"], 1e-6)
    yield _compare(where, "embedding", embedding[0, ::64], golden["head_sub"])
    for output, level, step in (("features_x4", 0, 8), ("features_x2", 1, 4), ("features_x1", 2, 2)):
        ours = features[output][0, ::16, ::step, ::step]
        yield _compare((picture, "-", "concept_features"), output, ours, golden[f"sam3_fpn{level}"])


def _concepts(
    engine: Engine,
    tokenize: TextTokenizer,
    picture: str,
    golden: Mapping[str, Array],
    features: Mapping[str, Array],
) -> Iterator[Difference]:
    meta = json.loads(str(golden["__meta__"]))
    for case, text, boxes, positive in meta["cases"]:
        tokens = tokenize(text)
        prompt = engine.run("text_encoder", {"tokens": tokens})
        decoded = engine.run(
            "concept_decoder",
            {"features_x1": features["features_x1"], **prompt, **_exemplars(boxes, positive)},
        )
        yield from _decoder(picture, case, golden, decoded, tokens.shape[1])
        yield from _masks(engine, picture, case, golden, decoded, features)


def _exemplars(boxes: list[list[float]] | None, positive: list[bool] | None) -> dict[str, Array]:
    """Exemplars as the graph takes them (xyxy, 0..1) from the goldens' (centre and size); a pad for none."""
    if not boxes:
        return NO_EXEMPLARS
    centre_size = np.asarray(boxes, np.float32)
    half = centre_size[:, 2:] / 2
    corners = np.concatenate([centre_size[:, :2] - half, centre_size[:, :2] + half], axis=1)
    return {"exemplar_boxes": corners[None], "exemplar_labels": np.asarray(positive, np.int32)[None]}


def _decoder(
    picture: str, case: str, golden: Mapping[str, Array], decoded: Mapping[str, Array], text_length: int
) -> Iterator[Difference]:
    where = (picture, case, "concept_decoder")
    x0, y0, x1, y1 = np.moveaxis(decoded["boxes"][0], -1, 0)
    boxes = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=-1)
    geometry = decoded["prompt"][0, text_length:][decoded["prompt_valid"][0, text_length:]]
    encoded = decoded["encoded"][0].reshape(256, -1).T
    yield _compare(where, "logits", decoded["logits"][0], golden[f"{case}__logits"])
    yield _compare(where, "presence", decoded["presence"][0], golden[f"{case}__presence"])
    yield _compare(where, "boxes", boxes, golden[f"{case}__boxes"])
    yield _compare(where, "queries", decoded["queries"][0, ::8], golden[f"{case}__queries_sub"])
    yield _compare(where, "encoded", encoded[::97], golden[f"{case}__enc_sub"])
    yield _compare(where, "prompt", geometry, golden[f"{case}__geo"])


def _masks(
    engine: Engine,
    picture: str,
    case: str,
    golden: Mapping[str, Array],
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
    top = golden[f"{case}__top"]
    yield _compare(where, "mask_logits", masks[top][:, ::3, ::3], golden[f"{case}__top_masks"], MASKS)
    yield _compare(where, "mean of each mask", masks.mean((1, 2)), golden[f"{case}__mask_mean"], MASKS)
