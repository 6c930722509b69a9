"""Prompts do not see each other: their order, and how many come in one request, change no answer."""

import base64
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from tests.pictures import encoded, street
from tests.serving import Serving

WIDTH, HEIGHT = 96, 72
PICTURE = encoded(street(WIDTH, HEIGHT), "PNG")
Json = dict[str, Any]

_whole = st.integers(0, 1000)


@st.composite
def points(draw: st.DrawFn) -> Json:
    return {
        "x": draw(_whole) / 1000 * WIDTH,
        "y": draw(_whole) / 1000 * HEIGHT,
        "positive": draw(st.booleans()),
    }


@st.composite
def boxes(draw: st.DrawFn) -> list[float]:
    x0, y0 = draw(_whole) / 1000 * (WIDTH - 4), draw(_whole) / 1000 * (HEIGHT - 4)
    return [
        x0,
        y0,
        x0 + 2 + draw(_whole) / 1000 * (WIDTH - 4 - x0),
        y0 + 2 + draw(_whole) / 1000 * (HEIGHT - 4 - y0),
    ]


@st.composite
def masks(draw: st.DrawFn) -> Json:
    values = draw(st.lists(st.floats(-8, 8, width=16), min_size=6, max_size=6))
    logits = np.array(values, "<f2").tobytes()
    return {"format": "logits", "size": [2, 3], "logits": base64.b64encode(logits).decode()}


@st.composite
def concepts(draw: st.DrawFn) -> Json:
    positive = draw(st.booleans())
    shown = draw(
        st.lists(
            st.one_of(
                boxes().map(lambda box: {"box": box, "positive": positive}),
                points().map(lambda at: {"point": {"x": at["x"], "y": at["y"]}, "positive": at["positive"]}),
            ),
            max_size=3,
        )
    )
    text = draw(st.sampled_from(["truck", "a red car", "visual", "猫 🐶"]))
    return {"text": text, "exemplars": shown} if draw(st.booleans()) or not shown else {"exemplars": shown}


@st.composite
def objects(draw: st.DrawFn) -> Json:
    prompt: Json = {}
    if draw(st.booleans()):
        prompt["box"] = draw(boxes())
    if draw(st.booleans()):
        prompt["mask"] = draw(masks())
    prompt["points"] = draw(st.lists(points(), min_size=0 if prompt else 1, max_size=4))
    return prompt


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    prompts=st.lists(st.one_of(concepts(), objects()), min_size=2, max_size=6),
    shuffle=st.randoms(use_true_random=False),
    multimask=st.booleans(),
)
def test_in_any_order_and_number_every_prompt_is_answered_as_alone(
    small: Serving, prompts: list[Json], shuffle: Any, multimask: bool
) -> None:
    order = list(range(len(prompts)))
    shuffle.shuffle(order)
    together = _ask(small, prompts, multimask)
    shuffled = _ask(small, [prompts[index] for index in order], multimask)
    for index, prompt in enumerate(prompts):
        (alone,) = _ask(small, [prompt], multimask)
        _assert_same(together[index], alone)
        _assert_same(shuffled[order.index(index)], alone)


def _ask(small: Serving, prompts: list[Json], multimask: bool) -> list[list[Json]]:
    options = {"score_threshold": 0.0, "max_segments": 3, "multimask": multimask}
    response = small.segment(PICTURE, {"prompts": prompts, "options": options})
    assert response.status_code == 200, response.text
    return [result["segments"] for result in response.json()["results"]]


def _assert_same(ours: list[Json], theirs: list[Json]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert abs(one["score"] - other["score"]) < 1e-4
        assert _iou(_mask(one), _mask(other)) >= 0.999
        assert np.abs(np.subtract(one["box"], other["box"])).max() <= 1


def _mask(segment: Json) -> NDArray[np.uint8]:
    mask: NDArray[np.uint8] = coco.decode(segment["mask"])
    return mask


def _iou(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0
