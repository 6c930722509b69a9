"""What a container of a manifest is given, as the kubelet would."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.config import GatewaySettings, WorkerSettings
from tests.deploy.helm import Manifest, Rendered, component

PREFIX = "EFFICIENTSAM3_"
PASSWORD = "pass word"

Container = dict[str, Any]


def container(manifest: Manifest) -> Container:
    """The one container of a Deployment, StatefulSet or Job, beside those that run before it."""
    (found,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(of: Container) -> dict[str, str]:
    """Its variables; every Secret says PASSWORD, percent-encoded."""
    names = [each["name"] for each in of["env"]]
    assert len(names) == len(set(names))
    values: dict[str, str] = {}
    for each in of["env"]:
        text = each["value"] if "value" in each else _from(each["valueFrom"], of)
        # Those that come later are not put in.
        values[each["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], found[0]), str(text))
    return values


def _from(source: dict[str, Any], of: Container) -> str:
    if "secretKeyRef" in source:
        return PASSWORD.replace(" ", "%20")
    asked = source["resourceFieldRef"]
    assert asked["containerName"] == of["name"] and asked["divisor"] == "1"
    kind, _, resource = asked["resource"].partition(".")
    amount = str(of["resources"][kind][resource])
    return str(math.ceil(int(amount[:-1]) / 1000 if amount.endswith("m") else float(amount)))


def processes(
    rendered: Rendered,
) -> Iterator[tuple[Manifest, Container, type[GatewaySettings | WorkerSettings]]]:
    """(Deployment, container, the kind of its settings) of the gateway and of each variant."""
    for manifest in rendered.of_kind("Deployment"):
        kind = GatewaySettings if component(manifest) == "gateway" else WorkerSettings
        yield manifest, container(manifest), kind


@contextmanager
def settings(of: Container, kind: type[GatewaySettings | WorkerSettings]) -> Iterator[Any]:
    """The settings that the process makes of its environment, which is this process's meanwhile."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(environment(of))
    try:
        yield kind()
    finally:
        os.environ.clear()
        os.environ.update(before)


def read_settings(of: Container, kind: type[GatewaySettings | WorkerSettings]) -> Any:
    """The same, when this process's environment is its own again."""
    with settings(of, kind) as read:
        return read
