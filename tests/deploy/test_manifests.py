"""Whatever the chart renders is what Kubernetes, KEDA and prometheus-operator take."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from model_store import registry
from tests.deploy.helm import (
    CHART,
    EVERYTHING,
    EXAMPLES,
    LEAST,
    RELEASE,
    ROOT,
    Rendered,
    component,
    render,
    run_helm,
)

# The oldest release that the chart names, and the newest whose schemas there are.
OLDEST = "1.30"
_SCHEMAS = Path(__file__).parent / "schemas"


def _check(manifest: dict[str, Any], version: str) -> None:
    own = _SCHEMAS / f"{manifest['kind'].lower()}.json"
    if own.is_file():
        jsonschema.validate(manifest, json.loads(own.read_text()), jsonschema.Draft202012Validator)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_manifest_is_valid(rendered: Rendered) -> None:
    assert len(rendered.all) > 10
    for manifest in rendered.all:
        _check(manifest, kubernetes_validate.latest_version())


def test_every_manifest_is_valid_in_the_oldest_release(rendered: Rendered) -> None:
    assert f">={OLDEST}" in (CHART / "Chart.yaml").read_text()
    for manifest in rendered.all:
        # A volume of an OCI artefact is newer: whoever asks for one has it.
        if '"image": {' not in json.dumps(manifest):
            _check(manifest, OLDEST)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_lint_passes(example: Path) -> None:
    assert "0 chart(s) failed" in run_helm("lint", "--strict", CHART, "--values", example)


def test_there_are_three_examples() -> None:
    assert [example.stem for example in EXAMPLES] == ["cpu-node", "gpu-pool", "scale-to-zero"]
    assert not render(EXAMPLES[0]).of_kind("ScaledObject")
    pool = render(EXAMPLES[1]).workers()
    assert len(pool) == 3
    for each in pool:
        limits = each["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == 1
    zero = render(EXAMPLES[2]).of_kind("ScaledObject")
    assert [each["spec"]["minReplicaCount"] for each in zero] == [0, 0]


def test_no_two_objects_have_the_same_name(rendered: Rendered) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.all]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) for _, name in names)


def test_names_stay_short_whatever_the_release_is_called() -> None:
    longest = max(registry.variants(), key=len)
    entry = {"name": longest, "digest": "sha256:" + "0" * 64}
    values = {
        **EVERYTHING,
        "defaultVariant": "",
        "fullnameOverride": "f" * 30,
        "variants": [{**entry, "artefact": {"claim": "a"}}],
    }
    # Names of Services are labels of DNS.
    assert all(len(each["metadata"]["name"]) <= 63 for each in render(values=values).all)


def test_selectors_select_their_own_pods_and_no_others(rendered: Rendered) -> None:
    pods = {name: template["metadata"]["labels"] for name, template in rendered.pods()}
    for manifest in rendered.of_kind("Deployment") + rendered.of_kind("StatefulSet"):
        chosen = manifest["spec"]["selector"]["matchLabels"]
        selected = [name for name, labels in pods.items() if chosen.items() <= labels.items()]
        assert selected == [f"{manifest['kind']} {manifest['metadata']['name']}"]
    for service in rendered.of_kind("Service"):
        selected = [
            name for name, labels in pods.items() if service["spec"]["selector"].items() <= labels.items()
        ]
        assert [name.split()[1] for name in selected] == [service["metadata"]["name"]]


def test_every_secret_and_account_is_named_and_none_is_made(rendered: Rendered) -> None:
    assert not rendered.of_kind("Secret")
    accounts = {each["metadata"]["name"] for each in rendered.of_kind("ServiceAccount")}
    assert {template["spec"]["serviceAccountName"] for _, template in rendered.pods()} == accounts


def test_the_dashboards_go_into_a_config_map_as_they_are() -> None:
    wanted = {**LEAST, "monitoring": {"dashboard": {"enabled": True}}}
    maps = render(values=wanted).of_kind("ConfigMap")
    (found,) = [each for each in maps if component(each) == "dashboards"]
    files = {file.name: file.read_text("utf-8") for file in (ROOT / "deploy" / "dashboards").glob("*.json")}
    assert "efficientsam3.json" in files and found["data"] == files
    # Grafana's sidecar looks for it, and an object has 1 MiB of room.
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert sum(map(len, files.values())) < 2**20


@pytest.mark.parametrize(("mode", "said"), [("none", True), ("external", False)])
def test_the_notes_say_what_is_open_and_what_is_lost(mode: str, said: bool) -> None:
    values = ["--set", f"redis.mode={mode},redis.external.host=h", "--set", "gateway.keysSecret.name="]
    notes = run_helm("install", RELEASE, CHART, "--dry-run=client", *values).partition("NOTES:")[2]
    assert "gateway.keysSecret is not set" in notes
    assert ("session ends with its worker" in notes) is said
