"""docs/observability.md says what a gateway tells."""

import pytest

from service.telemetry import FACTS
from service.tracing import Fact
from tests.documented import GATEWAY, PAGE, rows, table
from tests.gateway.conftest import House


def test_the_page_has_every_metric_of_the_gateway(house: House) -> None:
    house.open()
    told = rows(house.http.get("/metrics").text)
    assert len(told) > 5 and table(GATEWAY) == told


def test_the_page_has_every_attribute_of_a_span() -> None:
    assert [name for name in Fact if f"| `{name}` |" not in PAGE] == []


def test_the_page_has_every_fact_of_a_requests_line(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.open()
    with caplog.at_level("INFO", "service.request"):
        house.http.get("/v1/variants")
        # The line is written after the answer.
        house.stop()
    (record,) = caplog.records
    assert [name for name in getattr(record, FACTS) if f"| `{name}` |" not in PAGE] == []
