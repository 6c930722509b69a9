"""Everything that the chart tells a process is a setting of it, and is taken."""

import json
from pathlib import Path

import typer.main

from service.cli import app
from service.config import GatewaySettings, WorkerSettings
from service.gateway.discovery import Discovery
from tests.deploy.containers import PREFIX, container, environment, processes, read_settings
from tests.deploy.helm import LEAST, Rendered, component, render


def test_every_variable_is_a_setting_that_parses(rendered: Rendered) -> None:
    for manifest, process, kind in processes(rendered):
        told = {name for name in environment(process) if name.startswith(PREFIX)}
        known = {f"{PREFIX}{name.upper()}" for name in kind.model_fields}
        assert len(told) > 4 and told - known == set(), manifest["metadata"]["name"]
        read_settings(process, kind)


def test_settings_arrive_as_they_were_written(everything: Rendered) -> None:
    gateway = read_settings(container(everything.one("Deployment", "gateway")), GatewaySettings)
    # Helm reads whole numbers as fractions: a large one must not come as 6.7e+07.
    assert gateway.max_body_bytes == 64 * 1024 * 1024
    assert gateway.allow_image_urls is True
    assert gateway.allowed_origins == ["https://a.example"]
    student = everything.one("Deployment", "es-ev-m-mc-s0-abababab")
    worker = read_settings(container(student), WorkerSettings)
    assert worker.max_body_bytes == gateway.max_body_bytes
    assert worker.trace_endpoint == gateway.trace_endpoint == "https://collector.monitoring:4317"
    assert worker.graph_precision == {"text_encoder": "f32"}
    assert (worker.engine_cores, worker.threads, worker.device) == ([0, 1], 2, "cuda")


def test_the_engine_has_the_processors_that_are_requested() -> None:
    requests = {"cpu": "2500m"}
    values = {**LEAST, "variants": [{"name": "demo", "resources": {"requests": requests}}]}
    worker = container(render(values=values).one("Deployment", "demo"))
    assert read_settings(worker, WorkerSettings).threads == 3


def test_every_file_that_a_process_is_told_of_is_mounted(rendered: Rendered) -> None:
    for manifest, process, kind in processes(rendered):
        volumes = {each["name"]: each for each in manifest["spec"]["template"]["spec"]["volumes"]}
        mounts = {each["mountPath"]: each for each in process["volumeMounts"]}
        assert {each["name"] for each in mounts.values()} == set(volumes)
        read = read_settings(process, kind)
        query = str(read.redis_url).partition("?ssl_ca_certs=")[2]
        files = [value for value in read.model_dump().values() if isinstance(value, Path)]
        for file in [*files, *([Path(query)] if query else [])]:
            if file == read.model_dump().get("store"):
                assert str(file) in mounts or "STORE" not in str(environment(process))
                continue
            volume = volumes[mounts[str(file.parent)]["name"]]
            if "secret" in volume:
                assert file.name in [item["path"] for item in volume["secret"]["items"]]
            else:
                config = next(
                    each
                    for each in rendered.of_kind("ConfigMap")
                    if each["metadata"]["name"] == volume["configMap"]["name"]
                )
                assert file.name in config["data"]


def test_the_gateway_knows_every_variant_in_their_order(everything: Rendered, tmp_path: Path) -> None:
    file = tmp_path / "workers.json"
    file.write_text(everything.one("ConfigMap", "workers")["data"]["workers.json"])
    named = Discovery(GatewaySettings(workers_file=file), lambda _: None).named
    # As the values have it.
    assert json.loads(file.read_text())["es-ev-m-mc-s0@cdcdcdcdcdcd"]["until"] == "2099-12-31T00:00:00Z"
    assert list(named) == ["demo", "es-ev-m-mc-s0", "es-ev-m-mc-s0@cdcdcdcdcdcd", "es-ev-s"]
    services = {
        f"dns:{each['metadata']['name']}:{port['port']}"
        for each in everything.of_kind("Service")
        if component(each) == "worker"
        for port in each["spec"]["ports"]
        if port["name"] == "grpc"
    }
    assert {address for addresses in named.values() for address in addresses} == services


def test_a_variant_comes_without_a_restart_of_the_gateway() -> None:
    def pod(*names: str) -> str:
        values = {**LEAST, "variants": [{"name": name} for name in names]}
        return json.dumps(render(values=values).one("Deployment", "gateway"))

    assert pod("demo") == pod("demo", "es-ev-s")


def test_the_commands_are_commands(rendered: Rendered) -> None:
    known = typer.main.get_command(app)
    for manifest, process, _ in processes(rendered):
        program, name, *arguments = process["command"]
        command = known.commands[name]  # type: ignore[attr-defined]
        assert program == "efficientsam3" and command.make_context(name, list(arguments))
        if component(manifest) == "worker":
            assert arguments == [manifest["metadata"]["labels"]["efficientsam3/variant"]]


def test_an_artefact_is_pulled_by_the_command_there_is(everything: Rendered) -> None:
    student = everything.one("Deployment", "es-ev-s-12121212")
    (step,) = student["spec"]["template"]["spec"]["initContainers"]
    program, group, name, *arguments = step["command"]
    command = typer.main.get_command(app).commands[group].commands[name]  # type: ignore[attr-defined]
    asked = command.make_context(name, list(arguments)).params
    assert (program, group, name) == ("efficientsam3", "variants", "pull")
    assert (asked["name"], asked["ready"]) == ("es-ev-s", "https://artefacts.example:8443/2026-11/es-ev-s")
    assert asked["digest"] == "12" * 32
    # Into the folder that the worker reads, which is the pod's own.
    worker = container(student)
    store = read_settings(worker, WorkerSettings).store
    assert environment(step) == {"EFFICIENTSAM3_STORE": str(store)}
    (written,) = [each for each in step["volumeMounts"] if each["name"] == "artefact"]
    (read,) = [each for each in worker["volumeMounts"] if each["name"] == "artefact"]
    assert written == {**read, "readOnly": False} and read["mountPath"] == str(store)
    (volume,) = [e for e in student["spec"]["template"]["spec"]["volumes"] if e["name"] == "artefact"]
    assert volume == {"name": "artefact", "emptyDir": {}}


def test_no_service_of_the_release_can_be_taken_for_a_setting(rendered: Rendered) -> None:
    """Of a Service efficientsam3-http the kubelet would make EFFICIENTSAM3_HTTP_PORT."""
    for name, template in rendered.pods():
        assert template["spec"]["enableServiceLinks"] is False, name
