"""What the parity tests measure is told at the end of the run, as docs/parity.md has it."""

from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter

from tests.parity.table import Measured

_MEASURED = pytest.StashKey[Measured]()


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Iterator[Measured]:
    """Where a test leaves what it measured."""
    yield request.config.stash.setdefault(_MEASURED, Measured())


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print the tables."""
    measured = terminalreporter.config.stash.get(_MEASURED, Measured())
    if lines := measured.tables():
        terminalreporter.section("agreement with the reference")
        terminalreporter.write("\n".join(lines) + "\n")
