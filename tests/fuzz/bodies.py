"""Edited bodies and streams: JSON, multipart, images, videos and masks, and what carries them."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import bombs, images, seeds
from tests.fuzz.case import LIVE_IMAGE, LIVE_SESSION, Case
from tests.fuzz.mutations import chosen, edited_bytes, edited_json, json_bodies, json_text

JSON = ("Content-Type", "application/json")


IDS = st.sampled_from(
    (
        LIVE_SESSION,
        LIVE_IMAGE,
        "",
        ".",
        "..",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%00",
        "demo.0",
        "demo." + 32 * "f",
        "unknown." + 32 * "f",
        "demo.000000000000-" + 33 * "0",
        "sha256:" + 64 * "F",
        "sha256%3A" + 64 * "0",
        "a" * 4000,
        "%ff%fe",
        "é",
        "x;y=z",
        "*",
        "demo%0d%0aX: y",
    )
)


@st.composite
def multipart_bodies(
    draw: st.DrawFn, name: str, target: str, requests: Callable[[], list[Any]], file: str, content: bytes
) -> Case:
    """Parts with an edited request, dropped, repeated or renamed; with odd headers; and edited bytes."""
    asked = json_text(edited_json(draw, chosen(draw, requests()), 2))
    parts = [(file, "file", "", content), ("request", "", "application/json", asked)]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, max(0, len(parts) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                parts[at : at + 1] = parts[at : at + 1] * draw(st.sampled_from((0, 2, 40)))
            case 1 if parts:
                odd = draw(
                    st.sampled_from(
                        ("", "x", "image", "request", "video", "im\u00e9", "a" * 3000, '"', "image\r\nX: y")
                    )
                )
                parts[at] = (odd, *parts[at][1:])
            case 2 if parts:
                odd = draw(st.sampled_from(("", "../../x", "a" * 9000, "\u732b", 'a"; name="request', "\0")))
                parts[at] = (parts[at][0], odd, *parts[at][2:])
            case _ if parts:
                kind = draw(
                    st.sampled_from(
                        (
                            "text/plain; charset=utf-7",
                            "multipart/mixed; boundary=x",
                            "application/x-gzip",
                            "x",
                        )
                    )
                )
                parts[at] = (*parts[at][:2], kind, parts[at][3])
    body = bombs.multipart(*parts)
    if draw(st.integers(0, 4)) == 4:
        body = edited_bytes(draw, body, 3)
    kinds = (bombs.MULTIPART,) * 9 + (
        ("Content-Type", "multipart/form-data"),
        ("Content-Type", "multipart/form-data; boundary=" + "b" * 300),
    )
    return Case(name, target, (draw(st.sampled_from(kinds)),), (body,))


@st.composite
def carried_images(draw: st.DrawFn) -> Case:
    """An edited image file over any way that takes one."""
    return carried_image(draw(images.images()), draw(st.integers(0, 3)))


def carried_image(file: bytes, way: int = 0) -> Case:
    """The image file over one of four ways."""
    if way == 0:
        return Case("image.bytes", "POST /v1/segment", (bombs.MULTIPART,), (bombs.with_image(file),))
    if way == 1:
        return Case(
            "image.bytes", "POST /v1/images", (bombs.MULTIPART,), (bombs.multipart(("image", "a", "", file)),)
        )
    if way == 2:
        body = seeds.with_image({"prompts": [seeds.CLICK]}) | {"image": {"base64": seeds._base64(file)}}
        return Case("image.bytes", "POST /v1/segment", (JSON,), (json_text(body),))
    frame = json.dumps({"frame": 0, "prompts": [seeds.CLICK]}).encode()
    parts = (("image", "a", "", file), ("request", "", "application/json", frame))
    return Case(
        "image.bytes",
        f"POST /v1/sessions/{LIVE_SESSION}/frames",
        (bombs.MULTIPART,),
        (bombs.multipart(*parts),),
    )


def valid_images() -> list[Case]:
    return [carried_image(file, index % 4) for index, file in enumerate(images.seeds().values())]


def carried_video(file: bytes) -> Case:
    """The video file over HTTP."""
    return Case("video.bytes", "POST /v1/videos/track", (bombs.MULTIPART,), (bombs.with_video(file),))


@st.composite
def masks(draw: st.DrawFn) -> Case:
    """A click's image with one edited mask."""
    mask = edited_json(draw, chosen(draw, seeds.masks()), 2)
    body = seeds.with_image({"prompts": [{"mask": mask}]})
    return Case("mask", "POST /v1/segment", (JSON,), (json_text(body),))


_STREAM = f"/v1/sessions/{LIVE_SESSION}/stream"


def valid_streams() -> list[Case]:
    inside = json_text(seeds.with_image(seeds.frames()[1])).decode()
    return [
        Case("session.stream", _STREAM, messages=(json.dumps(seeds.frames()[0]), seeds.png())),
        Case("session.stream", _STREAM, messages=(inside,)),
    ]


@st.composite
def streams(draw: st.DrawFn) -> Case:
    """Text and binary messages in any order, edited; up to six."""
    documents = [
        *seeds.frames(),
        seeds.with_image(seeds.frames()[1]),
        {"frame": 0, "known_image": True, "revision": 1},
        {"frame": 0, "key": "x"},
    ]
    text = json_bodies(lambda: documents, 2).map(lambda body: body.decode("utf-8", "replace"))
    binary = st.one_of(st.just(seeds.png()), images.images())
    pairs = st.tuples(text, binary).map(list)
    kinds = st.one_of(pairs, text.map(lambda each: [each]), binary.map(lambda each: [each]))
    messages = tuple(each for some in draw(st.lists(kinds, min_size=1, max_size=3)) for each in some)
    odd = f"/v1/sessions/{draw(IDS)}/stream".replace("é", "%c3")
    path = draw(st.sampled_from((_STREAM,) * 12 + (odd, "/v1/segment", "/page/app.js", "/")))
    return Case("session.stream", path, messages=messages)
