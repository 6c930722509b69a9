"""Objects from clicks, boxes and masks, over a real channel, with small graphs."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco

from model_store.artifact import TOKENIZER, Artifact
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker.objects import fill_holes
from service.worker.segmenter import Segmenter
from service.worker.tokenizer import TextTokenizer
from tests.worker.conftest import Client, FakeEngine, Start, asking, run

CLICK = pb.Prompt(points=[pb.Point(x=40, y=10)])
BOX = pb.Prompt(box=pb.Box(x0=8, y0=10, x1=40, y1=20))
BOTH = pb.Prompt(
    points=[pb.Point(x=80, y=40), pb.Point(x=0, y=0, positive=False)], box=pb.Box(x0=-9, y0=10, x1=40, y1=99)
)
MASK = pb.Prompt(
    mask=pb.Mask(height=8, width=8, logits=np.linspace(-4, 4, 64).astype("<f2").reshape(8, 8).tobytes())
)
ROWS = 40 // 8


def _scores(result: pb.PromptResult) -> list[float]:
    return [round(segment.score, 3) for segment in result.segments]


def _mask_of(segment: pb.Segment) -> NDArray[Any]:
    mask: NDArray[Any] = coco.decode({"size": [40, 80], "counts": segment.mask.rle})
    return mask


def test_an_object_is_one_mask_with_its_own_box_area_and_predicted_iou(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            answer = await client.segment(asking(CLICK))
        (segment,) = answer.results[0].segments
        mask = _mask_of(segment)
        assert mask[:ROWS].all() and not mask[ROWS:].any()
        assert segment.area == mask.sum()
        assert (segment.box.x0, segment.box.y0, segment.box.x1, segment.box.y1) == (0, 0, 80, ROWS)
        assert (_scores(answer.results[0]), segment.label) == ([0.42], "")

    run(scenario())


def test_an_unstable_mask_gives_way_to_the_best_candidate(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            client.engine.clarity = np.float32(0.05)
            (segment,) = (await client.segment(asking(CLICK))).results[0].segments
        assert _mask_of(segment)[: 3 * ROWS].all() and segment.area == 3 * ROWS * 80
        assert round(segment.score, 3) == 0.72

    run(scenario())


def test_multimask_answers_the_candidates_best_first(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            answer = await client.segment(asking(CLICK, multimask=True))
            assert _scores(answer.results[0]) == [0.72, 0.62, 0.52]
            assert [segment.area // (ROWS * 80) for segment in answer.results[0].segments] == [3, 4, 2]
            answer = await client.segment(asking(CLICK, multimask=True, max_segments=1))
            assert _scores(answer.results[0]) == [0.72]

    run(scenario())


def test_the_prompts_reach_the_decoder_in_its_frame_as_one_batch(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            await client.segment(asking(BOX, CLICK, pb.Prompt(text="dog"), BOTH, MASK))
            assert client.engine.calls.count("prompt_decoder") == 1
            given = client.engine.inputs["prompt_decoder"]
        pad, end = [0.0, 0.0], -1
        assert given["point_labels"].tolist() == [
            [2, 3, end, -10, -10],
            [1, end, -10, -10, -10],
            [2, 3, 1, 0, end],
            [-10] * 5,
        ]
        np.testing.assert_allclose(
            given["points"],
            np.array(
                [
                    [[0.1, 0.25], [0.5, 0.5], pad, pad, pad],
                    [[0.5, 0.25], pad, pad, pad, pad],
                    [[0, 0.25], [0.5, 1], [1, 1], [0, 0], pad],
                    [pad] * 5,
                ]
            ),
            atol=1e-7,
        )
        assert given["has_mask"].tolist() == [False, False, False, True]
        assert np.array_equal(given["mask"][3].ravel(), np.linspace(-4, 4, 64).astype("<f2"))
        assert not given["mask"][:3].any() and given["image"].tolist() == [0] * 4

    run(scenario())


def test_an_object_without_a_past_is_told_so(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            await client.segment(asking(CLICK, BOX))
            coarse = client.engine.interactive_features(
                client.engine.inputs["interactive_features"]["embedding"]
            )["interactive_x1"]
            given = client.engine.inputs["prompt_decoder"]["conditioned"]
        assert np.array_equal(given[1, 0], coarse[0, 0] + np.float32(0.25))
        assert np.array_equal(given[0, 1], coarse[0, 1] - np.float32(0.25))

    run(scenario())


def test_in_any_order_and_number_prompts_answer_as_each_alone(start: Start) -> None:
    prompts = [CLICK, pb.Prompt(text="dog"), BOTH, MASK, BOX, pb.Prompt(text="a red car")] * 4

    async def scenario() -> None:
        async with start() as client:
            for order in (prompts, prompts[::-1]):
                together = await client.segment(asking(*order, return_logits=True))
                for prompt, result in zip(order, together.results, strict=True):
                    (alone,) = (await client.segment(asking(prompt, return_logits=True))).results
                    assert alone.segments == result.segments

    run(scenario())


def test_clicks_ask_for_nothing_of_the_concept_side_and_texts_for_nothing_of_the_other(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            await client.segment(asking(CLICK))
            assert client.engine.calls == ["image_encoder", "interactive_features", "prompt_decoder"]
            client.engine.calls.clear()
            await client.segment(asking())
            assert not {"interactive_features", "prompt_decoder"} & set(client.engine.calls)

    run(scenario())


def test_without_masks_the_box_is_still_the_masks(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            (segment,) = (
                (await client.segment(asking(CLICK, mask_format=pb.MASK_FORMAT_NONE))).results[0].segments
            )
        assert segment.box.y1 == ROWS and not segment.area and not segment.HasField("mask")

    run(scenario())


def test_only_its_own_threshold_can_take_an_object_away(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            strict = pb.Prompt(points=CLICK.points, score_threshold=0.6)
            answer = await client.segment(asking(CLICK, strict, score_threshold=0.99, multimask=True))
        assert [_scores(result) for result in answer.results] == [[0.72, 0.62, 0.52], [0.72, 0.62]]

    run(scenario())


def test_logits_of_an_object_are_the_references_and_come_back_as_a_mask(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            client.engine.clarity = np.float32(100)
            answer = await client.segment(asking(CLICK, return_logits=True))
            logits = answer.results[0].segments[0].logits
            values = np.frombuffer(logits.logits, "<f2").reshape(8, 8)
            assert values[:, 0].tolist() == [32.0] + [-32.0] * 7, "clamped"
            again = pb.Prompt(points=CLICK.points, mask=logits)
            await client.segment(asking(again))
            assert np.array_equal(client.engine.inputs["prompt_decoder"]["mask"][0], values)

    run(scenario())


def test_a_mask_is_enlarged_from_logits_that_nothing_has_clamped(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            client.engine.clarity = np.float32(200)
            (segment,) = (await client.segment(asking(CLICK))).results[0].segments
            # Rows of 100, -100, ...: clamped or not, they change sign half way between their centres.
            assert segment.area == ROWS * 80
            client.engine.slope = np.float32(4)
            (steep,) = (await client.segment(asking(CLICK))).results[0].segments
        # 200 above -50: the sign changes four fifths of the way down, and not half.
        assert steep.box.y1 > segment.box.y1

    run(scenario())


def test_no_mask_is_read_once_nobody_waits(artifact: Artifact) -> None:
    """Whoever asked leaves while the first of two masks is read: the second, which is none, is not seen."""
    manifest, asked = artifact.manifest, []

    def go_on() -> None:
        asked.append(True)
        if len(asked) > 1:
            raise ServiceError(Kind.DEADLINE_EXCEEDED, "gone")

    spoilt = pb.Prompt(mask=pb.Mask(height=8, width=8, rle="!"))
    tokenize = TextTokenizer(artifact.folder / TOKENIZER, manifest.context_length, manifest.tokens)
    segmenter = Segmenter(manifest, FakeEngine(), tokenize, WorkerSettings())
    with pytest.raises(ServiceError) as refused:
        segmenter.segment(asking(MASK, spoilt), go_on)
    assert refused.value.kind is Kind.DEADLINE_EXCEEDED


OUTSIDE = {
    "points": (pb.Prompt(points=[pb.Point(x=1, y=1), pb.Point(x=81, y=0)]), "prompts[1].points[1] (81, 0)"),
    "box": (pb.Prompt(box=pb.Box(x0=-9, y0=0, x1=0, y1=9)), "prompts[1].box [-9, 0, 0, 9]"),
    "exemplar": (
        pb.Prompt(exemplars=[pb.Exemplar(point=pb.Point(x=0, y=41))]),
        "prompts[1].exemplars[0].point (0, 41)",
    ),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_place_outside_of_the_image_is_refused_with_the_images_size(start: Start, kind: str) -> None:
    prompt, named = OUTSIDE[kind]

    async def scenario() -> None:
        async with start() as client:
            error = await client.refused(asking(CLICK, prompt))
            assert error.kind is Kind.INVALID_ARGUMENT
            assert named in error.detail and "80 x 40 pixels" in error.detail
            assert client.engine.calls == []

    run(scenario())


def test_small_holes_are_filled_before_the_mask_is_enlarged() -> None:
    logits = np.ones((288, 288), np.float32)
    logits[10:26, 10:26] = -1  # 256 cells: filled
    logits[26, 26] = 0  # touches it at a corner, so it is one hole of 257: left
    logits[100:116, 100:116] = -1
    logits[200:220, 200:220] = -1
    filled = fill_holes(logits)
    assert (filled[10:26, 10:26] == -1).all() and filled[26, 26] == 0
    assert (filled[100:116, 100:116] == 10).all()
    assert (filled[200:220, 200:220] == -1).all()
    assert (filled[:10] == 1).all()
    assert (fill_holes(-np.ones((8, 8), np.float32)) == -1).all(), "what is all background has no hole"


async def _calls(client: Client, request: pb.SegmentRequest) -> list[str]:
    client.engine.calls.clear()
    await client.segment(request)
    return list(client.engine.calls)


def test_what_is_known_of_an_image_is_not_computed_again(start: Start) -> None:
    async def scenario() -> None:
        async with start(embedding_cache_bytes=1000, feature_cache_bytes=1000) as client:
            first = await client.segment(asking(CLICK))
            assert await _calls(client, asking(CLICK)) == ["prompt_decoder"]
            assert await _calls(client, asking(BOX, CLICK)) == ["prompt_decoder"]
            assert "image_encoder" not in await _calls(client, asking())
            again = await client.segment(asking(CLICK))
            assert again.results == first.results and "decode" not in again.timings_ms
        async with start() as client:
            assert "image_encoder" in await _calls(client, asking(CLICK)), "nothing may be kept"

    run(scenario())
