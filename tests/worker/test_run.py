"""Graphs run for one request."""

from typing import Any

import numpy as np
import pytest

from service.worker.run import Arrays, Run


class Engine:
    """A graph that adds to each row the value of its image, and says how many rows it was given."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        self.calls.append(len(inputs["row"]))
        return {"sum": inputs["row"] + inputs["picture"][inputs["image"], None], "twice": 2 * inputs["row"]}


@pytest.mark.parametrize(("at_once", "calls"), [(4, [4, 4, 2]), (10, [10]), (64, [10]), (1, [1] * 10)])
def test_rows_are_the_same_in_parts(at_once: int, calls: list[int]) -> None:
    engine: Any = Engine()
    rows = np.arange(20.0).reshape(10, 2)
    found = Run(engine, lambda: None).rows("graph", at_once, {"row": rows}, picture=np.array([100.0]))
    assert engine.calls == calls
    np.testing.assert_array_equal(found["sum"], rows + 100)
    np.testing.assert_array_equal(found["twice"], 2 * rows)
