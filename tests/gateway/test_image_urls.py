"""Images by address, through the whole gateway: off, allowed, refused, and for clients that leave."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from service.errors import Kind
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.internet import Internet, endless, page, redirect, silence

IMAGE = b"\xff\xd8 not decoded here"
URL = "http://pictures.test/a.jpg"
PROMPTS: list[dict[str, Any]] = [{"text": "truck"}]


@pytest.fixture
def internet(house: House) -> Iterator[Internet]:
    """What a gateway of the house takes for the internet, with an image at `/`."""
    internet = Internet(pages={"/": page(IMAGE), "/secret": redirect("http://169.254.169.254/")})
    house.run(internet.__aenter__())
    yield internet
    house.run(internet.__aexit__())


@pytest.fixture
def fetching(house: House, internet: Internet) -> House:
    """A house with one ready worker, whose gateway fetches images."""
    worker = house.worker()
    house.run(worker.start())

    async def fetcher() -> Any:
        return internet.fetcher(max_bytes=1000)

    house.open(worker, fetch=house.run(fetcher()))
    house.wait_ready()
    return house


def ask(house: House, url: str) -> list[Any]:
    """The four answers of those who name an image by its address; over gRPC a failure is a ServiceError."""
    image = {"url": url}
    answers = [
        house.http.post("/v1/segment", json={"image": image, "prompts": PROMPTS}),
        house.http.post("/v1/images", json={"image": image}),
    ]
    segment = pb.SegmentRequest(image=pb.Image(**image), prompts=[pb.Prompt(text="truck")])
    for method, request in (
        (house.stub.Segment, segment),
        (house.stub.EncodeImage, pb.EncodeImageRequest(image=pb.Image(**image))),
    ):
        try:
            answers.append(method(request))
        except grpc.RpcError as error:
            answers.append(from_rpc_error(error))
    return answers


def refusals(house: House, url: str, kind: Kind) -> set[str]:
    """What those four are told, who must all be refused by that kind."""
    segment, encode, *over_grpc = ask(house, url)
    for answer in (segment, encode):
        assert answer.json()["type"] == f"/problems/{kind}", answer.text
    assert [each.kind for each in over_grpc] == [kind, kind]
    return {segment.json()["detail"], encode.json()["detail"], *(each.detail for each in over_grpc)}


def test_they_are_off_unless_allowed(served: House) -> None:
    (detail,) = refusals(served, URL, Kind.INVALID_ARGUMENT)
    assert detail == (
        "image.url is not taken: this server fetches nothing unless its operator sets allow_image_urls. "
        "Send the image's bytes."
    )
    assert not served._workers[0].request_ids


def test_when_allowed_the_worker_gets_the_bytes(fetching: House, internet: Internet) -> None:
    segment, encode, *over_grpc = ask(fetching, internet.base)
    assert (segment.status_code, encode.status_code) == (200, 200)
    assert over_grpc[0].results and over_grpc[1].image.id == encode.json()["image"]["id"]
    (worker,) = fetching._workers
    assert [each.image for each in (*worker.asked, *worker.encoded)] == [pb.Image(data=IMAGE)] * 4
    by_id = {"image": {"id": encode.json()["image"]["id"]}, "prompts": PROMPTS}
    assert fetching.http.post("/v1/segment", json=by_id).status_code == 200
    metrics = fetching.http.get("/metrics").text
    assert 'efficientsam3_stage_seconds_count{stage="fetch",variant="demo"} 4.0' in metrics


def test_what_may_not_be_fetched_is_refused_before_a_worker_is_asked(
    fetching: House, internet: Internet
) -> None:
    (detail,) = refusals(fetching, f"{internet.base}/secret", Kind.INVALID_ARGUMENT)
    assert "only the ports" in detail and "169.254" not in detail
    internet.pages["/"] = page(bytes(1001))
    (detail,) = refusals(fetching, internet.base, Kind.PAYLOAD_TOO_LARGE)
    assert "more bytes than the limit of 1,000" in detail
    assert not fetching._workers[0].request_ids


def test_the_requests_deadline_bounds_the_fetching(fetching: House, internet: Internet) -> None:
    internet.pages["/"] = silence
    body = {"image": {"url": internet.base}}
    answer = fetching.http.post("/v1/images", json=body, headers={"X-Deadline-Ms": "300"})
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline_exceeded")
    assert answer.json()["detail"] == "image.url was not fetched within the request's deadline."


def test_a_client_that_leaves_ends_the_fetching(fetching: House, internet: Internet) -> None:
    left = asyncio.Event()

    async def until_nobody_reads(writer: asyncio.StreamWriter) -> None:
        try:
            await endless(b"a", 0.02)(writer)
        finally:
            left.set()

    internet.pages["/"] = until_nobody_reads
    request = pb.EncodeImageRequest(image=pb.Image(url=internet.base))
    asked = fetching.stub.EncodeImage.future(request)
    while not internet.asked:
        fetching.run(asyncio.sleep(0.01))
    asked.cancel()
    fetching.run(asyncio.wait_for(left.wait(), 30))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1/", "not of the open internet"),
        ("http://localhost/", "not of the open internet"),
        ("http://[::1]/", "not of the open internet"),
        ("http://127.0.0.1:8080/", "only the ports 80, 443"),
        ("file:///etc/passwd", "image.url"),
    ],
)
def test_the_setting_allows_the_open_internet_alone(house: House, url: str, words: str) -> None:
    house.open(house.worker(), allow_image_urls=True)
    answer = house.http.post("/v1/images", json={"image": {"url": url}})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument")
    assert words in answer.json()["detail"]
