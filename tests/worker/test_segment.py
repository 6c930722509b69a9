"""What Segment answers, over a real channel, with small graphs."""

import threading

import numpy as np
import pytest
from pycocotools import mask as coco

from model_store.artifact import TOKENIZER, Artifact
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker.segmenter import Segmenter
from service.worker.tokenizer import TextTokenizer
from tests.worker.conftest import FakeEngine, Start, asking, run

DOG = pb.Prompt(text="dog")
ALL = 0.01


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(value))))


def test_segments_come_by_score_with_box_label_area_and_mask(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            answer = await client.segment(asking(DOG, score_threshold=ALL))
        assert (answer.variant, answer.image.width, answer.image.height) == ("tiny", 80, 40)
        segments = answer.results[0].segments
        assert [segment.score for segment in segments] == [_sigmoid(x) for x in (3, 2, 1, 0, -1, -2)]
        assert {segment.label for segment in segments} == {"dog"}
        for query, segment in zip((1, 5, 3, 2, 4, 0), segments, strict=True):
            mask = coco.decode({"size": [40, 80], "counts": segment.mask.rle})
            assert mask.sum() == segment.area == query * 40 // 8 * 80
            assert mask[: query * 5].all()
        last = segments[-1].box
        assert (last.x0, last.y0, last.x1, last.y1) == (0, 0, 40, 20)
        second = segments[1].box
        assert (second.x1, second.y1) == (80, 40), "boxes are clipped to the image"

    run(scenario())


def test_the_threshold_is_strict_and_a_prompts_own_comes_first(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            counts = [
                len((await client.segment(request)).results[0].segments)
                for request in (
                    asking(DOG),  # the manifest's 0.5: the query of exactly 0.5 is out
                    asking(DOG, score_threshold=float(np.nextafter(np.float32(0.5), np.float32(0)))),
                    asking(pb.Prompt(text="dog", score_threshold=0.9), score_threshold=ALL),
                    asking(DOG, score_threshold=1.0),
                )
            ]
        assert counts == [3, 4, 1, 0]

    run(scenario())


def test_masks_are_computed_for_kept_queries_alone(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            await client.segment(asking(DOG, score_threshold=1.0))
            assert "concept_masks" not in client.engine.calls
            await client.segment(asking(DOG, mask_format=pb.MASK_FORMAT_NONE))
            assert "concept_masks" not in client.engine.calls
            answer = await client.segment(asking(DOG, max_segments=2))
            assert len(answer.results[0].segments) == 2
            assert client.engine.inputs["concept_masks"]["queries"].ravel().tolist() == [1, 5]

    run(scenario())


def test_without_masks_a_segment_has_no_mask_and_no_area(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            answer = await client.segment(asking(DOG, mask_format=pb.MASK_FORMAT_NONE))
        assert len(answer.results[0].segments) == 3
        assert not any(each.HasField("mask") or each.area for each in answer.results[0].segments)

    run(scenario())


def test_logits_come_back_as_half_floats(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            answer = await client.segment(
                asking(DOG, mask_format=pb.MASK_FORMAT_NONE, return_logits=True, max_segments=1)
            )
        logits = answer.results[0].segments[0].logits
        values = np.frombuffer(logits.logits, "<f2").reshape(logits.height, logits.width)
        assert np.array_equal(values[:, 0], 1 - np.arange(8) - 0.5)

    run(scenario())


def test_many_prompts_share_the_image_and_answer_as_each_would_alone(start: Start) -> None:
    prompts = [DOG, pb.Prompt(text="a red car"), DOG, pb.Prompt(text=" DOG ")]

    async def scenario() -> None:
        async with start() as client:
            together = await client.segment(asking(*prompts))
            assert client.engine.calls.count("image_encoder") == 1
            assert client.engine.calls.count("concept_features") == 1
            assert client.engine.calls.count("text_encoder") == 2, "equal texts are encoded once"
            assert client.engine.calls.count("concept_decoder") == 1, "all are one batch"
            assert [result.prompt for result in together.results] == [0, 1, 2, 3]
            for result, prompt in zip(together.results, prompts, strict=True):
                (alone,) = (await client.segment(asking(prompt))).results
                assert alone.segments == result.segments
        assert together.results[0].segments != together.results[1].segments

    run(scenario())


def test_exemplars_reach_the_decoder_in_its_frame(start: Start) -> None:
    inside = pb.Exemplar(box=pb.Box(x0=8, y0=10, x1=40, y1=20))
    over_the_edge = pb.Exemplar(box=pb.Box(x0=-50, y0=30, x1=40, y1=1e9), positive=False)

    async def scenario() -> None:
        async with start() as client:
            await client.segment(asking(pb.Prompt(text="dog", exemplars=[inside, over_the_edge])))
            given = client.engine.inputs["concept_decoder"]
            expected = np.array([[[0.1, 0.25, 0.5, 0.5], [0, 0.75, 0.5, 1]]], np.float32)
            assert np.array_equal(given["exemplar_boxes"], expected)
            assert given["exemplar_box_labels"].tolist() == [[1, 0]]
            assert given["exemplar_point_labels"].tolist() == [[-10]]
            with_text = given["text_features"]
            answer = await client.segment(asking(pb.Prompt(exemplars=[inside])))
            assert answer.results[0].segments[0].label == ""
            visual = client.engine.inputs["concept_decoder"]["text_features"]
            assert not np.array_equal(visual, with_text)
            await client.segment(asking(pb.Prompt(text="visual")))
            given = client.engine.inputs["concept_decoder"]
            assert np.array_equal(given["text_features"], visual)
            assert given["exemplar_box_labels"].tolist() == [[-10]], "none: one padding box"

    run(scenario())


def test_an_exemplar_may_be_a_point(start: Start) -> None:
    clicked = [
        pb.Exemplar(point=pb.Point(x=8, y=10)),
        pb.Exemplar(point=pb.Point(x=80, y=0), positive=False),
        pb.Exemplar(box=pb.Box(x0=8, y0=10, x1=40, y1=20)),
    ]

    async def scenario() -> None:
        async with start() as client:
            await client.segment(asking(pb.Prompt(exemplars=clicked)))
            given = client.engine.inputs["concept_decoder"]
            assert np.array_equal(given["exemplar_points"], np.array([[[0.1, 0.25], [1, 0]]], np.float32))
            assert given["exemplar_point_labels"].tolist() == [[1, 0]]
            assert given["exemplar_box_labels"].tolist() == [[1]]

    run(scenario())


def test_an_exemplar_outside_of_the_image_is_refused_with_the_images_size(start: Start) -> None:
    outside = pb.Exemplar(box=pb.Box(x0=80, y0=0, x1=90, y1=10))

    async def scenario() -> None:
        async with start() as client:
            error = await client.refused(asking(DOG, pb.Prompt(exemplars=[outside])))
            assert error.kind == Kind.INVALID_ARGUMENT
            assert "prompts[1].exemplars[0].box [80, 0, 90, 10]" in error.detail
            assert "80 x 40 pixels" in error.detail

    run(scenario())


UNSUPPORTED = {
    "points": pb.Prompt(points=[pb.Point(x=1, y=1)]),
    "box": pb.Prompt(box=pb.Box(x1=1, y1=1)),
    "mask": pb.Prompt(mask=pb.Mask(height=1, width=1, rle="1")),
    "exemplar_point": pb.Prompt(exemplars=[pb.Exemplar(point=pb.Point(x=1, y=1))]),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_a_prompt_that_the_variant_cannot_serve_is_refused_saying_what_it_can_and_why(
    start: Start, kind: str
) -> None:
    lacking = {"prompts": ("text", "exemplar_box"), "unserved": {kind: "its checkpoint has no such part"}}

    async def scenario() -> None:
        async with start(manifest=lacking) as client:
            error = await client.refused(asking(DOG, UNSUPPORTED[kind]))
            assert error.kind == Kind.UNSUPPORTED_PROMPT
            assert f"prompts[1] is of the kind {kind};" in error.detail
            assert "tiny can serve: text, exemplar_box." in error.detail
            assert f"For {kind}: its checkpoint has no such part." in error.detail
            assert client.engine.calls == []

    run(scenario())


def test_the_times_of_every_stage_are_told(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            times = dict((await client.segment(asking(DOG))).timings_ms)
        graphs = {"image_encoder", "concept_features", "text_encoder", "concept_decoder", "concept_masks"}
        assert times.keys() == {"queue", "decode", "masks", "total"} | graphs
        assert all(value >= 0 for value in times.values())
        assert sum(times.values()) - times["total"] <= times["total"]

    run(scenario())


def test_an_answer_over_the_limit_is_refused_and_says_what_to_ask_for(start: Start) -> None:
    async def scenario() -> None:
        async with start(max_answer_bytes=600) as client:
            error = await client.refused(asking(DOG, score_threshold=ALL, return_logits=True))
            assert error.kind is Kind.PAYLOAD_TOO_LARGE
            assert "600 bytes" in error.detail and "max_segments" in error.detail
            answer = await client.segment(asking(DOG, max_segments=1))
            assert len(answer.results[0].segments) == 1

    run(scenario())


@pytest.mark.parametrize("text", ["\0", "&nbsp;"])
def test_a_text_that_cleaning_leaves_blank_is_refused(start: Start, text: str) -> None:
    async def scenario() -> None:
        async with start() as client:
            error = await client.refused(asking(pb.Prompt(text=text)))
            assert error.kind is Kind.INVALID_ARGUMENT
            assert error.detail == "prompts[0].text is blank."

    run(scenario())


def test_nothing_is_encoded_once_nobody_waits(artifact: Artifact) -> None:
    """Whoever asked leaves while `concept_masks` runs: its masks are not encoded."""
    manifest, left = artifact.manifest, threading.Event()

    def go_on() -> None:
        if left.is_set():
            raise ServiceError(Kind.DEADLINE_EXCEEDED, "gone")

    engine = FakeEngine()
    engine.before = lambda graph: left.set() if graph == "concept_masks" else None
    tokenize = TextTokenizer(artifact.folder / TOKENIZER, manifest.context_length, manifest.tokens)
    # An encoded mask would be refused for its size instead.
    segmenter = Segmenter(manifest, engine, tokenize, WorkerSettings(max_answer_bytes=1))
    with pytest.raises(ServiceError) as refused:
        segmenter.segment(asking(DOG), go_on)
    assert refused.value.kind is Kind.DEADLINE_EXCEEDED
