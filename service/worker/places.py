"""Points and boxes of a request, in pixels of the image -> 0..1 of its width and height."""

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb


def point(path: str, at: pb.Point, width: int, height: int) -> list[float]:
    """x and y. Raises `invalid_argument` for a point outside of the image; its edges are inside."""
    if not (0 <= at.x <= width and 0 <= at.y <= height):
        raise _outside(f"{path} ({at.x:g}, {at.y:g})", width, height)
    return [at.x / width, at.y / height]


def box(path: str, around: pb.Box, width: int, height: int) -> list[float]:
    """x0, y0, x1 and y1, clipped to the image. Raises `invalid_argument` for a box outside of it."""
    x0, x1 = max(around.x0, 0.0), min(around.x1, float(width))
    y0, y1 = max(around.y0, 0.0), min(around.y1, float(height))
    if x0 >= x1 or y0 >= y1:
        shown = f"[{around.x0:g}, {around.y0:g}, {around.x1:g}, {around.y1:g}]"
        raise _outside(f"{path} {shown}", width, height)
    return [x0 / width, y0 / height, x1 / width, y1 / height]


def _outside(what: str, width: int, height: int) -> ServiceError:
    detail = f"{what} lies outside of the image, which is {width} x {height} pixels."
    return ServiceError(Kind.INVALID_ARGUMENT, detail)
