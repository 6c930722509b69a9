"""The client's patience: what may pass is asked again, what may not is not."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from service.client import Client
from service.errors import TABLE, Kind, ServiceError
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker
from tests.pictures import encoded

PICTURE = encoded(Image.new("RGB", (6, 4), "grey"), "PNG")


@pytest.fixture
def worker(house: House) -> FakeWorker:
    """Ready behind a gateway."""
    worker = house.worker()
    house.run(worker.start())
    house.open(worker)
    house.wait_ready()
    return worker


@pytest.fixture(params=["http", "grpc"])
def address(request: pytest.FixtureRequest, house: House, worker: FakeWorker) -> str:
    """The gateway's."""
    return house.gateway.url if request.param == "http" else f"grpc://{house.gateway.grpc_address}"


def test_what_may_pass_is_asked_again(house: House, worker: FakeWorker, address: str) -> None:
    worker.failure = ServiceError(Kind.OVERLOADED, "busy", retry_after_s=0.1)
    with Client(address, patience_s=600) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.segment, PICTURE, [{"text": "a"}])
        while len(worker.asked) < 3:
            assert not asked.done(), asked.result()
            time.sleep(0.01)
        worker.failure = None
        assert asked.result().variant == "demo"


@pytest.mark.parametrize("kind", [kind for kind in Kind if not TABLE[kind].retryable])
def test_what_may_not_pass_is_asked_once(worker: FakeWorker, address: str, kind: Kind) -> None:
    worker.failure = ServiceError(kind, "no")
    with Client(address, patience_s=10_000) as client, pytest.raises(ServiceError) as refused:
        client.segment(PICTURE, [{"text": "a"}])
    assert refused.value.kind is kind
    assert len(worker.asked) == 1


def test_what_the_server_asks_to_wait_for_too_long_is_told_at_once(worker: FakeWorker, address: str) -> None:
    worker.failure = ServiceError(Kind.QUOTA_EXCEEDED, "no more today", retry_after_s=5000)
    with Client(address, patience_s=1000) as client, pytest.raises(ServiceError) as refused:
        client.segment(PICTURE, [{"text": "a"}])
    assert refused.value.retry_after_s == 5000
    assert len(worker.asked) == 1
