"""Valid requests, from which everything else is made: as JSON, and as messages."""

import base64
from functools import cache
from typing import Any

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from PIL import Image
from pycocotools import mask as coco

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2, variants_pb2
from tests.fuzz import images, videos
from tests.fuzz.case import LIVE_IMAGE, LIVE_SESSION

Json = dict[str, Any]

SEGMENTATION, TRACKING, VARIANTS = (
    f"/efficientsam3.v1.{name}/" for name in ("Segmentation", "Tracking", "Variants")
)
HEALTH, REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/"

CLICK: Json = {"points": [{"x": 5, "y": 9, "positive": True}]}


@cache
def png() -> bytes:
    """The picture that most requests bring."""
    return images.seeds()["png-RGB"]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@cache
def masks() -> list[Json]:
    """A mask in every format that a prompt takes."""
    foreground = np.zeros((images.HEIGHT, images.WIDTH), np.uint8, order="F")
    foreground[4:12, 5:15] = 1
    size = list(foreground.shape)
    logits = np.where(foreground, 4, -4).astype("<f2")
    return [
        {"format": "rle", "size": size, "counts": coco.encode(foreground)["counts"].decode()},
        {
            "format": "png",
            "size": size,
            "png": _base64(images.saved(Image.fromarray(foreground * 255), "PNG")),
        },
        {"format": "polygon", "size": size, "rings": [{"xy": [5, 4, 15, 4, 15, 12, 5, 12], "hole": False}]},
        {"format": "logits", "size": size, "logits": _base64(logits.tobytes())},
    ]


@cache
def prompts() -> list[Json]:
    """One of each kind."""
    box = [4, 3, 18, 13]
    return [
        {"text": "car"},
        {"text": "car", "exemplars": [{"box": box, "positive": True}], "score_threshold": 0.5},
        {"exemplars": [{"point": {"x": 6, "y": 7}}, {"box": box, "positive": False}]},
        CLICK,
        {"box": box},
        *({"mask": mask} for mask in masks()),
    ]


def segments() -> list[Json]:
    """Of `POST /v1/segment`, without an image."""
    options = {"score_threshold": 0.1, "mask_format": "polygon", "max_segments": 5, "return_logits": True}
    return [
        *({"prompts": [prompt]} for prompt in prompts()),
        {"variant": "demo", "prompts": [CLICK, {"text": "car"}], "options": options},
        {"prompts": [CLICK], "options": {"multimask": True, "mask_format": "png"}},
        {"prompts": [{"box": [4, 3, 18, 13]}], "options": {"mask_format": "none"}},
    ]


def with_image(request: Json) -> Json:
    """The request with the picture in it."""
    return {**request, "image": {"base64": _base64(png())}}


def opening() -> list[Json]:
    """Of `POST /v1/sessions`."""
    options = {
        "mask_format": "rle",
        "return_logits": False,
        "score_threshold": 0.3,
        "new_object_threshold": 0.6,
        "detect_every": 2,
        "confirm_frames": 2,
        "memory_selection": True,
    }
    return [{}, {"variant": "demo", "ttl_s": 10, "frames_total": 40, "options": options}]


def frames() -> list[Json]:
    """Of a session's first frame, without an image."""
    return [
        {"frame": 0, "prompts": [{"text": "car"}]},
        {"frame": 0, "prompts": [{"object": 3, **CLICK}, {"box": [4, 3, 18, 13]}]},
        {"frame": 0, "revision": 0, "prompts": [{"mask": masks()[0]}]},
        {"frame": 0, "prompts": []},
    ]


def videos_asked() -> list[Json]:
    """Of `POST /v1/videos/track`, without a video."""
    box = {"box": [8, 8, 30, 30]}
    return [
        {"prompts": [box]},
        {**opening()[1], "prompts": [{"text": "square"}, {"frame": 1, **box}], "first": 0},
    ]


def _mask(mask: Json) -> pb.Mask:
    height, width = mask["size"]
    match mask["format"]:
        case "rle":
            return pb.Mask(height=height, width=width, rle=mask["counts"])
        case "png":
            return pb.Mask(height=height, width=width, png=base64.b64decode(mask["png"]))
        case "polygon":
            return pb.Mask(
                height=height,
                width=width,
                polygon=pb.Polygon(rings=[pb.Ring(**ring) for ring in mask["rings"]]),
            )
    return pb.Mask(height=height, width=width, logits=base64.b64decode(mask["logits"]))


@cache
def messages() -> dict[str, list[Message]]:
    """Valid messages of every RPC that takes one, by its full name."""
    box, point = pb.Box(x0=4, y0=3, x1=18, y1=13), pb.Point(x=5, y=9)
    image = pb.Image(data=png())
    texts = pb.Prompt(text="car", exemplars=[pb.Exemplar(box=box), pb.Exemplar(point=point, positive=False)])
    options = pb.SegmentOptions(
        score_threshold=0.2, mask_format=pb.MASK_FORMAT_POLYGON, max_segments=3, multimask=True
    )
    session = tracking_pb2.SessionRequest(session=LIVE_SESSION)
    opened = tracking_pb2.OpenSessionRequest(
        variant="demo", ttl_s=10, frames_total=9, options={"detect_every": 2}
    )
    frame = tracking_pb2.Frame(image=image, prompts=[tracking_pb2.TrackPrompt(object=4, points=[point])])
    named = tracking_pb2.Frame(image=pb.Image(id=LIVE_IMAGE), prompts=[tracking_pb2.TrackPrompt(text="car")])
    shown = tracking_pb2.VideoPrompt(prompt=tracking_pb2.TrackPrompt(box=pb.Box(x0=8, y0=8, x1=30, y1=30)))
    return {
        f"{SEGMENTATION}Segment": [
            pb.SegmentRequest(image=image, prompts=[pb.Prompt(points=[point], box=box)], options=options),
            pb.SegmentRequest(variant="demo", image=image, prompts=[texts]),
            pb.SegmentRequest(image=pb.Image(id=LIVE_IMAGE), prompts=[pb.Prompt(box=box)]),
            *(pb.SegmentRequest(image=image, prompts=[pb.Prompt(mask=_mask(mask))]) for mask in masks()),
        ],
        f"{SEGMENTATION}EncodeImage": [
            pb.EncodeImageRequest(image=image),
            pb.EncodeImageRequest(variant="demo", image=image),
        ],
        f"{SEGMENTATION}DeleteImage": [pb.DeleteImageRequest(id=LIVE_IMAGE)],
        f"{TRACKING}OpenSession": [tracking_pb2.OpenSessionRequest(), opened],
        f"{TRACKING}AddFrame": [
            tracking_pb2.AddFrameRequest(session=LIVE_SESSION, frame=each) for each in (frame, named)
        ],
        f"{TRACKING}GetSession": [session],
        f"{TRACKING}ForkSession": [session],
        f"{TRACKING}DeleteSession": [session],
        f"{TRACKING}Track": [
            tracking_pb2.TrackRequest(open=opened),
            tracking_pb2.TrackRequest(frame=frame),
            tracking_pb2.TrackRequest(open={"session": LIVE_SESSION}),
        ],
        f"{TRACKING}TrackVideo": [
            tracking_pb2.TrackVideoRequest(open=opened, video=videos.seeds()["mp4"], prompts=[shown]),
            tracking_pb2.TrackVideoRequest(
                video=videos.seeds()["webm"], prompts=[shown, {"frame": 1, "prompt": {"text": "x"}}]
            ),
        ],
        f"{VARIANTS}ListVariants": [variants_pb2.ListVariantsRequest()],
        f"{VARIANTS}GetVariant": [variants_pb2.GetVariantRequest(name="demo")],
        f"{HEALTH}Check": [
            health_pb2.HealthCheckRequest(),
            health_pb2.HealthCheckRequest(service="efficientsam3.v1.Tracking"),
        ],
        f"{HEALTH}Watch": [health_pb2.HealthCheckRequest()],
        f"{REFLECTION}ServerReflectionInfo": [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_by_filename="efficientsam3/v1/tracking.proto"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="efficientsam3.v1.Tracking"),
        ],
    }
