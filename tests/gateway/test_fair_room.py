"""How keys share what a variant's workers take: nobody is kept out by another."""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.keyed import metadata, opened, refused, segment
from tests.keys import KeysFile


@pytest.fixture
def worker(house: House, keys: KeysFile) -> FakeWorker:
    """A worker that answers nothing until it is told to, behind a gateway that admits four requests."""
    keys.write(alice={}, bob={}, carol={})
    worker = opened(house, keys, max_waiting=4)
    house.tell(worker.gate.clear)
    return worker


def test_a_key_below_its_share_is_admitted_where_another_fills_the_room(
    house: House, worker: FakeWorker
) -> None:
    with ThreadPoolExecutor(8) as threads:
        held: list[Future[httpx.Response]] = []

        def come(name: str) -> None:
            held.append(threads.submit(segment, house, name))
            while len(worker.asked) < len(held):
                time.sleep(0.01)

        for name in ("alice", "alice", "alice", "alice"):
            come(name)
        alone = segment(house, "alice")
        assert alone.json()["detail"] == "Variant demo has 4 requests waiting or running; the limit is 4."
        # Two keys, and then three: a half of the room, and then a third.
        for name in ("bob", "bob"):
            come(name)
        answer = segment(house, "bob")
        assert (answer.status_code, answer.json()["type"]) == (429, "/problems/overloaded")
        assert answer.json()["detail"] == (
            "Variant demo has 6 requests waiting or running; the limit is 4, of which key bob, "
            "with 2 of them, "
            "has a share of 2."
        )
        assert int(answer.headers["retry-after"]) >= 1
        come("carol")
        assert "key carol, with 1 of them, has a share of 1" in refused(house, metadata("carol")).detail
        assert segment(house, "alice").status_code == 429
        house.tell(worker.gate.set)
        assert [each.result().status_code for each in held] == [200] * 7
    assert segment(house, "alice").status_code == 200
