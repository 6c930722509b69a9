"""What a request must be before anyone computes for it. Shared by gateway and workers.

Fields are named in HTTP's spelling. What depends on the image's size or on the variant is judged by the
worker, which knows both.
"""

import hashlib
import math
import re
import secrets
from collections import Counter
from collections.abc import Iterable

from service.config import MAX_ENTRIES, Limits
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2 as tracking_pb

DEFAULT_MAX_SEGMENTS = 100
# What JSON's numbers hold exactly, with room for the ids that follow.
MAX_OBJECT_ID = 2**52
MAX_CONFIRM_FRAMES = 60
MAX_RLE_CHARS = 4 * 1024 * 1024
"""Characters of a mask's counts. Reading takes some 40 bytes for each; a mask of an object has thousands."""
IMAGE_ID = r"sha256:[0-9a-f]{64}"
_IMAGE_ID = re.compile(IMAGE_ID)
# The variant and the artefact, which tell a gateway whom to ask, and what nobody can guess.
SESSION_ID = r"[a-z0-9-]{1,64}\.(?:[0-9a-f]{12}-)?[0-9a-f]{32}"
# Of an artefact's digest, so many tell it from others of its variant.
_DIGITS = 12
_SESSION_ID = re.compile(SESSION_ID)
_EMPTY_IMAGE = pb.Image(data=b"")


def check(request: pb.SegmentRequest, limits: Limits) -> None:
    """Raise the ServiceError that names the first field that is wrong, and the limit it breaks.

    Kinds: `payload_too_large` for pixels and counts, else `invalid_argument`.
    """
    # Counts come first: everything else takes time for each entry.
    _check_count("prompts", len(request.prompts), limits.max_prompts)
    _check_counts(((f"prompts[{index}]", each) for index, each in enumerate(request.prompts)), limits)
    _check_image(request.image)
    if not request.prompts:
        raise _invalid("prompts is empty: send at least one prompt.")
    for index, prompt in enumerate(request.prompts):
        _check_prompt(f"prompts[{index}]", prompt, limits)
    _check_masks(request.prompts, limits)
    _check_options(request.options, limits)


def check_new_image(request: pb.EncodeImageRequest, limits: Limits) -> None:
    """Raise the ServiceError that says why the request brings no image to keep. Kinds as of `check`."""
    _check_image(request.image)
    if request.image.HasField("id"):
        raise _invalid("image.id names an image that was sent before: send image.base64 or image.url.")


def check_image_id(id: str, path: str = "id") -> None:
    """Raise ServiceError `invalid_argument` unless `id` looks like an image's id."""
    if not _IMAGE_ID.fullmatch(id):
        raise _invalid(f"{path} is no image's id: `sha256:` and 64 hexadecimal digits in lower case.")


def check_open(request: tracking_pb.OpenSessionRequest, limits: Limits) -> None:
    """Raise the ServiceError `invalid_argument` that says why no session can be opened like this."""
    if request.ttl_s > limits.max_session_ttl_s:
        raise _invalid(f"ttl_s is {request.ttl_s}; at most {limits.max_session_ttl_s} is allowed.")
    if request.HasField("frames_total") and not request.frames_total:
        raise _invalid("frames_total is 0: leave it out where it is not known.")
    _check_mask_format(request.options.mask_format)
    for name in ("score_threshold", "new_object_threshold"):
        if request.options.HasField(name):
            _check_threshold(f"options.{name}", getattr(request.options, name))
    if (frames := request.options.confirm_frames) > MAX_CONFIRM_FRAMES:
        raise _invalid(f"options.confirm_frames is {frames}; 0..{MAX_CONFIRM_FRAMES} is allowed.")


def check_frame(frame: tracking_pb.Frame, limits: Limits) -> None:
    """Raise the ServiceError that names the first field of a frame that is wrong. Kinds as of `check`."""
    _check_count("prompts", len(frame.prompts), limits.max_prompts)
    _check_counts(((f"prompts[{index}]", each) for index, each in enumerate(frame.prompts)), limits)
    if frame.HasField("image"):
        _check_image(frame.image)
    elif not frame.revision:
        raise _invalid("image is missing: send one of image.base64, image.url and image.id.")
    if frame.revision and frame.HasField("follows"):
        raise _invalid("follows is of a new frame: what a correction corrects is said by its revision.")
    for index, prompt in enumerate(frame.prompts):
        _check_track_prompt(f"prompts[{index}]", prompt, limits)
    _check_masks(frame.prompts, limits)


def check_video(request: tracking_pb.TrackVideoRequest, limits: Limits) -> None:
    """Raise the ServiceError that names the first field of a video's request that is wrong. As of `check`."""
    _check_count("prompts", len(request.prompts), limits.max_video_prompts)
    shown = ((f"prompts[{index}]", each.prompt) for index, each in enumerate(request.prompts))
    _check_counts(shown, limits)
    check_open(request.open, limits)
    if not request.video:
        raise _invalid("video is empty: send a video file's bytes.")
    frames = Counter(asked.frame for asked in request.prompts)
    for frame, count in frames.items():
        _check_count(f"prompts of frame {frame}", count, limits.max_prompts)
    for index, asked in enumerate(request.prompts):
        _check_track_prompt(f"prompts[{index}]", asked.prompt, limits)
    _check_masks([asked.prompt for asked in request.prompts], limits)


def check_stream(*, opens: bool, opened: bool) -> None:
    """Raise ServiceError `invalid_argument` unless a stream begins with `open`, and has no other."""
    if opens and opened:
        raise _invalid("open comes once, at the begin of the stream.")
    if not opens and not opened:
        raise _invalid("The stream must begin with open.")


def check_session_id(id: str) -> None:
    """Raise ServiceError `session_not_found` for what no session was ever called."""
    if not _SESSION_ID.fullmatch(id):
        raise ServiceError(Kind.SESSION_NOT_FOUND, f"There is no session {id[:100]!r}.")


def new_session_id(variant: str, digest: str = "") -> str:
    """An id for a new session of the variant, and of the artefact of this digest where it is known."""
    digits = digest.removeprefix("sha256:")[:_DIGITS]
    return f"{variant}.{digits}{'-' if digits else ''}{secrets.token_hex(16)}"


def variant_of_session(id: str) -> str:
    """The variant of a session whose id `check_session_id` passed."""
    return id.partition(".")[0]


def digits_of_session(id: str) -> str:
    """The first digits of its artefact's digest, where its id has them; else empty."""
    digits, dash, _ = id.partition(".")[2].rpartition("-")
    return digits if dash else ""


def image_id(data: bytes) -> str:
    """The id of an image of these bytes: `sha256:` and the hexadecimal digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def max_segments(options: pb.SegmentOptions) -> int:
    """How many segments each prompt may have."""
    return options.max_segments if options.HasField("max_segments") else DEFAULT_MAX_SEGMENTS


def is_concept(prompt: pb.Prompt) -> bool:
    """True: every instance of a concept is asked for. False: one object is."""
    return bool(prompt.text or prompt.exemplars)


def _check_image(image: pb.Image) -> None:
    source = image.WhichOneof("source")
    if source is None:
        raise _invalid("image is missing: send one of image.base64, image.url and image.id.")
    # To read the bytes would copy them.
    if source == "data" and image == _EMPTY_IMAGE:
        raise _invalid("image is empty.")
    if source != "data" and not getattr(image, source):
        raise _invalid(f"image.{source} is empty.")
    if source == "id":
        check_image_id(image.id, "image.id")


def _check_prompt(path: str, prompt: pb.Prompt, limits: Limits) -> None:
    is_object = bool(prompt.points) or prompt.HasField("box") or prompt.HasField("mask")
    if is_concept(prompt) and is_object:
        raise _invalid(
            f"{path} mixes a concept (text, exemplars) with an object (points, box, mask): "
            "send them as two prompts."
        )
    if not is_concept(prompt) and not is_object:
        raise _invalid(f"{path} is empty: give text and/or exemplars, or points, a box and/or a mask.")
    _check_text(f"{path}.text", prompt.text, limits)
    for index, exemplar in enumerate(prompt.exemplars):
        _check_exemplar(f"{path}.exemplars[{index}]", exemplar)
    _check_object(path, prompt, limits)
    if prompt.HasField("score_threshold"):
        _check_threshold(f"{path}.score_threshold", prompt.score_threshold)


def _check_track_prompt(path: str, prompt: tracking_pb.TrackPrompt, limits: Limits) -> None:
    shows = bool(prompt.points) or prompt.HasField("box") or prompt.HasField("mask")
    named = bool(prompt.text)
    if prompt.HasField("remove"):
        if shows or named or prompt.HasField("object"):
            raise _invalid(f"{path} removes something and shows another: send them as two prompts.")
        if prompt.remove.WhichOneof("what") is None:
            raise _invalid(f"{path}.remove is empty: give the object or the text that is to be removed.")
        _check_text(f"{path}.remove.text", prompt.remove.text, limits)
    elif named:
        if shows or prompt.HasField("object"):
            raise _invalid(f"{path} mixes a text with an object: send them as two prompts.")
        _check_text(f"{path}.text", prompt.text, limits)
    elif not shows:
        raise _invalid(f"{path} is empty: give a text; or points, a box and/or a mask; or what to remove.")
    if prompt.HasField("object") and not 1 <= prompt.object <= MAX_OBJECT_ID:
        raise _invalid(f"{path}.object is {prompt.object}; 1..{MAX_OBJECT_ID} is allowed.")
    _check_object(path, prompt, limits)


def _check_object(path: str, prompt: pb.Prompt | tracking_pb.TrackPrompt, limits: Limits) -> None:
    for index, point in enumerate(prompt.points):
        _check_point(f"{path}.points[{index}]", point)
    if prompt.HasField("box"):
        _check_box(f"{path}.box", prompt.box)
    if prompt.HasField("mask"):
        _check_mask(f"{path}.mask", prompt.mask, limits)


def _check_text(path: str, text: str, limits: Limits) -> None:
    if len(text) > limits.max_text_chars:
        raise _invalid(f"{path} has {len(text):,} characters; the limit is {limits.max_text_chars:,}.")
    if text and not text.strip():
        raise _invalid(f"{path} is blank.")


def _check_exemplar(path: str, exemplar: pb.Exemplar) -> None:
    match exemplar.WhichOneof("region"):
        case "box":
            _check_box(f"{path}.box", exemplar.box)
        case "point":
            _check_point(f"{path}.point", exemplar.point)
        case _:
            raise _invalid(f"{path} has neither a box nor a point.")


def _check_point(path: str, point: pb.Point) -> None:
    _check_finite({f"{path}.x": point.x, f"{path}.y": point.y}.items())


def _check_box(path: str, box: pb.Box) -> None:
    corners = (box.x0, box.y0, box.x1, box.y1)
    _check_finite((f"{path}[{index}]", value) for index, value in enumerate(corners))
    if not (box.x0 < box.x1 and box.y0 < box.y1):
        shown = ", ".join(f"{value:g}" for value in corners)
        raise _invalid(f"{path} [{shown}] has no area: [x0, y0, x1, y1] needs x0 < x1 and y0 < y1.")


def _check_finite(values: Iterable[tuple[str, float]]) -> None:
    for path, value in values:
        if not math.isfinite(value):
            raise _invalid(f"{path} is not a finite number.")


def _check_mask(path: str, mask: pb.Mask, limits: Limits) -> None:
    encoding = mask.WhichOneof("encoding")
    if encoding is None:
        raise _invalid(f"{path} has no content: give counts, png, rings or logits.")
    shape = f"{path}.size [{mask.height}, {mask.width}]"
    if not (mask.height and mask.width):
        raise _invalid(f"{shape} has no area.")
    if max(mask.height, mask.width) > limits.max_image_side:
        raise _too_large(f"{shape} has a side over the limit of {limits.max_image_side:,} pixels.")
    if mask.height * mask.width > limits.max_image_pixels:
        raise _too_large(f"{shape} is over the limit of {limits.max_image_pixels:,} pixels.")
    if encoding == "rle" and len(mask.rle) > MAX_RLE_CHARS:
        raise _too_large(
            f"{path}.counts has {len(mask.rle):,} characters; the limit is {MAX_RLE_CHARS:,}. "
            "Send a smaller mask: it stands for the whole image whatever its size."
        )
    if encoding == "logits" and len(mask.logits) != 2 * mask.height * mask.width:
        raise _invalid(f"{path}.logits has {len(mask.logits):,} bytes; {shape} needs 2 per value.")
    for index, ring in enumerate(mask.polygon.rings):
        _check_ring(f"{path}.rings[{index}]", ring)


def _check_counts(prompts: Iterable[tuple[str, pb.Prompt | tracking_pb.TrackPrompt]], limits: Limits) -> None:
    """Raise `payload_too_large` for more entries than allowed in any repeated field below the prompts."""
    mask_points = 0
    for path, prompt in prompts:
        _check_count(f"{path}.points", len(prompt.points), limits.max_points)
        if isinstance(prompt, pb.Prompt):
            _check_count(f"{path}.exemplars", len(prompt.exemplars), limits.max_exemplars)
        rings = prompt.mask.polygon.rings
        _check_count(f"{path}.mask.rings", len(rings), MAX_ENTRIES)
        mask_points += sum(len(ring.xy) for ring in rings) // 2
    if mask_points > limits.max_mask_points:
        raise _too_large(
            f"prompts have mask rings of {mask_points:,} points in all; "
            f"the limit is {limits.max_mask_points:,}. Simplify the rings, or send the masks as RLE or PNG."
        )


def _check_masks(prompts: Iterable[pb.Prompt | tracking_pb.TrackPrompt], limits: Limits) -> None:
    pixels = sum(prompt.mask.height * prompt.mask.width for prompt in prompts)
    if pixels > limits.max_image_pixels:
        raise _too_large(
            f"prompts have masks of {pixels:,} pixels in all; the limit is {limits.max_image_pixels:,}. "
            "A mask stands for the whole image whatever its size: send smaller ones."
        )


def _check_ring(path: str, ring: pb.Ring) -> None:
    if len(ring.xy) < 6 or len(ring.xy) % 2:
        raise _invalid(f"{path} has {len(ring.xy)} numbers: a ring is x and y of at least three points.")
    if not all(map(math.isfinite, ring.xy)):
        _check_finite((f"{path}[{index}]", value) for index, value in enumerate(ring.xy))


def _check_options(options: pb.SegmentOptions, limits: Limits) -> None:
    if options.HasField("score_threshold"):
        _check_threshold("options.score_threshold", options.score_threshold)
    if options.HasField("max_segments") and not 1 <= options.max_segments <= limits.max_segments:
        allowed = f"1..{limits.max_segments}"
        raise _invalid(f"options.max_segments is {options.max_segments}; {allowed} is allowed.")
    _check_mask_format(options.mask_format)


def _check_mask_format(format: int) -> None:
    if format not in pb.MaskFormat.values():
        raise _invalid(f"options.mask_format {format} is unknown: rle, png, polygon or none.")


def _check_threshold(path: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise _invalid(f"{path} is {value:g}; 0..1 is allowed.")


def _check_count(path: str, count: int, limit: int) -> None:
    if count > limit:
        raise _too_large(f"{path} has {count:,} entries; the limit is {limit:,}.")


def _invalid(detail: str) -> ServiceError:
    return ServiceError(Kind.INVALID_ARGUMENT, detail)


def _too_large(detail: str) -> ServiceError:
    return ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
