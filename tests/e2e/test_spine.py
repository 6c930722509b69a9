"""A text prompt on a real JPEG through the whole house: command, HTTP, gRPC, gateway, worker, graphs."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.rpc import from_rpc_error
from tests.command import run_command
from tests.pictures import encoded
from tests.serving import Serving
from tests.tracked_clip import SAMPLES

# What the README asks first: it shows four animals.
JPEG = (SAMPLES / "pets.jpg").read_bytes()
PICTURE = Image.open(io.BytesIO(JPEG)).convert("RGB")
TEXT = "animal"
ASKED: dict[str, Any] = {"prompts": [{"text": TEXT}]}


def test_multipart_json_and_grpc_give_the_same_answer(serving: Serving) -> None:
    multipart = serving.segment(JPEG, ASKED).json()
    as_json = serving.client.post(
        "/v1/segment", json={**ASKED, "image": {"base64": base64.b64encode(JPEG).decode()}}
    ).json()
    answer = serving.stub().Segment(
        pb.SegmentRequest(image=pb.Image(data=JPEG), prompts=[pb.Prompt(text=TEXT)])
    )

    segments = multipart["results"][0]["segments"]
    assert segments, "some are found, and of a synthesized student kept"
    assert multipart["image"] == {"id": answer.image.id, "width": PICTURE.width, "height": PICTURE.height}
    assert {**as_json, "timings_ms": None} == {**multipart, "timings_ms": None}
    assert len(answer.results[0].segments) == len(segments)
    for ours, theirs in zip(segments, answer.results[0].segments, strict=True):
        assert ours["score"] == theirs.score
        assert ours["box"] == [theirs.box.x0, theirs.box.y0, theirs.box.x1, theirs.box.y1]
        assert (ours["area"], ours["label"]) == (theirs.area, theirs.label)
        assert ours["mask"] == {
            "format": "rle",
            "size": [theirs.mask.height, theirs.mask.width],
            "counts": theirs.mask.rle,
        }


def test_an_image_that_was_sent_once_answers_as_one_that_comes_along(serving: Serving) -> None:
    along = serving.segment(JPEG, ASKED).json()
    kept = serving.client.post("/v1/images", files={"image": ("a.jpg", JPEG)}).json()
    assert kept["image"] == along["image"]
    by_id = {**ASKED, "image": {"id": kept["image"]["id"]}}
    answer = serving.client.post("/v1/segment", json=by_id).json()
    assert {**answer, "timings_ms": None} == {**along, "timings_ms": None}
    address = f"/v1/images/{kept['image']['id']}"
    assert [serving.client.delete(address).status_code for _ in range(2)] == [204, 404]
    gone = serving.client.post("/v1/segment", json=by_id)
    assert (gone.status_code, gone.json()["type"]) == (404, "/problems/image_not_found")


def test_an_answer_is_what_the_api_says(serving: Serving) -> None:
    # Not seen before: of a picture that was, nothing is decoded again.
    picture = encoded(PICTURE, quality=91)
    options = {"max_segments": 3, "score_threshold": 0.1}
    answer = serving.segment(picture, {**ASKED, "options": options}).json()
    segments = answer["results"][0]["segments"]
    assert len(segments) == 3
    scores = [segment["score"] for segment in segments]
    assert scores == sorted(scores, reverse=True)
    assert all(0.1 < score <= 1 for score in scores)
    for segment in segments:
        x0, y0, x1, y1 = segment["box"]
        assert 0 <= x0 <= x1 <= PICTURE.width and 0 <= y0 <= y1 <= PICTURE.height
        decoded = coco.decode({"size": segment["mask"]["size"], "counts": segment["mask"]["counts"]})
        assert decoded.shape == (PICTURE.height, PICTURE.width)
        assert int(decoded.sum()) == segment["area"]
    assert {"decode", "image_encoder", "concept_decoder", "total"} <= answer["timings_ms"].keys()


def test_every_mask_format_says_the_same(serving: Serving) -> None:
    answers = {
        name: serving.segment(JPEG, {**ASKED, "options": {"mask_format": name}}).json()["results"][0][
            "segments"
        ]
        for name in ("rle", "png", "polygon", "none")
    }
    assert all("mask" not in segment or segment["mask"] is None for segment in answers["none"])
    for rle, png, polygon in zip(answers["rle"], answers["png"], answers["polygon"], strict=True):
        truth = coco.decode({"size": rle["mask"]["size"], "counts": rle["mask"]["counts"]})
        from_png = np.asarray(Image.open(io.BytesIO(base64.b64decode(png["mask"]["png"]))))
        assert np.array_equal(from_png == 255, truth == 1)
        assert bool(polygon["mask"]["rings"]) == bool(truth.any())


def _defects() -> dict[str, tuple[bytes, dict[str, Any], int, str]]:
    one_bit = encoded(Image.new("1", (12_000, 12_000)), "PNG")
    return {
        "a truncated JPEG": (JPEG[: len(JPEG) // 2], ASKED, 415, "unsupported_image"),
        "144 million pixels in a small file": (one_bit, ASKED, 413, "payload_too_large"),
        "no prompts": (JPEG, {"prompts": []}, 400, "invalid_argument"),
        "an unknown variant": (JPEG, {**ASKED, "variant": "es-ev-xl"}, 404, "variant_not_found"),
        "text of 10,000 characters": (JPEG, {"prompts": [{"text": "x" * 10_000}]}, 400, "invalid_argument"),
        "a coordinate that is no number": (
            JPEG,
            {"prompts": [{"points": [{"x": math.nan, "y": 1.0, "positive": True}]}]},
            400,
            "invalid_argument",
        ),
        "a body over the limit": (JPEG + bytes(4_000_000), ASKED, 413, "payload_too_large"),
    }


def _as_grpc(image: bytes, request: dict[str, Any]) -> pb.SegmentRequest:
    prompts = []
    for prompt in request["prompts"]:
        points = [pb.Point(x=point["x"], y=point["y"]) for point in prompt.get("points", [])]
        prompts.append(pb.Prompt(text=prompt.get("text", ""), points=points))
    return pb.SegmentRequest(variant=request.get("variant", ""), image=pb.Image(data=image), prompts=prompts)


@pytest.mark.parametrize("defect", _defects())
def test_bad_input_is_refused_alike_on_both_and_the_service_goes_on(serving: Serving, defect: str) -> None:
    image, request, status, kind = _defects()[defect]

    refused = serving.segment(image, request)
    assert (refused.status_code, refused.json()["type"]) == (status, f"/problems/{kind}"), refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["instance"] == refused.headers["x-request-id"]

    with pytest.raises(grpc.RpcError) as failure:
        serving.stub().Segment(_as_grpc(image, request))
    error = from_rpc_error(failure.value)
    assert str(error.kind) == kind, error.detail

    assert serving.segment(JPEG, ASKED).status_code == 200


def test_the_gateway_process_has_loaded_no_model_runtime(serving: Serving) -> None:
    assert serving.segment(JPEG, ASKED).status_code == 200
    gateway = Path(f"/proc/{serving.process.pid}/maps").read_text()
    worker = Path(f"/proc/{serving.workers()[0].pid}/maps").read_text()
    for runtime in ("onnxruntime", "openvino", "torch", "numpy"):
        assert f"/{runtime}/" not in gateway, runtime
    assert "/openvino/" in worker and "/torch/" not in worker


def test_the_command_draws_an_overlay(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "street.jpg").write_bytes(JPEG)
    overlay = tmp_path / "overlay.png"
    arguments = ["segment", str(tmp_path / "street.jpg"), "--text", TEXT, "--server", serving.url]
    run_command(*arguments, "--out", str(overlay))
    with Image.open(overlay) as drawn:
        assert drawn.size == PICTURE.size
        difference = np.asarray(drawn.convert("RGB"), dtype=int) - np.asarray(PICTURE, dtype=int)
    segments = json.loads(run_command(*arguments, "--json").stdout)["results"][0]["segments"]
    assert segments and np.abs(difference).max() > 50
