"""Who may reach whom, as NetworkPolicies say."""

from typing import Any

import pytest

from tests.deploy.helm import EVERYTHING, EXAMPLES, LEAST, Manifest, Rendered, component, render

Labels = dict[str, str]


def _policies(rendered: Rendered, labels: Labels) -> list[Manifest]:
    return [
        each
        for each in rendered.of_kind("NetworkPolicy")
        if each["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]


def _named(port: Any, template: dict[str, Any]) -> Any:
    ports = {
        each["name"]: each["containerPort"] for each in template["spec"]["containers"][0].get("ports", [])
    }
    return ports.get(port, port)


def _allows(peers: list[dict[str, Any]] | None, labels: Labels) -> bool:
    """Whether a pod of this namespace is among them; no list is everybody."""
    if not peers:
        return True
    return any(
        "namespaceSelector" not in peer
        and "podSelector" in peer
        and peer["podSelector"]["matchLabels"].items() <= labels.items()
        for peer in peers
    )


def _open(rendered: Rendered, asks: str, asked: str, port: int) -> bool:
    """Whether pods of one component may connect to those of another, by both sides' policies."""
    templates = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each for _, each in rendered.pods()
    }
    here, there = (templates[each]["metadata"]["labels"] for each in (asks, asked))
    out = any(
        _allows(rule.get("to"), there) and port in [each["port"] for each in rule["ports"]]
        for policy in _policies(rendered, here)
        for rule in policy["spec"].get("egress", [])
    )
    into = any(
        _allows(rule.get("from"), here)
        and port in [_named(each["port"], templates[asked]) for each in rule["ports"]]
        for policy in _policies(rendered, there)
        for rule in policy["spec"].get("ingress", [])
    )
    return out and into


def test_every_pod_is_closed_both_ways_but_for_what_is_listed(rendered: Rendered) -> None:
    for name, template in rendered.pods():
        policies = _policies(rendered, template["metadata"]["labels"])
        assert ["Ingress", "Egress"] in [each["spec"]["policyTypes"] for each in policies], name


@pytest.mark.parametrize(
    ("asks", "asked", "port", "allowed"),
    [
        ("gateway", "worker", 50061, True),
        ("worker", "worker", 50061, False),
        ("redis", "worker", 50061, False),
        ("gateway", "redis", 6379, True),
        ("worker", "redis", 6379, True),
        ("worker", "gateway", 8080, False),
        ("redis", "gateway", 8080, False),
    ],
)
def test_only_the_gateway_reaches_workers_and_only_both_reach_redis(
    everything: Rendered, asks: str, asked: str, port: int, allowed: bool
) -> None:
    assert _open(everything, asks, asked, port) is allowed


def test_the_workers_port_is_for_gateways_alone_and_others_see_metrics_at_most(rendered: Rendered) -> None:
    policy = rendered.one("NetworkPolicy", "worker")
    calls, metrics = policy["spec"]["ingress"]
    assert [each["port"] for each in calls["ports"]] == ["grpc"]
    (peer,) = calls["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert [each["port"] for each in metrics["ports"]] == ["metrics"]


def test_who_needs_names_may_look_them_up(rendered: Rendered) -> None:
    for policy in rendered.of_kind("NetworkPolicy"):
        if "Ingress" not in policy["spec"]["policyTypes"]:
            continue
        lookups = [
            rule
            for rule in policy["spec"].get("egress", [])
            if {"port": 53, "protocol": "UDP"} in rule["ports"]
        ]
        # Redis asks nobody anything.
        assert len(lookups) == (component(policy) != "redis")
        for rule in lookups:
            assert {"port": 53, "protocol": "TCP"} in rule["ports"]
            assert rule["to"] == [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
            ]


def test_workers_have_no_way_out() -> None:
    """But to Redis and to DNS: whatever they fetch is fetched by the gateway."""
    worker = render(values=LEAST).one("NetworkPolicy", "worker")
    assert sorted(each["port"] for rule in worker["spec"]["egress"] for each in rule["ports"]) == [
        53,
        53,
        6379,
    ]


def test_workers_that_pull_their_artefact_have_one_way_out(everything: Rendered) -> None:
    more = [each for each in everything.of_kind("NetworkPolicy") if each["spec"]["policyTypes"] == ["Egress"]]
    (policy,) = more
    reached = [
        name
        for name, template in everything.pods()
        if policy in _policies(everything, template["metadata"]["labels"])
    ]
    assert [name.partition("efficientsam3-")[2] for name in reached] == ["es-ev-s-12121212"]
    assert policy["spec"]["egress"] == [{"ports": [{"port": 8443, "protocol": "TCP"}]}]


def test_the_gateway_fetches_from_global_addresses_alone_and_only_where_it_fetches() -> None:
    def ways(values: dict[str, Any]) -> list[Any]:
        rules = render(values=values).one("NetworkPolicy", "gateway")["spec"]["egress"]
        return [rule["to"] for rule in rules if {"port": 443, "protocol": "TCP"} in rule["ports"]]

    assert ways(dict(LEAST)) == []
    ((four, six),) = ways(dict(EVERYTHING))
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(four["ipBlock"]["except"])
    assert six["ipBlock"]["cidr"] == "2000::/3"


def test_what_is_outside_is_reached_where_the_values_say() -> None:
    pool = render(next(each for each in EXAMPLES if each.stem == "gpu-pool"))
    for name in ("gateway", "worker"):
        rules = pool.one("NetworkPolicy", name)["spec"]["egress"]
        to = {each["port"]: rule.get("to") for rule in rules for each in rule["ports"]}
        assert to[6380] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}]
        assert to[4317] == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ]
    (clients,) = pool.one("NetworkPolicy", "gateway")["spec"]["ingress"]
    assert len(clients["from"]) == 2


def test_none_where_they_are_off() -> None:
    assert not render(values={**LEAST, "networkPolicy": {"enabled": False}}).of_kind("NetworkPolicy")
