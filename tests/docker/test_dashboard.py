"""The dashboard asks for metrics that there are. tests/compose sees whether they have data."""

import json
import re

import pytest

from tests.compose.dashboard import DASHBOARD, queries
from tests.documented import GATEWAY, WORKER, table

_SERIES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
# Those of every Python process, by prometheus_client.
_OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def _series() -> set[str]:
    """Every series there is, by the tables that tests compare with what gateway and workers tell."""
    rows = [[cell.strip(" `") for cell in row.split("|")] for row in table(GATEWAY) + table(WORKER)]
    return {name + end for _, name, kind, *_ in rows for end in _SERIES[kind]}


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_a_query_names_series_that_there_are(title: str, query: str) -> None:
    named = set(re.findall(r"\b(?:efficientsam3|process)_\w+", query))
    assert named and named - _series() - _OF_PROCESSES == set()
    assert "$" not in query


def test_the_dashboard_shows_what_an_operator_asks_for() -> None:
    asked = {name for _, query in queries() for name in re.findall(r"efficientsam3_\w+", query)}
    for name in ("requests_total", "stage_seconds_bucket", "inflight_requests", "worker_waiting_requests"):
        assert f"efficientsam3_{name}" in asked
    for name in ("engine_batch_rows_sum", "cache_requests_total", "sessions_total", "workers_ready"):
        assert f"efficientsam3_{name}" in asked
    assert "efficientsam3_session_memory_bytes_sum" in asked


def test_every_panel_says_what_it_shows_and_has_its_own_place() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"] and panel["targets"]
