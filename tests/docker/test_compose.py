"""docker-compose.yml, as it is written. tests/compose runs it."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.docker.test_images import DOCKERFILE, ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text("utf-8"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_a_services_image_is_pinned_or_of_this_release(name: str) -> None:
    image = SERVICES[name]["image"]
    if build := SERVICES[name].get("build"):
        assert image == f"efficientsam3-{build['args']['IMAGE']}:{VERSION}"
        assert build["args"]["VERSION"] == VERSION
    else:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image)


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "grafana"])
def test_only_what_clients_and_people_ask_can_be_reached_from_outside(name: str) -> None:
    assert ("ports" in SERVICES[name]) == (name in ("gateway", "prometheus"))


@pytest.mark.parametrize("variant", ["", "es-ev-m-mc-s0"])
def test_the_gateway_knows_the_workers_by_the_services_names(variant: str) -> None:
    written = SERVICES["gateway"]["environment"]["EFFICIENTSAM3_WORKERS"]
    more = re.search(r"\$\{GPU_VARIANT:\+(.+?)\}(?=\})", written)
    assert more
    filled = written.replace(more[0], more[1].replace("$GPU_VARIANT", variant) if variant else "")
    for each, addresses in json.loads(filled).items():
        for address in addresses:
            scheme, service, port = address.split(":")
            assert scheme == "dns" and f"EFFICIENTSAM3_LISTEN=0.0.0.0:{port}" in DOCKERFILE
            command = SERVICES[service]["command"]
            assert command[0] == "worker" and (command[1] == each or "${GPU_VARIANT:-" in command[1])


def test_prometheus_looks_where_metrics_are_told() -> None:
    places = {
        name: config["port"]
        for job in PROMETHEUS["scrape_configs"]
        for config in job["dns_sd_configs"]
        for name in config["names"]
    }
    assert places.keys() == {name for name in SERVICES if name.startswith(("gateway", "worker"))}
    assert f"EFFICIENTSAM3_METRICS_LISTEN=0.0.0.0:{places['worker']}" in DOCKERFILE
    assert places["gateway"] == 8080 and places["worker"] == places["worker-gpu"]
