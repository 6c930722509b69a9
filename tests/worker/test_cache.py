"""What several threads need is made once, and kept while there is room."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import Kind, ServiceError
from service.worker.cache import Cache


def _never() -> str:
    raise AssertionError("it is there already")


def test_the_least_used_makes_room() -> None:
    cache = Cache[str](6, len)
    for key in ("one", "two"):
        assert cache.get_or_make(key, lambda key=key: key) == key  # type: ignore[misc]
    assert cache.get_or_make("one", _never) == "one"
    cache.get_or_make("six", lambda: "six")
    assert [cache.get(key) for key in ("one", "two", "six")] == ["one", None, "six"]
    assert cache.get_or_make("seven", lambda: "seven..") == "seven.." and cache.get("seven") is None
    assert cache.get("one") == "one"


def _waiting(cache: Cache[str], makes: list[Callable[[], str]]) -> list[object]:
    """What threads get that ask for the same one after another, while the first makes it."""
    begun, go_on = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert go_on.wait(30)
        return makes[0]()

    def got(make: Callable[[], str]) -> object:
        try:
            return cache.get_or_make("key", make)
        except ServiceError as error:
            return error.kind

    with ThreadPoolExecutor(len(makes)) as threads:
        futures = [threads.submit(got, first)]
        assert begun.wait(30)
        futures += [threads.submit(got, make) for make in makes[1:]]
        go_on.set()
        return [future.result(30) for future in futures]


@pytest.mark.parametrize("room", [0, 100])
def test_what_is_being_made_is_waited_for(room: int) -> None:
    cache = Cache[str](room, len)
    made = _waiting(cache, [lambda: "made", *[lambda: "made again"] * 3])
    assert made[0] == "made" and (cache.get("key") == "made") is bool(room)
    if room:
        assert made == ["made"] * 4


def test_one_that_was_given_up_is_made_by_who_waits() -> None:
    def given_up() -> str:
        raise ServiceError(Kind.DEADLINE_EXCEEDED, "nobody waits")

    def wrong() -> str:
        raise ServiceError(Kind.INVALID_ARGUMENT, "wrong")

    assert _waiting(Cache[str](100, len), [given_up, lambda: "made"]) == [Kind.DEADLINE_EXCEEDED, "made"]
    assert _waiting(Cache[str](100, len), [wrong, wrong]) == [Kind.INVALID_ARGUMENT] * 2
