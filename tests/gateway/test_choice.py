"""Which worker takes the next request."""

from dataclasses import dataclass

from service.gateway.pool import choose


@dataclass
class Busy:
    """As much of a worker as the choice looks at."""

    address: str
    load: float


def _workers(*outstanding: int) -> list[Busy]:
    return [Busy(f"10.0.0.{index}:1", count) for index, count in enumerate(outstanding)]


def test_a_request_of_its_own_image_goes_to_the_least_busy() -> None:
    assert choose(_workers(3, 1, 2), "").address == "10.0.0.1:1"


def test_a_kept_image_goes_to_its_favourite_however_busy_where_no_other_has_it() -> None:
    favourite = choose(_workers(0, 0, 0), "sha256:aa").address
    busy = [Busy(each.address, 9 * (each.address == favourite)) for each in _workers(0, 0, 0)]
    assert choose(busy, "sha256:aa").address == favourite


def test_a_shared_image_passes_over_a_favourite_that_is_much_busier() -> None:
    favourite = choose(_workers(0, 0, 0), "sha256:aa", shared=True).address
    for load, kept in ((2, True), (3, False)):
        busy = [Busy(each.address, load * (each.address == favourite)) for each in _workers(0, 0, 0)]
        assert (choose(busy, "sha256:aa", shared=True).address == favourite) == kept


def test_images_spread_over_the_workers_and_few_move_when_one_leaves() -> None:
    workers = _workers(0, 0, 0, 0)
    before = {f"sha256:{index:x}": choose(workers, f"sha256:{index:x}").address for index in range(400)}
    assert min(list(before.values()).count(each.address) for each in workers) > 60
    after = {image: choose(workers[1:], image).address for image in before}
    assert all(after[image] == address for image, address in before.items() if address != workers[0].address)
