"""Tables that a run ends with, of what its tests measured, in whichever process they ran: a plugin."""

from typing import Any, Protocol

import pytest
from _pytest.terminal import TerminalReporter


class Tables(Protocol):
    def tables(self) -> list[str]: ...


# What the tests of this process measured.
MEASURED = pytest.StashKey[Tables]()
# Lines of the tables of processes that have ended.
_TOLD = pytest.StashKey[list[str]]()
_NAME = "efficientsam3_tables"


def _lines(config: pytest.Config) -> list[str]:
    return config.stash[MEASURED].tables() if MEASURED in config.stash else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist tells the one that writes the report."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_NAME] = _lines(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep what a process of pytest-xdist told; nothing of one that died."""
    told: list[str] = getattr(node, "workeroutput", {}).get(_NAME, [])
    if told:
        lines = node.config.stash.setdefault(_TOLD, [])
        lines += ["", *told] if lines else told


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Print the tables."""
    if lines := config.stash.get(_TOLD, []) or _lines(config):
        terminalreporter.section("agreement with the reference")
        terminalreporter.write("\n".join(lines) + "\n")
