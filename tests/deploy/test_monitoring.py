"""Monitors find what they are to scrape, and alerts ask for metrics that there are."""

import re
from typing import Any

import promql_parser
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service.errors import Kind
from service.telemetry import Telemetry
from tests.deploy.helm import EVERYTHING, EXAMPLES, LEAST, NAMESPACE, Rendered, render

# Of Prometheus itself: prometheus-operator puts them on what it scrapes.
_TARGET = {"namespace", "service", "pod", "le"}


def _alerts(rendered: Rendered) -> list[dict[str, Any]]:
    (rules,) = rendered.of_kind("PrometheusRule")
    (group,) = rules["spec"]["groups"]
    return list(group["rules"])


def _told() -> dict[str, set[str]]:
    """The labels of each series that a gateway which has answered a request tells."""
    telemetry = Telemetry()
    telemetry.declare_variant("a")
    telemetry.record_request("a", "http", "ok", 1.0)
    telemetry.record_stages("a", {"queue": 1.0})
    assert isinstance(telemetry.registry, CollectorRegistry)
    families = text_string_to_metric_families(telemetry.exposition().decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def _selectors(expression: Any) -> list[Any]:
    """Every selector of a query."""
    if isinstance(expression, promql_parser.VectorSelector):
        return [expression]
    if isinstance(expression, promql_parser.MatrixSelector):
        return [expression.vector_selector]
    parts = [getattr(expression, name, None) for name in ("lhs", "rhs", "expr")]
    return [
        found for part in [*parts, *getattr(expression, "args", [])] if part for found in _selectors(part)
    ]


def test_there_are_alerts_only_where_they_are_asked_for() -> None:
    assert not render(values=LEAST).of_kind("PrometheusRule")
    assert len(_alerts(render(values=EVERYTHING))) == 6


@pytest.mark.parametrize("index", range(6))
def test_an_alert_asks_for_metrics_and_labels_that_the_gateway_has(index: int) -> None:
    told = _told()
    query = promql_parser.parse(_alerts(render(values=EVERYTHING))[index]["expr"])
    selectors = _selectors(query)
    assert selectors
    for selector in selectors:
        assert selector.name in told
        for matcher in selector.matchers.matchers:
            assert matcher.name in told[selector.name] | _TARGET
            if matcher.name == "kind":
                assert set(matcher.value.split("|")) <= set(Kind)
        of = {each.name: each.value for each in selector.matchers.matchers}
        # Another release's are none of its business.
        assert (of["namespace"], of["service"]) == (NAMESPACE, "seg-efficientsam3-gateway")


def test_an_alert_groups_by_labels_that_there_are() -> None:
    for alert in _alerts(render(values=EVERYTHING)):
        for named in re.findall(r"(?:by|on) \(([^)]*)\)", alert["expr"]):
            assert set(named.split(", ")) <= {"variant", "le"}
        for used in re.findall(r"\$labels\.(\w+)", str(alert["annotations"])):
            assert f"by ({used}" in alert["expr"]


def test_every_alert_says_what_it_is_and_what_to_look_at(everything: Rendered) -> None:
    names = [alert["alert"] for alert in _alerts(everything)]
    assert len(names) == len(set(names))
    for alert in _alerts(everything):
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"].keys() == {"summary", "description"} and alert["for"]


def test_a_store_that_there_is_not_raises_no_alert() -> None:
    values = {**EVERYTHING, "redis": {"mode": "none"}}
    assert "store_unavailable" not in str(_alerts(render(values=values)))
    assert "store_unavailable" in str(_alerts(render(values=EVERYTHING)))


def test_a_query_is_of_the_series_that_the_values_say() -> None:
    values = {**EVERYTHING, "monitoring": {"alerts": {"enabled": True}, "matchers": {"cluster": "east"}}}
    rendered = render(values=values)
    for alert in _alerts(rendered):
        assert 'cluster="east"' in alert["expr"] and "namespace" not in alert["expr"]
    for scaled in rendered.of_kind("ScaledObject"):
        assert 'cluster="east"' in scaled["spec"]["triggers"][0]["metadata"]["query"]


@pytest.mark.parametrize("component", ["gateway", "worker"])
def test_a_monitor_finds_the_services_and_their_port(rendered: Rendered, component: str) -> None:
    if not rendered.of_kind("ServiceMonitor"):
        # That of the case `least`, and of the example that needs no Prometheus.
        assert not rendered.of_kind("ScaledObject")
        return
    monitor = rendered.one("ServiceMonitor", component)
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [each for each in rendered.of_kind("Service") if wanted <= each["metadata"]["labels"].items()]
    assert len(found) == (1 if component == "gateway" else len(rendered.workers()))
    (endpoint,) = monitor["spec"]["endpoints"]
    for service in found:
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_gateways_with_tls_are_scraped_with_it() -> None:
    (endpoint,) = render(values=EVERYTHING).one("ServiceMonitor", "gateway")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    pool = render(next(each for each in EXAMPLES if each.stem == "gpu-pool"))
    (endpoint,) = pool.one("ServiceMonitor", "gateway")["spec"]["endpoints"]
    assert endpoint["scheme"] == "http"
    assert pool.one("ServiceMonitor", "worker")["metadata"]["labels"]["release"] == "prometheus"
