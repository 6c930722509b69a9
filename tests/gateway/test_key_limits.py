"""What a key may use, counted by one gateway and by several."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.errors import Kind
from tests.gateway.conftest import House
from tests.gateway.keyed import (
    BODY,
    REQUEST,
    metadata,
    opened,
    refused,
    segment,
)
from tests.keys import KeysFile, authorization
from tests.redis_server import RedisServer


def test_a_key_over_its_rate_is_told_when_to_come_again(house: House, keys: KeysFile) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 3}, bob={"requests_per_s": 0.5})
    worker = opened(house, keys)
    assert [segment(house, "alice").status_code for _ in range(2)] == [200, 200]
    house.stub.Segment(REQUEST, metadata=metadata("alice"))
    answer = segment(house, "alice")
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/quota_exceeded")
    assert answer.json()["detail"] == "Key alice may send 0.01 requests per second, and 3 at once."
    assert 1 <= int(answer.headers["retry-after"]) <= 100
    told = refused(house, metadata("alice"))
    assert told.kind is Kind.QUOTA_EXCEEDED
    assert told.retry_after_s is not None and 0 < told.retry_after_s <= 100
    assert segment(house, "bob").status_code == 200
    assert len(worker.asked) == 4


def test_a_key_has_so_many_requests_under_way(house: House, keys: KeysFile) -> None:
    keys.write(alice={"concurrent": 1}, bob={"concurrent": 1})
    worker = opened(house, keys)
    house.tell(worker.gate.clear)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(segment, house, "alice")
        assert worker.arrived.wait(30)
        over_http, over_grpc = segment(house, "alice"), refused(house, metadata("alice"))
        assert (over_http.status_code, over_http.json()["type"]) == (429, "/problems/quota_exceeded")
        assert over_http.headers["retry-after"] == "1"
        assert over_http.json()["detail"] == "Key alice has 1 requests under way, which is its limit."
        assert over_grpc.kind is Kind.QUOTA_EXCEEDED
        other = threads.submit(segment, house, "bob")
        house.tell(worker.gate.set)
        assert first.result().status_code == other.result().status_code == 200


def test_who_asks_one_after_another_is_never_refused(house: House, keys: KeysFile) -> None:
    """The place is free when the answer has come, over whatever connection the next request comes."""
    keys.write(alice={"concurrent": 1})
    opened(house, keys)
    for _ in range(20):
        with httpx.Client(base_url=house.gateway.url) as client:
            assert client.post("/v1/segment", json=BODY, headers=authorization("alice")).status_code == 200
        house.stub.Segment(REQUEST, metadata=metadata("alice"))
        assert house.http.get("/v1/variants", headers=authorization("alice")).status_code == 200
        assert house.http.post("/v1/segment", headers=authorization("alice")).status_code == 400


def test_the_place_of_a_client_that_leaves_is_free(house: House, keys: KeysFile) -> None:
    keys.write(alice={"concurrent": 1})
    worker = opened(house, keys)
    house.tell(worker.gate.clear)
    with pytest.raises(httpx.ReadTimeout):
        house.http.post("/v1/segment", json=BODY, headers=authorization("alice"), timeout=0.5)
    assert worker.cancelled.wait(30)
    house.tell(worker.gate.set)
    while segment(house, "alice").status_code != 200:
        house.run(asyncio.sleep(0.01))


@pytest.fixture
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Another house, for another gateway."""
    house = House(tmp_path_factory.mktemp("second"))
    yield house
    house.close()


def test_gateways_count_together_in_redis(
    house: House, second: House, keys: KeysFile, redis_server: RedisServer
) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 3}, bob={"concurrent": 1})
    workers = [opened(each, keys, redis_url=redis_server.url) for each in (house, second)]
    answers = [segment(each, "alice").status_code for each in (house, second, house, second, house)]
    assert answers == [200, 200, 200, 429, 429]
    house.tell(workers[0].gate.clear)
    workers[0].arrived.clear()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(segment, house, "bob")
        assert workers[0].arrived.wait(30)
        assert segment(second, "bob").json()["type"] == "/problems/quota_exceeded"
        house.tell(workers[0].gate.set)
        assert first.result().status_code == 200
    assert segment(second, "bob").status_code == 200
    # Without it each counts alone, and nobody is refused for its sake.
    redis_server.kill()
    answers = [segment(each, "alice").status_code for each in (*4 * (house,), *4 * (second,))]
    assert answers == 2 * [200, 200, 200, 429]
    assert segment(house, "bob").status_code == 200
