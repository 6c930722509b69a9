"""What the parity tests measure is told at the end of the run, as docs/parity.md has it."""

import pytest

from tests.measured import MEASURED
from tests.parity.table import Measured


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Measured:
    """Where a test leaves what it measured."""
    return request.config.stash.setdefault(MEASURED, Measured())
