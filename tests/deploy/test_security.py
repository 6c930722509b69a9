"""No pod has more rights than it needs."""

from typing import Any

from tests.deploy.helm import Rendered


def _containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def test_no_pod_runs_as_root_or_without_a_profile(rendered: Rendered) -> None:
    assert len(rendered.pods()) >= 3
    for name, template in rendered.pods():
        context = template["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0 and context["runAsGroup"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_no_container_can_write_to_its_root_or_gain_rights(rendered: Rendered) -> None:
    for name, template in rendered.pods():
        for container in _containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_no_pod_has_a_token_of_the_cluster(rendered: Rendered) -> None:
    for _, template in rendered.pods():
        assert template["spec"]["automountServiceAccountToken"] is False
    for account in rendered.of_kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert not [each for each in rendered.all if "Role" in each["kind"]]


def test_no_pod_shares_anything_of_its_node(rendered: Rendered) -> None:
    for name, template in rendered.pods():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & template["spec"].keys(), name
        for volume in template["spec"]["volumes"]:
            assert "hostPath" not in volume, name
        for container in _containers(template):
            assert not any("hostPort" in port for port in container.get("ports", [])), name


def test_every_container_has_its_memory_bounded(rendered: Rendered) -> None:
    for name, template in rendered.pods():
        for container in _containers(template):
            assert "memory" in container["resources"]["limits"], name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name


def test_no_secret_is_in_a_value(rendered: Rendered) -> None:
    for name, template in rendered.pods():
        for container in _containers(template):
            for variable in container.get("env", []):
                if any(word in variable["name"] for word in ("PASSWORD", "TOKEN", "AUTH")):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}, name


def test_files_of_secrets_are_for_the_process_alone(rendered: Rendered) -> None:
    for name, template in rendered.pods():
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440, name
