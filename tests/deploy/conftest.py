"""Renderings that many tests look at."""

import pytest

from tests.deploy.helm import EVERYTHING, EXAMPLES, LEAST, Rendered, render

CASES = ["least", "everything", *(example.stem for example in EXAMPLES)]


@pytest.fixture(params=CASES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """What the chart makes of the least, of everything, and of each example."""
    if request.param in ("least", "everything"):
        return render(values={"least": LEAST, "everything": EVERYTHING}[request.param])
    return render(next(example for example in EXAMPLES if example.stem == request.param))


@pytest.fixture
def everything() -> Rendered:
    """What the chart makes of everything."""
    return render(values=EVERYTHING)
