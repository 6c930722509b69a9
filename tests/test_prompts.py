"""Every defect of a request is refused by name; what is whole passes."""

import math
from typing import Any

import pytest

from service.config import Limits
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2 as tracking_pb
from service.prompts import (
    check,
    check_image_id,
    check_new_image,
    check_open,
    check_video,
    image_id,
    is_concept,
)

LIMITS = Limits(
    max_body_bytes=20_000,
    max_image_pixels=10_000,
    max_image_side=500,
    max_prompts=3,
    max_text_chars=20,
    max_exemplars=2,
    max_points=2,
    max_segments=50,
)
IMAGE = pb.Image(data=b"bytes")
ID = image_id(b"bytes")
DOG = pb.Prompt(text="dog")
BOX = pb.Box(x0=1, y0=2, x1=3, y1=4)
NAN, INF = math.nan, math.inf


def request(*prompts: pb.Prompt, image: pb.Image = IMAGE, **options: Any) -> pb.SegmentRequest:
    return pb.SegmentRequest(image=image, prompts=prompts, options=pb.SegmentOptions(**options))


def exemplar(**region: Any) -> pb.Prompt:
    return pb.Prompt(text="dog", exemplars=[pb.Exemplar(box=BOX), pb.Exemplar(**region)])


def mask(**fields: Any) -> pb.SegmentRequest:
    return request(pb.Prompt(mask=pb.Mask(**{"height": 10, "width": 20, **fields})))


SOUND = {
    "text": request(DOG),
    "the most prompts": request(DOG, DOG, DOG),
    "text and exemplars": request(exemplar(box=BOX, positive=False)),
    "exemplars alone": request(pb.Prompt(exemplars=[pb.Exemplar(point=pb.Point(x=1, y=1))])),
    "an object": request(pb.Prompt(points=[pb.Point(x=5, y=5)], box=BOX)),
    "an image by id": request(DOG, image=pb.Image(id=ID)),
    "thresholds at the ends": request(pb.Prompt(text="a", score_threshold=0), score_threshold=1),
    "the most segments": request(DOG, max_segments=50),
    "logits of their size": mask(logits=bytes(400)),
    "a ring": mask(polygon=pb.Polygon(rings=[pb.Ring(xy=[0, 0, 1, 0, 1, 1])])),
    "the longest text": request(pb.Prompt(text="é" * 20)),
    "a box outside of any image": request(pb.Prompt(box=pb.Box(x0=-1e9, y0=-5, x1=1e9, y1=5))),
}

INVALID = {
    "image is missing": request(DOG, image=pb.Image()),
    "image is empty": request(DOG, image=pb.Image(data=b"")),
    "image.url is empty": request(DOG, image=pb.Image(url="")),
    "image.id is no image's id: `sha256:` and 64 hex": request(DOG, image=pb.Image(id=ID[:-1])),
    "prompts is empty": request(),
    "prompts[1] is empty": request(DOG, pb.Prompt()),
    "prompts[0] mixes": request(pb.Prompt(text="dog", points=[pb.Point(x=1, y=1)])),
    "prompts[1] mixes": request(DOG, pb.Prompt(exemplars=[pb.Exemplar(box=BOX)], box=BOX)),
    "prompts[0].text has 21 characters; the limit is 20": request(pb.Prompt(text="x" * 21)),
    "prompts[0].text is blank": request(pb.Prompt(text=" \t\n")),
    "prompts[2].points[0].x is not a finite number": request(
        DOG, DOG, pb.Prompt(points=[pb.Point(x=NAN, y=1)])
    ),
    "prompts[0].points[1].y is not": request(pb.Prompt(points=[pb.Point(x=1, y=1), pb.Point(x=1, y=-INF)])),
    "prompts[0].box[3] is not a finite": request(pb.Prompt(box=pb.Box(x0=0, y0=0, x1=1, y1=INF))),
    "prompts[0].box [3, 0, 3, 5] has no area": request(pb.Prompt(box=pb.Box(x0=3, y0=0, x1=3, y1=5))),
    "prompts[0].exemplars[1].box [0, 9, 3, 5] has no area": request(
        exemplar(box=pb.Box(x0=0, y0=9, x1=3, y1=5))
    ),
    "prompts[0].exemplars[1].point.x is not": request(exemplar(point=pb.Point(x=NAN, y=0))),
    "prompts[0].exemplars[1] has neither": request(exemplar(positive=True)),
    "prompts[0].score_threshold is 1.5": request(pb.Prompt(text="a", score_threshold=1.5)),
    "options.score_threshold is nan": request(DOG, score_threshold=NAN),
    "options.score_threshold is -0.1": request(DOG, score_threshold=-0.1),
    "options.max_segments is 0; 1..50": request(DOG, max_segments=0),
    "options.max_segments is 51; 1..50": request(DOG, max_segments=51),
    "options.mask_format 17": request(DOG, mask_format=17),
    "prompts[0].mask has no content": mask(),
    "prompts[0].mask.size [0, 20] has no area": mask(height=0, rle="x"),
    "prompts[0].mask.logits has 399 bytes": mask(logits=bytes(399)),
    "prompts[0].mask.rings[0] has 4 numbers": mask(polygon=pb.Polygon(rings=[pb.Ring(xy=[0, 0, 1, 0])])),
    "prompts[0].mask.rings[0][5] is not": mask(polygon=pb.Polygon(rings=[pb.Ring(xy=[0, 0, 1, 0, 1, NAN])])),
}

TOO_LARGE = {
    "prompts has 4 entries; the limit is 3": request(DOG, DOG, DOG, DOG),
    "prompts[0].exemplars has 3 entries; the limit is 2": request(
        pb.Prompt(exemplars=[pb.Exemplar(box=BOX)] * 3)
    ),
    "prompts[0].points has 3 entries; the limit is 2": request(pb.Prompt(points=[pb.Point(x=1, y=1)] * 3)),
    "prompts[0].mask.size [501, 2] has a side": mask(height=501, width=2, rle="x"),
    "prompts[0].mask.size [101, 100] is over the limit of 10,000": mask(height=101, width=100, rle="x"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_request_passes(name: str) -> None:
    check(SOUND[name], LIMITS)


@pytest.mark.parametrize("sentence", INVALID)
def test_a_defect_is_named(sentence: str) -> None:
    with pytest.raises(ServiceError) as refused:
        check(INVALID[sentence], LIMITS)
    assert refused.value.kind == Kind.INVALID_ARGUMENT
    assert sentence in refused.value.detail


@pytest.mark.parametrize("sentence", TOO_LARGE)
def test_what_is_too_large_is_named_with_its_limit(sentence: str) -> None:
    with pytest.raises(ServiceError) as refused:
        check(TOO_LARGE[sentence], LIMITS)
    assert refused.value.kind == Kind.PAYLOAD_TOO_LARGE
    assert sentence in refused.value.detail


def test_a_concept_is_text_or_exemplars() -> None:
    assert is_concept(DOG) and is_concept(pb.Prompt(exemplars=[pb.Exemplar(box=BOX)]))
    assert not is_concept(pb.Prompt(box=BOX))


@pytest.mark.parametrize(
    "id", ["", ID.upper(), ID + "0", ID + "\n", "sha1:" + "0" * 64, "0" * 64, "../" + ID]
)
def test_what_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(ServiceError, match="id is no image's id") as refused:
        check_image_id(id)
    assert refused.value.kind == Kind.INVALID_ARGUMENT


def test_the_id_is_the_digest_of_the_bytes() -> None:
    assert image_id(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    check_image_id(image_id(b""))


NO_NEW_IMAGE = {
    "image is missing": pb.EncodeImageRequest(),
    "image is empty": pb.EncodeImageRequest(image=pb.Image(data=b"")),
    "image.id names an image that was sent before": pb.EncodeImageRequest(image=pb.Image(id=ID)),
}


@pytest.mark.parametrize("sentence", NO_NEW_IMAGE)
def test_a_request_without_a_new_image_is_refused(sentence: str) -> None:
    with pytest.raises(ServiceError) as refused:
        check_new_image(NO_NEW_IMAGE[sentence], LIMITS)
    assert sentence in refused.value.detail
    assert refused.value.kind == Kind.INVALID_ARGUMENT


@pytest.mark.parametrize("image", [IMAGE, pb.Image(url="http://a/b")])
def test_a_new_image_comes_by_bytes_or_address(image: pb.Image) -> None:
    check_new_image(pb.EncodeImageRequest(image=image), LIMITS)


def test_masks_of_a_request_share_one_limit_on_pixels() -> None:
    mask = pb.Mask(height=10, width=10, rle="0")
    limits = Limits(max_image_pixels=250)
    for count in (2, 3):
        request = pb.SegmentRequest(image=pb.Image(data=b"x"), prompts=[pb.Prompt(mask=mask)] * count)
        if count == 2:
            check(request, limits)
            continue
        with pytest.raises(ServiceError, match=r"masks of 300 pixels in all; the limit is 250") as refused:
            check(request, limits)
        assert refused.value.kind is Kind.PAYLOAD_TOO_LARGE


def _open(**options: Any) -> tracking_pb.OpenSessionRequest:
    return tracking_pb.OpenSessionRequest(options=tracking_pb.TrackOptions(**options))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (tracking_pb.OpenSessionRequest(ttl_s=10**9), "ttl_s is 1000000000; at most"),
        (tracking_pb.OpenSessionRequest(frames_total=0), "frames_total is 0"),
        (_open(score_threshold=1.5), "options.score_threshold is 1.5; 0..1 is allowed"),
        (_open(new_object_threshold=NAN), "options.new_object_threshold is nan; 0..1 is allowed"),
        (_open(confirm_frames=61), "options.confirm_frames is 61; 0..60 is allowed"),
    ],
)
def test_what_opens_no_session_is_named(asked: tracking_pb.OpenSessionRequest, says: str) -> None:
    with pytest.raises(ServiceError) as error:
        check_open(asked, LIMITS)
    assert error.value.kind is Kind.INVALID_ARGUMENT and says in error.value.detail
    check_open(_open(score_threshold=1.0, confirm_frames=60), LIMITS)


def test_a_videos_prompts_and_the_points_of_all_rings_are_bounded() -> None:
    limits = Limits(max_video_prompts=2, max_mask_points=5)
    shown = [tracking_pb.VideoPrompt(frame=index, prompt={"box": BOX}) for index in range(3)]
    check_video(tracking_pb.TrackVideoRequest(video=b"bytes", prompts=shown[:2]), limits)
    triangle = mask(polygon=pb.Polygon(rings=[pb.Ring(xy=[0, 0, 1, 0, 1, 1])]))
    check(triangle, limits)
    two = pb.SegmentRequest(image=IMAGE, prompts=[*triangle.prompts, *triangle.prompts])
    for ask, says in (
        (lambda: check_video(tracking_pb.TrackVideoRequest(video=b"v", prompts=shown), limits), "limit is 2"),
        (lambda: check(two, limits), "6 points in all; the limit is 5"),
    ):
        with pytest.raises(ServiceError) as refused:
            ask()
        assert refused.value.kind == Kind.PAYLOAD_TOO_LARGE and says in refused.value.detail
