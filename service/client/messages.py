"""JSON <-> proto: what the gateway does for HTTP, the client does for gRPC."""

import base64
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from service.client.transport import Json
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1 import variants_pb2

_M = TypeVar("_M", bound=Message)


def segment_request(image: bytes | str, request: Json) -> segmentation_pb.SegmentRequest:
    """Raises `invalid_argument` for a field that there is not."""
    message = _message(request, segmentation_pb.SegmentRequest())
    if isinstance(image, str):
        message.image.id = image
    else:
        message.image.data = image
    return message


def open_request(request: Json) -> pb.OpenSessionRequest:
    """Raises as `segment_request`."""
    return _message(request, pb.OpenSessionRequest())


def frame(request: Json, image: bytes | None) -> pb.Frame:
    """Raises as `segment_request`."""
    message = _message(request, pb.Frame())
    if image is not None:
        message.image.data = image
    return message


def video_request(request: Json, video: bytes) -> pb.TrackVideoRequest:
    """Raises as `segment_request`."""
    first, prompts = request.get("first", 0), request.get("prompts", ())
    opening = {name: value for name, value in request.items() if name not in ("first", "prompts")}
    shown = [
        {"frame": each.get("frame", 0), "prompt": {name: each[name] for name in each if name != "frame"}}
        for each in prompts
    ]
    message = _message({"open": opening, "prompts": shown, "first": first}, pb.TrackVideoRequest())
    message.video = video
    return message


def answer(response: segmentation_pb.SegmentResponse) -> Json:
    """The JSON of an image's answer."""
    return {
        "variant": response.variant,
        "image": _image(response.image),
        "results": [
            {"prompt": result.prompt, "segments": [_segment(each) for each in result.segments]}
            for result in response.results
        ],
        "timings_ms": dict(response.timings_ms),
    }


def kept_image(response: segmentation_pb.EncodeImageResponse) -> Json:
    """The JSON of an image that is kept."""
    return {
        "variant": response.variant,
        "image": _image(response.image),
        "kept_until": response.kept_until,
        "timings_ms": dict(response.timings_ms),
    }


def variant(message: variants_pb2.Variant) -> Json:
    """The JSON of a variant."""
    body = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    # The mapping writes 64 bits as a string.
    return {**body, "parameters": message.parameters}


def session(message: pb.Session) -> Json:
    """The JSON of where a session stands."""
    return {
        "session": message.session,
        "variant": message.variant,
        "next_frame": message.next_frame,
        "revision": message.revision,
        "oldest_answer": message.oldest_answer,
        "expires_at": message.expires_at,
        "objects": list(message.objects),
        "memory_bytes": message.memory_bytes,
    }


def frame_answer(message: pb.FrameAnswer) -> Json:
    """The JSON of a frame's answer."""
    return {
        "frame": message.frame,
        "revision": message.revision,
        "image": _image(message.image),
        "objects": [_tracked(each) for each in message.objects],
        "memory_bytes": message.memory_bytes,
        "timings_ms": dict(message.timings_ms),
    }


def _message(request: Json, message: _M) -> _M:
    try:
        return ParseDict(_mapped(request), message)
    except ParseError as error:
        # Behind the first line stand the fields that there are.
        raise ServiceError(Kind.INVALID_ARGUMENT, str(error).partition("\n")[0]) from error


def _mapped(value: Any) -> Any:
    """The API's JSON in proto's own mapping: of boxes, masks and their formats alone it differs."""
    match value:
        case Mapping():
            return {name: _field(name, each) for name, each in value.items()}
        case list() | tuple():
            return [_mapped(each) for each in value]
    return value


def _field(name: str, value: Any) -> Any:
    match name, value:
        case "box", [x0, y0, x1, y1]:
            return {"x0": x0, "y0": y0, "x1": x1, "y1": y1}
        case "mask", {"format": str(encoding), "size": [height, width], **content}:
            return {"height": height, "width": width, **_encoding(encoding, content)}
        case "mask_format", str(encoding):
            return f"MASK_FORMAT_{encoding.upper()}"
    return _mapped(value)


def _encoding(name: str, content: Mapping[Any, Any]) -> Json:
    match name, content:
        case "rle", {"counts": counts, **rest}:
            return {"rle": counts, **rest}
        case "polygon", _:
            return {"polygon": content}
    return dict(content)


def _image(image: segmentation_pb.ImageInfo) -> Json:
    return {"id": image.id, "width": image.width, "height": image.height}


def _segment(segment: segmentation_pb.Segment) -> Json:
    return {
        "score": segment.score,
        "box": _box(segment.box),
        "area": segment.area,
        "label": segment.label,
        **_masks(segment),
    }


def _tracked(each: pb.TrackedObject) -> Json:
    return {
        "object": each.object,
        "label": each.label,
        "score": each.score,
        "visible": each.visible,
        **({"box": _box(each.box)} if each.HasField("box") else {}),
        "area": each.area,
        **_masks(each),
        **({"prompt": each.prompt} if each.HasField("prompt") else {}),
    }


def _box(box: segmentation_pb.Box) -> list[float]:
    return [box.x0, box.y0, box.x1, box.y1]


def _masks(found: segmentation_pb.Segment | pb.TrackedObject) -> Json:
    """`mask` and `logits`, where they are there."""
    masks = {"mask": found.mask, "logits": found.logits}
    return {
        name: _mask(mask)
        for name, mask in masks.items()
        if found.HasField(name)  # type: ignore[arg-type]
    }


def _mask(mask: segmentation_pb.Mask) -> Json:
    size = [mask.height, mask.width]
    match mask.WhichOneof("encoding"):
        case "polygon":
            rings = [{"xy": list(ring.xy), "hole": ring.hole} for ring in mask.polygon.rings]
            return {"format": "polygon", "size": size, "rings": rings}
        case "png":
            return {"format": "png", "size": size, "png": _base64(mask.png)}
        case "logits":
            return {"format": "logits", "size": size, "logits": _base64(mask.logits)}
        case _:
            return {"format": "rle", "size": size, "counts": mask.rle}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
