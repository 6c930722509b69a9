"""Points and boxes survive the way into the graphs and, as masks, the way back."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import masks, places

SIDE = 288
sides = st.integers(1, 5000)
shares = st.floats(0, 1)


@settings(deadline=None)
@given(width=sides, height=sides, across=shares, down=shares)
def test_a_point_keeps_its_place_in_the_image(width: int, height: int, across: float, down: float) -> None:
    x, y = across * width, down * height
    found = places.point("point", pb.Point(x=x, y=y), width, height)
    np.testing.assert_allclose(np.multiply(found, [width, height]), [x, y], rtol=1e-12)


@settings(deadline=None)
@given(
    width=st.integers(4, 2000),
    height=st.integers(4, 2000),
    corners=st.tuples(shares, shares, shares, shares),
    beyond=st.floats(0, 100),
)
def test_a_box_drawn_in_the_graphs_frame_comes_back_as_itself_to_a_cell(
    width: int, height: int, corners: tuple[float, ...], beyond: float
) -> None:
    (x0, x1), (y0, y1) = sorted(corners[:2]), sorted(corners[2:])
    assume(x0 < 1 and y0 < 1)
    asked = pb.Box(x0=x0 * width - beyond, y0=y0 * height, x1=x1 * width + 1, y1=y1 * height + 1 + beyond)
    frame = np.array(places.box("box", asked, width, height)) * SIDE
    assert (frame >= 0).all() and (frame <= SIDE).all()
    logits = np.full((SIDE, SIDE), -1, np.float32)
    left, top, right, bottom = np.rint(frame).astype(int)
    if left == right or top == bottom:
        return  # narrower than half a cell
    logits[top:bottom, left:right] = 1
    found = masks.bounds_xyxy(masks.upscale(logits, width, height))
    clipped = [
        max(asked.x0, 0.0),
        max(asked.y0, 0.0),
        min(asked.x1, float(width)),
        min(asked.y1, float(height)),
    ]
    if found == (0, 0, 0, 0):
        assert width < SIDE or height < SIDE, "only pixels larger than cells can miss it"
        return
    cell = np.array([width, height] * 2) / SIDE
    assert (np.abs(np.subtract(found, clipped)) <= cell + 1).all()


@pytest.mark.parametrize("at", [(-0.5, 0), (0, -0.5), (10.5, 0), (0, 20.5)])
def test_a_point_beside_the_image_is_refused_with_its_size(at: tuple[float, float]) -> None:
    places.point("p", pb.Point(x=10, y=20), 10, 20)
    with pytest.raises(ServiceError, match=r"prompts\[0\]\.point \(.*10 x 20 pixels") as refused:
        places.point("prompts[0].point", pb.Point(x=at[0], y=at[1]), 10, 20)
    assert refused.value.kind is Kind.INVALID_ARGUMENT
