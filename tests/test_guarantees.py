"""docs/guarantees.md names tests and settings that exist, and every setting that bounds something."""

import re
from pathlib import Path
from typing import Any

import pytest

from service.config import MIB, GatewaySettings, WorkerSettings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
FIELDS = {**GatewaySettings.model_fields, **WorkerSettings.model_fields}
# Names of settings that bound what a client can take.
_BOUNDS = re.compile(
    r"(max_|default_deadline).*|.*(_bytes|_ttl_s|_timeout_s|_idle_s|_cpu_s|_per_s)|drain_s|concurrency|infer_requests"
)


def named_tests(text: str) -> list[str]:
    """Return the tests that the text names, as FILE::NAME."""
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", text)


def rows(*columns: str) -> list[list[str]]:
    """Return the rows of every table with these columns."""
    head = "| " + " | ".join(columns) + " |\n"
    tables = [part.partition("\n\n")[0] for part in PAGE.split(head)[1:]]
    lines = [line for table in tables for line in table.splitlines()[1:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


BOUNDS = rows("resource", "setting", "default", "beyond it", "test")


def shown(name: str, value: Any) -> str:
    """Return a default as the page has it."""
    if not value:
        return "none"
    if name.endswith("_bytes"):
        return f"{value / MIB:,g} MiB"
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    return f"{value:,g}{unit}" if isinstance(value, float) else f"{value:,}{unit}"


_UNITS = {"_ms": " ms", "_seconds": " s", "_per_s": "", "_s": " s"}


@pytest.mark.parametrize("named", sorted(set(named_tests(PAGE))))
def test_every_test_exists(named: str) -> None:
    file, _, name = named.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text("utf-8")


def test_every_promise_and_every_bound_has_a_test() -> None:
    tables = [
        rows("promise", "test"),
        rows(
            "store",
            "events that an answered frame survives",
            "events that lose frames, and what clients see",
            "test",
        ),
        BOUNDS,
        rows("resource", "field", "beyond it", "test"),
        rows("resource", "bound", "beyond it", "test"),
    ]
    assert [len(table) > 2 for table in tables] == [True] * len(tables)
    assert [row for table in tables for row in table if not named_tests(row[-1])] == []


@pytest.mark.parametrize("row", BOUNDS, ids=lambda row: row[1])
def test_every_setting_exists_with_its_default(row: list[str]) -> None:
    name = row[1].strip("`")
    assert name in FIELDS
    assert row[2] == shown(name, FIELDS[name].get_default(call_default_factory=True))


def test_every_setting_that_bounds_something_is_listed() -> None:
    listed = {row[1].strip("`") for row in BOUNDS}
    assert {name for name in FIELDS if _BOUNDS.fullmatch(name)} - listed == set()


def test_a_wrong_page_would_be_noticed() -> None:
    """The patterns find what they look for: a page without tables would pass everything else."""
    assert len(set(named_tests(PAGE))) > 50 and len(BOUNDS) > 25
    assert shown("max_body_bytes", 32 * MIB) == "32 MiB" and shown("max_frame_rate", 0.0) == "none"
    assert shown("drain_s", 30.0) == "30 s" and shown("max_image_pixels", 100_000_000) == "100,000,000"
    assert _BOUNDS.fullmatch("max_new_thing") and _BOUNDS.fullmatch("session_ttl_s")
    assert not _BOUNDS.fullmatch("listen")
