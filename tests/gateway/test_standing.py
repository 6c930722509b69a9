"""How a worker loses and regains trust."""

from service.gateway.standing import Standing


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def _fail(standing: Standing, times: int) -> None:
    for _ in range(times):
        standing.failed()


def test_failures_in_a_row_set_a_worker_aside_each_time_for_longer() -> None:
    clock = Clock()
    standing = Standing(clock)
    _fail(standing, 4)
    standing.answered()
    _fail(standing, 4)
    assert not standing.aside
    for seconds in (1, 2, 4, 8, 16, 30, 30):
        standing.failed()
        assert standing.aside
        clock.s += seconds - 0.01
        assert standing.aside
        clock.s += 0.02
        assert not standing.aside
    standing.answered()
    _fail(standing, 4)
    assert not standing.aside
    standing.failed()
    clock.s += 1.01
    assert not standing.aside


def test_a_worker_that_is_back_is_given_more_and_more() -> None:
    clock = Clock()
    standing = Standing(clock)
    assert standing.share == 1.0
    standing.came_back()
    shares = []
    for _ in range(12):
        shares.append(round(standing.share, 3))
        clock.s += 1
    assert shares == [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0]
    _fail(standing, 5)
    clock.s += 1.001
    assert (standing.aside, standing.share) == (False, 0.1)
