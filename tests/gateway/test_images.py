"""POST and DELETE /v1/images, EncodeImage and DeleteImage, and requests that name an image by its id."""

import asyncio
import base64
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from service.errors import Kind, ServiceError
from service.gateway.pool import choose
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import image_id
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker

IMAGE = b"\xff\xd8 not decoded here"
ID = image_id(IMAGE)
BASE64 = base64.b64encode(IMAGE).decode()
TRUCK: dict[str, Any] = {"prompts": [{"text": "truck"}]}


def encode(house: House, image: bytes = IMAGE, **fields: Any) -> Any:
    body = {"image": {"base64": base64.b64encode(image).decode()}, **fields}
    return house.http.post("/v1/images", json=body)


def segment(house: House, id: str = ID, **fields: Any) -> Any:
    return house.http.post("/v1/segment", json={**TRUCK, "image": {"id": id}, **fields})


def delete(house: House, id: str = ID) -> Any:
    return house.http.delete(f"/v1/images/{id}")


def refused(call: Any, request: Any) -> ServiceError:
    with pytest.raises(grpc.RpcError) as failure:
        call(request)
    return from_rpc_error(failure.value)


def workers(house: House, count: int, variant: str = "demo") -> list[FakeWorker]:
    made = [house.worker(variant) for _ in range(count)]
    for each in made:
        house.run(each.start())
    return made


def test_json_multipart_and_grpc_keep_an_image_alike(served: House) -> None:
    as_json = encode(served, variant="demo")
    parts = {"image": ("a.jpg", IMAGE), "request": (None, '{"variant": "demo"}')}
    multipart = served.http.post("/v1/images", files=parts)
    image_alone = served.http.post("/v1/images", files={"image": ("a.jpg", IMAGE)})
    over_grpc = served.stub.EncodeImage(pb.EncodeImageRequest(image=pb.Image(data=IMAGE)))

    assert as_json.status_code == 200, as_json.text
    assert as_json.json() == multipart.json() == image_alone.json()
    assert as_json.json() == {
        "variant": "demo",
        "image": {"id": ID, "width": 6, "height": 4},
        "kept_until": "2026-11-24T10:20:30Z",
        "timings_ms": {"queue": 0.5, "image_encoder": 80.0, "total": 81.0},
    }
    assert over_grpc.image == pb.ImageInfo(id=ID, width=6, height=4)
    assert over_grpc.kept_until == as_json.json()["kept_until"]
    wanted = pb.EncodeImageRequest(variant="demo", image=pb.Image(data=IMAGE))
    assert served._workers[0].encoded == [wanted] * 4


def test_a_kept_image_is_named_by_its_id_until_it_is_deleted(served: House) -> None:
    by_id = pb.SegmentRequest(image=pb.Image(id=ID), prompts=[pb.Prompt(text="truck")])
    missing = segment(served)
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems/image_not_found")
    assert refused(served.stub.Segment, by_id).kind is Kind.IMAGE_NOT_FOUND

    assert encode(served).status_code == 200
    answer = segment(served)
    assert (answer.status_code, answer.json()["image"]["id"]) == (200, ID)
    assert served.stub.Segment(by_id).image.id == ID

    gone = delete(served)
    assert (gone.status_code, gone.content) == (204, b"")
    again = delete(served)
    assert (again.status_code, again.json()["type"]) == (404, "/problems/image_not_found")
    assert ID in again.json()["detail"]
    assert segment(served).status_code == 404

    served.stub.EncodeImage(pb.EncodeImageRequest(image=pb.Image(data=IMAGE)))
    served.stub.DeleteImage(pb.DeleteImageRequest(id=ID))
    error = refused(served.stub.DeleteImage, pb.DeleteImageRequest(id=ID))
    assert error.kind is Kind.IMAGE_NOT_FOUND


def test_nobody_can_say_on_whose_behalf_they_ask(served: House) -> None:
    mine = (("x-owner", "somebody"),)
    served.stub.EncodeImage(pb.EncodeImageRequest(image=pb.Image(data=IMAGE)), metadata=mine)
    served.http.post(
        "/v1/segment", json={**TRUCK, "image": {"base64": BASE64}}, headers={"X-Owner": "somebody"}
    )
    served.http.delete(f"/v1/images/{ID}", headers={"X-Owner": "somebody"})
    assert served._workers[0].owners == ["", "", ""]


DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({}, "image: Field required"),
    "nothing in it": ({"image": {}}, "image: needs exactly one of base64 and url; it has none"),
    "two in it": (
        {"image": {"base64": BASE64, "url": "http://a/"}},
        "image: needs exactly one of base64 and url; it has base64 and url",
    ),
    "an id": ({"image": {"id": ID}}, "image.id: there is no such field"),
    "an empty image": ({"image": {"base64": ""}}, "image is empty"),
    "no base64": ({"image": {"base64": "?"}}, "image.base64: is not valid base64"),
    "prompts": ({"image": {"base64": BASE64}, "prompts": []}, "prompts: there is no such field"),
    "a variant that is a number": ({"image": {"base64": BASE64}, "variant": 7}, "variant: "),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_by_its_json_path(served: House, defect: str) -> None:
    body, sentence = DEFECTS[defect]
    answer = served.http.post("/v1/images", json=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument"), answer.text
    assert answer.json()["detail"].startswith(sentence), answer.json()["detail"]
    assert not served._workers[0].encoded


def test_malformed_multipart_is_refused(served: House) -> None:
    image = ("a.jpg", IMAGE)
    for detail, content in (
        ("'image' is missing", {"files": {"request": (None, "{}")}}),
        ("no part 'picture'", {"files": {"image": image, "picture": image}}),
        ("'request' was sent 2 times", {"files": [("image", image), *[("request", (None, "{}"))] * 2]}),
        ("must be a file", {"files": {"image": (None, IMAGE)}}),
        (
            "prompts: there is no such field",
            {"files": {"image": image}, "data": {"request": '{"prompts":[]}'}},
        ),
        ("Content-Type must be", {"content": IMAGE, "headers": {"Content-Type": "image/jpeg"}}),
    ):
        answer = served.http.post("/v1/images", **content)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument"), detail
        assert detail in answer.json()["detail"]
    assert not served._workers[0].encoded


def test_other_refusals_are_those_of_every_request(served: House) -> None:
    large = encode(served, bytes(150_000))
    assert (large.status_code, large.json()["type"]) == (413, "/problems/payload_too_large")
    unknown = encode(served, variant="es-ev-xl")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/variant_not_found")
    served._workers[0].failure = ServiceError(Kind.UNSUPPORTED_IMAGE, "what the worker said")
    unreadable = encode(served)
    assert (unreadable.status_code, unreadable.json()["detail"]) == (415, "what the worker said")

    def grpc_kind(**fields: Any) -> Kind:
        return refused(served.stub.EncodeImage, pb.EncodeImageRequest(**fields)).kind

    assert grpc_kind() is Kind.INVALID_ARGUMENT
    assert grpc_kind(image=pb.Image(id=ID)) is Kind.INVALID_ARGUMENT
    assert grpc_kind(image=pb.Image(data=bytes(150_000))) is Kind.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize("id", ["abc", "sha256:00", ID.upper(), ID + "0"])
def test_what_is_no_id_is_refused(served: House, id: str) -> None:
    for answer, field in ((delete(served, id), "id"), (segment(served, id), "image.id")):
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument")
        assert answer.json()["detail"].startswith(f"{field} is no image's id")
    error = refused(served.stub.DeleteImage, pb.DeleteImageRequest(id=id))
    assert error.kind is Kind.INVALID_ARGUMENT
    assert not served._workers[0].request_ids


def test_an_image_counts_among_the_requests_that_may_wait(house: House) -> None:
    house.open(house.worker(), max_waiting=1)
    pool = house.gateway.router.pool("demo")
    place = pool.requests.hold("")
    house.tell(place.__enter__)
    answer = encode(house)
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/overloaded")


def test_requests_for_an_image_go_to_the_worker_that_keeps_it(house: House) -> None:
    three = workers(house, 3)
    house.open(*three)
    house.wait_ready(workers=3)
    images = [b"image %d" % each for each in range(24)]
    for image in images:
        assert encode(house, image).status_code == 200
    assert sum(len(each.kept) for each in three) == 24
    assert all(each.kept for each in three), "every worker is some images' favourite"
    for image in images:
        assert segment(house, image_id(image)).status_code == 200
    assert [len(each.asked) for each in three] == [len(each.kept) for each in three]


def test_when_the_favourite_is_gone_the_next_one_answers_and_other_images_stay(house: House) -> None:
    three = workers(house, 3)
    house.open(*three)
    house.wait_ready(workers=3)
    images = [b"image %d" % each for each in range(24)]
    for image in images:
        encode(house, image)
    gone, *others = three
    house.run(gone.die())
    house.wait_ready(workers=2)
    for image in images:
        lost = ("", image_id(image)) in gone.kept
        answer = segment(house, image_id(image))
        assert (answer.status_code == 404) == lost
        if lost:
            assert answer.json()["type"] == "/problems/image_not_found"
            assert encode(house, image).status_code == 200
            assert segment(house, image_id(image)).status_code == 200
    assert sum(len(each.kept) for each in others) == 24


def test_a_request_by_id_whose_worker_dies_is_sent_to_the_next_favourite(house: House) -> None:
    both = workers(house, 2)
    house.open(*both)
    house.wait_ready(workers=2)
    encode(house)
    keeper = next(each for each in both if each.kept)
    (other,) = (each for each in both if each is not keeper)
    house.tell(keeper.gate.clear)
    keeper.arrived.clear()
    asked = house.stub.Segment.future(
        pb.SegmentRequest(image=pb.Image(id=ID), prompts=[pb.Prompt(text="a")]), timeout=60
    )
    assert keeper.arrived.wait(30)
    house.run(keeper.die())
    with pytest.raises(grpc.RpcError) as failure:
        asked.result(60)
    assert from_rpc_error(failure.value).kind is Kind.IMAGE_NOT_FOUND
    assert (len(keeper.asked), len(other.asked)) == (1, 1)


def test_requests_with_their_image_go_to_the_least_busy_as_ever(house: House) -> None:
    both = workers(house, 2)
    house.open(*both)
    house.wait_ready(workers=2)
    for each in both:
        house.tell(each.gate.clear)
    request = pb.SegmentRequest(image=pb.Image(data=IMAGE), prompts=[pb.Prompt(text="a")])
    asked = [house.stub.Segment.future(request, timeout=60) for _ in range(4)]
    while sum(len(each.asked) for each in both) < 4:
        house.run(asyncio.sleep(0.01))
    assert [len(each.asked) for each in both] == [2, 2]
    for each in both:
        house.tell(each.gate.set)
    assert all(each.result(60).results for each in asked)


ADDRESSES = [f"10.0.0.{each}:50061" for each in range(5)]
IDS = [image_id(b"%d" % each) for each in range(200)]


def _favourites(addresses: list[str]) -> list[str]:
    ready: Any = [SimpleNamespace(address=address, load=0) for address in addresses]
    return [choose(ready, id).address for id in IDS]


def test_the_favourite_is_the_same_in_every_gateway() -> None:
    code = (
        "from tests.gateway.test_images import ADDRESSES, _favourites; print(*_favourites(ADDRESSES[::-1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == _favourites(ADDRESSES)


def test_only_the_images_of_a_worker_that_goes_change_their_favourite() -> None:
    before, after = _favourites(ADDRESSES), _favourites(ADDRESSES[1:])
    shares = [before.count(address) for address in ADDRESSES]
    assert min(shares) > 20, "they share about equally"
    for one, other in zip(before, after, strict=True):
        assert one in (other, ADDRESSES[0])


def test_an_image_is_forgotten_wherever_it_is_kept(house: House) -> None:
    demo, other = workers(house, 2), workers(house, 1, "other")
    house.open(*demo, *other)
    house.wait_ready("demo", workers=2)
    house.wait_ready("other")
    for variant in ("demo", "other"):
        assert encode(house, variant=variant).status_code == 200
    # As if it had been sent before a worker came.
    house.tell(lambda: [each.kept.update({("", ID): IMAGE}) for each in demo])
    assert delete(house).status_code == 204
    assert not any(each.kept for each in (*demo, *other))
    assert delete(house).status_code == 404


def test_what_cannot_be_forgotten_now_is_not_said_to_be(house: House) -> None:
    one, other = workers(house, 2)
    house.open(one, other)
    house.wait_ready(workers=2)
    for each in (one, other):
        house.tell(lambda each=each: each.kept.update({("", ID): IMAGE}))  # type: ignore[misc]
    one.failure = ServiceError(Kind.STORE_UNAVAILABLE, "the store is gone")
    answer = delete(house)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store_unavailable")
    one.failure = None
    assert delete(house).status_code == 204

    for each in (one, other):
        house.run(each.die())
    house.wait_ready(workers=0)
    nobody = delete(house)
    assert (nobody.status_code, nobody.json()["type"]) == (503, "/problems/unavailable")
    assert int(nobody.headers["retry-after"]) >= 1


def test_they_are_in_the_document_and_in_the_metrics(served: House) -> None:
    document = served.http.get("/openapi.json").json()
    post, gone = document["paths"]["/v1/images"]["post"], document["paths"]["/v1/images/{id}"]["delete"]
    content = post["requestBody"]["content"]
    assert content.keys() == {"application/json", "multipart/form-data"}
    assert content["multipart/form-data"]["schema"]["required"] == ["image"]
    assert {"200", "400", "404", "413", "415", "429", "500", "503", "504"} == post["responses"].keys()
    assert {"204", "400", "404", "500", "503", "504"} == gone["responses"].keys()
    assert "content" not in gone["responses"]["204"]
    schemas = document["components"]["schemas"]
    assert schemas["EncodeAnswer"]["properties"]["kept_until"]["format"] == "date-time"
    assert schemas["NewImageIn"]["properties"].keys() == {"base64", "url"}
    assert schemas["ImageIn"]["properties"].keys() == {"base64", "url", "id"}
    assert "sha256:[0-9a-f]{64}" in json.dumps(schemas["ImageIn"]["properties"]["id"])

    encode(served)
    delete(served)
    metrics = served.http.get("/metrics").text
    assert 'efficientsam3_requests_total{kind="ok",transport="http",variant="demo"} 1.0' in metrics
    assert 'efficientsam3_requests_total{kind="ok",transport="http",variant=""} 1.0' in metrics
    assert 'efficientsam3_stage_seconds_count{stage="image_encoder",variant="demo"} 1.0' in metrics
