"""What stands behind the peers is what stands behind the service: the same graphs, the same answers.

The peers' own environments are not needed: `python -m tests.load.peers` makes them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from model_store import artifact, registry
from service.config import ServeSettings
from service.gateway.translate import segment_answer
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker.engines import open_engine
from service.worker.segmenter import Segmenter
from service.worker.tokenizer import TextTokenizer
from tests.load.peers.agreement import difference, first_difference
from tests.load.peers.model import GRAPHS, MOST_SEGMENTS, SCORE_THRESHOLD, Model, open_artifact

_ASKED = (("street.jpg", "car"), ("pets.jpg", "animal"), ("street.jpg", "tree"))
_SAMPLES = Path(artifact.__file__).parent / "samples"


@pytest.fixture(scope="module")
def settings() -> ServeSettings:
    """Of the embedded student, in full precision, so that batches change nothing that can be seen."""
    return ServeSettings(
        store=artifact.PACKAGED,
        default_variant=registry.EMBEDDED,
        engine="openvino",
        precision="f32",
        threads=1,
    )


@pytest.fixture(scope="module")
def ours(settings: ServeSettings) -> list[list[dict[str, Any]]]:
    """What the service finds, as HTTP tells it."""
    served = open_artifact(settings)
    manifest = served.manifest
    engine = open_engine({name: served.path(name) for name in GRAPHS}, settings)
    tokenize = TextTokenizer(served.folder / artifact.TOKENIZER, manifest.context_length, manifest.tokens)
    segmenter = Segmenter(manifest, engine, tokenize, settings)
    options = pb.SegmentOptions(score_threshold=SCORE_THRESHOLD, max_segments=MOST_SEGMENTS)
    found = []
    for name, text in _ASKED:
        image = pb.Image(data=(_SAMPLES / name).read_bytes())
        answer = segmenter.segment(
            pb.SegmentRequest(image=image, prompts=[pb.Prompt(text=text)], options=options)
        )
        found.append(
            json.loads(segment_answer(answer).model_dump_json(exclude_none=True))["results"][0]["segments"]
        )
    engine.close()
    return found


@pytest.fixture(scope="module")
def model(settings: ServeSettings) -> Model:
    return Model(open_artifact(settings), settings)


def test_a_peers_model_finds_what_the_service_finds(model: Model, ours: list[list[dict[str, Any]]]) -> None:
    asked = [((_SAMPLES / name).read_bytes(), text) for name, text in _ASKED]
    (alone,) = model.predict(asked[:1])
    assert (alone["width"], alone["height"]) == (384, 384)
    assert alone["segments"] == ours[0], "to the last digit where nothing else is in the batch"
    together = model.predict(asked)
    assert [len(each["segments"]) for each in together] == [MOST_SEGMENTS] * len(asked)
    assert first_difference([each["segments"] for each in together], ours) == ""
    for answer, (_, text) in zip(together, _ASKED, strict=True):
        assert {segment["label"] for segment in answer["segments"]} == {text}


def test_answers_that_differ_are_told_apart(ours: list[list[dict[str, Any]]]) -> None:
    street, pets, _ = ours
    assert difference(street, street) == ""
    assert "2 segments, not 3" in difference(street[:2], street)
    assert "the masks of segment 0" in difference(pets, street)
    assert first_difference([street, street], [street, pets]).startswith("answer 1: ")
