"""How many of what there are, where they run, and how they are exchanged."""

import json
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.config import GatewaySettings, WorkerSettings
from service.telemetry import Telemetry
from tests.deploy.containers import container, processes, read_settings
from tests.deploy.helm import EVERYTHING, EXAMPLES, LEAST, NAMESPACE, RELEASE, Rendered, component, render


def inflight() -> str:
    """What the gateway calls the requests it has: the name that is exported, not one that is remembered."""
    telemetry = Telemetry()
    telemetry.declare_variant("a")
    with telemetry.inflight.labels("a").track_inprogress():
        told = text_string_to_metric_families(telemetry.exposition().decode())
        (family,) = [
            each
            for each in told
            if [s for s in each.samples if s.labels == {"variant": "a"} and s.value == 1]
        ]
    return str(family.name)


def _matchers(selector: Any) -> dict[str, str]:
    assert all(str(each.op) == "MatchOp.Equal" for each in selector.matchers.matchers)
    return {each.name: each.value for each in selector.matchers.matchers}


@pytest.mark.parametrize("case", ["gpu-pool", "scale-to-zero", "everything"])
def test_each_variant_follows_its_own_requests_over_all_gateways(case: str) -> None:
    rendered = (
        render(values=EVERYTHING)
        if case == "everything"
        else render(next(each for each in EXAMPLES if each.stem == case))
    )
    known = json.loads(rendered.one("ConfigMap", "workers")["data"]["workers.json"])
    objects = {each["metadata"]["name"]: each for each in rendered.of_kind("ScaledObject")}
    assert len(objects) == len(rendered.workers()) == len(known)
    for variant, entry in known.items():
        # One that is there until a time says so beside its address.
        (address,) = entry["workers"] if isinstance(entry, dict) else entry
        name = address.split(":")[1]
        spec = objects[name]["spec"]
        assert spec["scaleTargetRef"] == {"name": name}
        (trigger,) = spec["triggers"]
        assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
        total = promql_parser.parse(trigger["metadata"]["query"])
        # KEDA takes one number: of all gateways, whatever their pods' labels.
        assert isinstance(total, promql_parser.AggregateExpr) and str(total.op) == "sum"
        assert total.modifier is None
        assert total.expr.name == inflight()
        assert _matchers(total.expr) == {
            "variant": variant,
            "namespace": NAMESPACE,
            "service": f"{RELEASE}-efficientsam3-gateway",
        }
        assert f"{RELEASE}-efficientsam3-gateway" in [
            each["metadata"]["name"] for each in rendered.of_kind("Service")
        ]


def test_workers_that_scale_are_not_counted_by_helm_as_well(rendered: Rendered) -> None:
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in rendered.of_kind("ScaledObject")}
    scaled |= {each["spec"]["scaleTargetRef"]["name"] for each in rendered.of_kind("HorizontalPodAutoscaler")}
    for manifest in rendered.of_kind("Deployment"):
        assert ("replicas" in manifest["spec"]) is (manifest["metadata"]["name"] not in scaled)


def test_a_variant_goes_to_zero_where_it_may_and_nowhere_else() -> None:
    objects = {
        each["metadata"]["labels"]["efficientsam3/variant"]: each["spec"]
        for each in render(next(each for each in EXAMPLES if each.stem == "gpu-pool")).of_kind("ScaledObject")
    }
    assert {name: each["minReplicaCount"] for name, each in objects.items()} == {
        "es-ev-m-mc-s0": 2,
        "es-rv-m-mc-s0": 1,
        "es-tv-m-mc-s0": 1,
    }
    zero = render(next(each for each in EXAMPLES if each.stem == "scale-to-zero")).of_kind("ScaledObject")
    assert {each["spec"]["minReplicaCount"] for each in zero} == {0}
    for each in zero:
        # One request is enough to begin, and an unknown number is not none.
        metadata = each["spec"]["triggers"][0]["metadata"]
        assert (metadata["activationThreshold"], metadata["ignoreNullValues"]) == ("0", "false")
        assert each["spec"]["fallback"]["replicas"] == 1


def test_what_is_counted_can_reach_what_scales(rendered: Rendered) -> None:
    """A queue refuses before it is as long as the autoscaler wants it, if these numbers do not fit."""
    gateway = read_settings(container(rendered.one("Deployment", "gateway")), GatewaySettings)
    workers = {
        manifest["metadata"]["name"]: read_settings(process, kind)
        for manifest, process, kind in processes(rendered)
        if kind is WorkerSettings
    }
    for each in rendered.of_kind("ScaledObject"):
        worker, spec = workers[each["metadata"]["name"]], each["spec"]
        wanted = int(spec["triggers"][0]["metadata"]["threshold"])
        assert wanted < worker.max_queued + worker.concurrency
        assert wanted * spec["maxReplicaCount"] <= gateway.max_waiting


def test_gateways_scale_by_their_processors() -> None:
    (scaler,) = render(values=LEAST).of_kind("HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == f"{RELEASE}-efficientsam3-gateway"
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 6)
    requests = container(render(values=LEAST).one("Deployment", "gateway"))["resources"]["requests"]
    assert "cpu" in requests
    off = {**LEAST, "gateway": {"replicas": 3, "autoscaling": {"enabled": False}}}
    assert not render(values=off).of_kind("HorizontalPodAutoscaler")
    assert render(values=off).one("Deployment", "gateway")["spec"]["replicas"] == 3


def test_nodes_are_emptied_one_pod_at_a_time(rendered: Rendered) -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in rendered.of_kind("PodDisruptionBudget")}
    deployments = {each["metadata"]["name"]: each["spec"] for each in rendered.of_kind("Deployment")}
    assert budgets.keys() == deployments.keys()
    for name, budget in budgets.items():
        # Never minAvailable: it would hold up the node that has the last worker.
        assert budget == {"maxUnavailable": 1, "selector": deployments[name]["selector"]}


def test_pods_are_spread_over_zones_and_nodes(rendered: Rendered) -> None:
    for manifest in rendered.of_kind("Deployment"):
        spec = manifest["spec"]["template"]["spec"]
        keys = {each["topologyKey"]: each for each in spec["topologySpreadConstraints"]}
        assert keys.keys() == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        for each in keys.values():
            assert each["labelSelector"] == manifest["spec"]["selector"]
            # A pool of one node still runs them.
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"


def test_nobody_is_killed_while_it_drains(rendered: Rendered) -> None:
    for manifest, process, kind in processes(rendered):
        pod = manifest["spec"]["template"]["spec"]
        before = process.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain_s = read_settings(process, kind).drain_s
        # Spans get 3 s more, and an engine is closed.
        assert pod["terminationGracePeriodSeconds"] >= before + drain_s + 10
        # Whoever does not know yet still sends requests to a gateway that stops; workers are watched.
        assert (before > 0) is (component(manifest) == "gateway")


def test_a_longer_drain_has_a_longer_grace() -> None:
    values = {**LEAST, "gateway": {"drainSeconds": 300}, "workers": {"drainSeconds": 600}}
    rendered = render(values=values)
    test_nobody_is_killed_while_it_drains(rendered)
    gateway = container(rendered.one("Deployment", "gateway"))
    assert read_settings(gateway, GatewaySettings).drain_s == 300
    assert read_settings(container(rendered.one("Deployment", "demo")), WorkerSettings).drain_s == 600


def test_a_rollout_leaves_nobody_without_a_gateway(rendered: Rendered) -> None:
    assert rendered.one("Deployment", "gateway")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }


def test_what_a_variant_says_goes_before_what_all_say() -> None:
    # Zeros among them, which a merge may take for nothing said.
    demo = render(values=EVERYTHING).one("Deployment", "demo")
    assert demo["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    other = render(values=EVERYTHING).one("Deployment", "es-ev-m-mc-s0-abababab")
    assert other["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_new_artefact_is_a_second_deployment_beside_the_old_one() -> None:
    old = {"name": "es-ev-m-mc-s0", "digest": "sha256:" + "ab" * 32, "artefact": {"claim": "a", "path": "1"}}
    new = {"name": "es-ev-m-mc-s0", "digest": "sha256:" + "cd" * 32, "artefact": {"claim": "a", "path": "2"}}
    before = render(values={**LEAST, "variants": [old]})
    after = render(values={**LEAST, "variants": [new, {**old, "retiring": True}]})
    # The old one goes on as it is: its pods are not exchanged.
    name = "es-ev-m-mc-s0-abababab"
    assert before.one("Deployment", name) == after.one("Deployment", name)
    assert before.one("Service", name) == after.one("Service", name)
    assert before.one("Deployment", "gateway") == after.one("Deployment", "gateway")
    known = json.loads(after.one("ConfigMap", "workers")["data"]["workers.json"])
    assert list(known) == ["es-ev-m-mc-s0", "es-ev-m-mc-s0@abababababab"]
    assert known["es-ev-m-mc-s0"] == [f"dns:{RELEASE}-efficientsam3-es-ev-m-mc-s0-cdcdcdcd:50061"]


def test_the_old_artefact_costs_nothing_while_nobody_uses_it() -> None:
    (retiring,) = [
        each
        for each in render(values=EVERYTHING).of_kind("ScaledObject")
        if each["metadata"]["name"].endswith("-cdcdcdcd")
    ]
    assert retiring["spec"]["minReplicaCount"] == 0


def test_a_worker_starts_with_the_artefact_of_its_digest_alone() -> None:
    student = render(values=EVERYTHING).one("Deployment", "es-ev-m-mc-s0-abababab")
    (check,) = student["spec"]["template"]["spec"]["initContainers"]
    told = {each["name"]: each["value"] for each in check["env"]}
    assert told["DIGEST"] == "ab" * 32
    store = read_settings(container(student), WorkerSettings).store
    assert told["MANIFEST"] == f"{store}/es-ev-m-mc-s0/manifest.json"
