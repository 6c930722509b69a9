"""Values that cannot be are refused, and the message names the field."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm import CHART, EVERYTHING, LEAST, HelmError, render, run_helm

_STUDENT: dict[str, Any] = {"name": "es-ev-m-mc-s0", "artefact": {"claim": "artefacts"}}
_DIGEST = "sha256:" + "ab" * 32
_OTHER = "sha256:" + "cd" * 32

# What is wrong -> (values, what the message has).
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    # By the schema.
    "a field that there is not": ({"gatway": {}}, "additional properties 'gatway' not allowed"),
    "a field that there is not, deeper": (
        {"gateway": {"replica": 1}},
        "at '/gateway': additional properties 'replica' not allowed",
    ),
    "no gateway": ({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum: got 0, want 1"),
    "a number as a word": (
        {"gateway": {"replicas": "two"}},
        "at '/gateway/replicas': got string, want integer",
    ),
    "no variant": ({"variants": []}, "at '/variants': minItems: got 0, want 1"),
    "a variant without a name": (
        {"variants": [{"device": "cpu"}]},
        "at '/variants/0': missing property 'name'",
    ),
    "a variant that there is not": (
        {"variants": [{"name": "es-ev-xl"}]},
        "at '/variants/0/name': value must be one of 'es-ev-s'",
    ),
    "another device": (
        {"variants": [{"name": "demo", "device": "tpu"}]},
        "at '/variants/0/device': value must be one of 'cpu', 'gpu'",
    ),
    "a setting that there is not": (
        {"variants": [{"name": "demo", "settings": {"batchsize": 4}}]},
        "at '/variants/0/settings': additional properties 'batchsize' not allowed",
    ),
    "a setting out of its range": (
        {"workers": {"settings": {"max_batch": 0}}},
        "at '/workers/settings/max_batch': minimum: got 0, want 1",
    ),
    "a precision that there is not": (
        {"variants": [{"name": "demo", "settings": {"precision": "int8"}}]},
        "at '/variants/0/settings/precision': value must be one of 'auto', 'f32', 'bf16', 'f16'",
    ),
    "a setting of both for one": (
        {"gateway": {"settings": {"max_body_bytes": 1}}},
        "at '/gateway/settings': additional properties 'max_body_bytes' not allowed",
    ),
    "a setting that the chart makes": (
        {"workers": {"settings": {"listen": "0.0.0.0:1"}}},
        "at '/workers/settings': additional properties 'listen' not allowed",
    ),
    "a setting as a variable": (
        {"gateway": {"extraEnv": [{"name": "EFFICIENTSAM3_HOST", "value": "::"}]}},
        "at '/gateway/extraEnv/0/name': 'not' failed",
    ),
    "a digest cut short": (
        {"variants": [{**_STUDENT, "digest": "sha256:abc"}]},
        "at '/variants/0/digest': 'sha256:abc' does not match pattern",
    ),
    "a pull from elsewhere than the web": (
        {"variants": [{"name": "demo", "artefact": {"from": "ftp://a/b"}}]},
        "at '/variants/0/artefact/from': 'ftp://a/b' does not match pattern",
    ),
    "memory in no unit": (
        {"workers": {"resources": {"limits": {"memory": "8 GB"}}}},
        "at '/workers/resources/limits/memory': '8 GB' does not match pattern",
    ),
    "another kind of Redis": (
        {"redis": {"mode": "sentinel"}},
        "at '/redis/mode': value must be one of 'bundled', 'external', 'none'",
    ),
    "a file that is synced never": (
        {"redis": {"bundled": {"appendfsync": "no"}}},
        "at '/redis/bundled/appendfsync': value must be one of 'always', 'everysec'",
    ),
    "a Secret's name that cannot be": (
        {"redis": {"passwordSecret": {"name": "My_Secret"}}},
        "at '/redis/passwordSecret/name': 'My_Secret' does not match pattern",
    ),
    "root": ({"podSecurity": {"runAsUser": 0}}, "at '/podSecurity/runAsUser': minimum: got 0, want 1"),
    "Prometheus without a scheme": (
        {"autoscaling": {"prometheusAddress": "prometheus:9090"}},
        "at '/autoscaling/prometheusAddress': 'prometheus:9090' does not match pattern",
    ),
    "a peer that is none": (
        {"networkPolicy": {"clients": [{"namespace": "a"}]}},
        "at '/networkPolicy/clients/0': additional properties 'namespace' not allowed",
    ),
    "a share above one": (
        {"monitoring": {"alerts": {"errorShare": 5}}},
        "at '/monitoring/alerts/errorShare': maximum: got 5, want 1",
    ),
    # By each other.
    "two of a variant": (
        {"variants": [_STUDENT, _STUDENT]},
        "variants[1] (es-ev-m-mc-s0): another entry has the same name and digest",
    ),
    "two that take new sessions": (
        {"variants": [{**_STUDENT, "digest": _DIGEST}, {**_STUDENT, "digest": _OTHER}]},
        "variants[1] (es-ev-m-mc-s0): the variant has an entry already that takes new sessions",
    ),
    "one that retires without a digest": (
        {"variants": [{**_STUDENT, "digest": _DIGEST}, {**_STUDENT, "retiring": True}]},
        "variants[1] (es-ev-m-mc-s0).digest: an artefact that is retiring is known by its digest",
    ),
    "one that retires for none": (
        {"variants": [{**_STUDENT, "digest": _DIGEST, "retiring": True}]},
        "variants[0] (es-ev-m-mc-s0): no other entry takes the variant's new sessions",
    ),
    "a digest that nobody checks": (
        {"variants": [{"name": "demo", "digest": _DIGEST}]},
        "variants[0] (demo).digest: nothing can check it, since artefact says nothing",
    ),
    "two sources": (
        {"variants": [{"name": "demo", "artefact": {"claim": "a", "image": "b"}}]},
        "variants[0] (demo).artefact: claim and image are given; it is in one place",
    ),
    "a pull of whatever comes": (
        {"variants": [{"name": "demo", "artefact": {"from": "https://a/b"}}]},
        "variants[0] (demo).digest: what is pulled is verified by it",
    ),
    "more at least than at most": (
        {"variants": [{"name": "demo", "replicas": {"min": 3, "max": 2}}]},
        "variants[0] (demo).replicas: min is 3, max is 2",
    ),
    "none that nobody starts": (
        {"variants": [{"name": "demo", "replicas": {"min": 0}}]},
        "variants[0] (demo).replicas.min: 0 needs autoscaling.enabled",
    ),
    "a rollout that cannot begin": (
        {"workers": {"rollout": {"maxSurge": 0, "maxUnavailable": 0}}},
        "variants[0] (demo).rollout: maxSurge and maxUnavailable are both 0",
    ),
    "a default that is not served": (
        {"defaultVariant": "es-ev-s"},
        "defaultVariant: es-ev-s is not among variants",
    ),
    "a Redis without a password": (
        {"redis": {"passwordSecret": {"name": ""}}},
        "redis.passwordSecret.name: the bundled Redis needs a Secret",
    ),
    "TLS without a certificate": (
        {"redis": {"tls": {"enabled": True}}},
        "redis.tls.secret: the bundled Redis needs a Secret with tls.crt",
    ),
    "a Redis that is nowhere": ({"redis": {"mode": "external"}}, "redis.external.host: it is empty"),
    "sentinels without the master's name": (
        {"redis": {"mode": "external", "external": {"sentinel": {"hosts": ["a"]}}}},
        "redis.external.sentinel: master and hosts, or neither",
    ),
    "a Redis that is in two places": (
        {
            "redis": {
                "mode": "external",
                "external": {"host": "h", "sentinel": {"master": "m", "hosts": ["a"]}},
            }
        },
        "redis.external: either host or sentinel",
    ),
    "the end of an artefact that is not retiring": (
        {"variants": [{**_STUDENT, "retiringUntil": "2026-12-31T00:00:00Z"}]},
        "variants[0] (es-ev-m-mc-s0).retiringUntil: it needs retiring",
    ),
    "an end at no time": (
        {"variants": [{**_STUDENT, "retiring": True, "retiringUntil": "2026-12-31"}]},
        "at '/variants/0/retiringUntil'",
    ),
    "a user without a password": (
        {
            "redis": {
                "mode": "external",
                "external": {"host": "h", "username": "u"},
                "passwordSecret": {"name": ""},
            }
        },
        "redis.external.username: it needs redis.passwordSecret.name",
    ),
    "KEDA without Prometheus": (
        {"autoscaling": {"enabled": True}},
        "autoscaling.prometheusAddress: KEDA needs the Prometheus",
    ),
    "gateways, more at least than at most": (
        {"gateway": {"autoscaling": {"min": 9}}},
        "gateway.autoscaling: min is 9, max is 6",
    ),
    "clients' certificates without one of its own": (
        {"gateway": {"tls": {"clientCa": True}}},
        "gateway.tls.clientCa: it needs gateway.tls.secret",
    ),
    "TLS to workers, in part": (
        {"workersTls": {"enabled": True, "workerSecret": "w"}},
        "workersTls: workerSecret, gatewaySecret and serverName are needed",
    ),
    "an ingress without a host": ({"ingress": {"grpc": {"enabled": True}}}, "ingress.grpc.host: it is empty"),
    "one host for both": (
        {"ingress": {"http": {"enabled": True, "host": "a.b"}, "grpc": {"enabled": True, "host": "a.b"}}},
        "ingress.grpc.host: it is that of ingress.http",
    ),
    "a dashboard that is not there": (
        {"monitoring": {"dashboard": {"enabled": True}}},
        "monitoring.dashboard.enabled: the chart has no dashboards/*.json",
    ),
}


def _over(values: Any, wrong: Any) -> Any:
    if not (isinstance(values, dict) and isinstance(wrong, dict)):
        return wrong
    return {**values, **{key: _over(values.get(key), each) for key, each in wrong.items()}}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_refused_by_name(case: str, tmp_path: Path) -> None:
    wrong, message = WRONG[case]
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("dashboards"))
    with pytest.raises(HelmError) as failure:
        render(chart=chart, values=_over(copy.deepcopy(LEAST), wrong))
    assert message in str(failure.value)


def test_what_is_right_is_taken() -> None:
    """The values that the wrong ones are put over."""
    assert render(values=LEAST).all
    assert render(values=EVERYTHING).all


def test_the_schema_knows_every_value_that_there_is() -> None:
    """A default is a value that one may set."""
    values = yaml.safe_load(run_helm("show", "values", CHART))
    assert values.keys() == json.loads((CHART / "values.schema.json").read_text())["properties"].keys() - {
        "global"
    }
