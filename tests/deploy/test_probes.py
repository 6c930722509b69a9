"""The kubelet asks what there is, and knows a process that starts from one that hangs."""

from typing import Any

from service.rpc_server import SEGMENTATION
from service.worker.told import READY
from tests.deploy.containers import container, processes
from tests.deploy.helm import EVERYTHING, LEAST, Rendered, component, render

_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def test_every_process_is_probed_when_it_starts_while_it_lives_and_before_it_is_asked(
    rendered: Rendered,
) -> None:
    for manifest in [*rendered.of_kind("Deployment"), *rendered.of_kind("StatefulSet")]:
        assert container(manifest).keys() >= set(_PROBES), manifest["metadata"]["name"]


def _asked(of: dict[str, Any]) -> set[str]:
    return {
        str({kind: of[each][kind] for kind in ("httpGet", "grpc", "tcpSocket", "exec") if kind in of[each]})
        for each in _PROBES
    }


def test_a_worker_is_ready_when_its_graphs_have_been_warmed() -> None:
    demo = container(render(values=LEAST).one("Deployment", "demo"))
    assert _asked(demo) == {str({"grpc": {"port": 50061, "service": SEGMENTATION}})}


def test_the_gateway_is_asked_whether_it_lives_and_whether_it_admits() -> None:
    gateway = container(render(values=LEAST).one("Deployment", "gateway"))
    asked = [gateway[each]["httpGet"] for each in _PROBES]
    assert [each["path"] for each in asked] == ["/healthz", "/healthz", "/readyz"]
    assert {each["scheme"] for each in asked} == {"HTTP"}


def test_a_gateway_with_tls_is_asked_with_it() -> None:
    gateway = container(render(values=EVERYTHING).one("Deployment", "gateway"))
    assert {gateway[each]["httpGet"]["scheme"] for each in _PROBES} == {"HTTPS"}


def test_where_a_certificate_is_needed_the_kubelet_only_connects() -> None:
    """It has none to show."""
    values = {**EVERYTHING, "gateway": {"tls": {"secret": "t", "clientCa": True}}}
    gateway = container(render(values=values).one("Deployment", "gateway"))
    assert _asked(gateway) == {str({"tcpSocket": {"port": "http"}})}


def test_a_worker_with_tls_is_asked_beside_its_metrics() -> None:
    """The kubelet's gRPC probe knows no TLS."""
    worker = container(render(values=EVERYTHING).one("Deployment", "demo"))
    assert _asked(worker) == {str({"httpGet": {"path": READY, "port": "metrics"}})}


def test_loading_may_take_as_long_as_the_values_say() -> None:
    values = {**LEAST, "workers": {"startSeconds": 601}}
    probe = container(render(values=values).one("Deployment", "demo"))["startupProbe"]
    assert 601 <= probe["periodSeconds"] * probe["failureThreshold"] <= 603


def test_probes_ask_at_ports_that_the_container_has(rendered: Rendered) -> None:
    for manifest, process, _ in processes(rendered):
        names = {each["name"]: each["containerPort"] for each in process["ports"]}
        for probe in _PROBES:
            asked = next(
                process[probe][kind]["port"]
                for kind in ("httpGet", "grpc", "tcpSocket")
                if kind in process[probe]
            )
            assert asked in {*names, *names.values()}, component(manifest)
