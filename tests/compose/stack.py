"""The images and docker-compose.yml, for real: `make compose-test` (docs/docker.md).

pytest does not find this file by itself: it needs Docker, and the images that `make images` builds.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from service.client import AsyncClient, Client
from service.client.answers import Frame
from service.video import Video, as_png
from tests.compose.composed import ROOT, Stack, composed
from tests.compose.dashboard import queries

SAMPLES = ROOT / "model_store" / "samples"
OURS = ("gateway", "worker")
# Until what was asked can be seen in Prometheus.
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with composed() as stack:
        yield stack


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    with Video(SAMPLES / "birds-and-bears.mp4") as pictures:
        return [as_png(picture) for picture in pictures]


@pytest.mark.parametrize("service", OURS)
def test_a_container_is_nobodys_and_writes_nowhere(stack: Stack, service: str) -> None:
    facts = stack.facts(service)
    assert facts["Config"]["User"] == "10001:10001"
    assert facts["HostConfig"]["ReadonlyRootfs"] is True
    assert facts["HostConfig"]["CapDrop"] == ["ALL"]
    assert facts["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert facts["State"]["Health"]["Status"] == "healthy"
    assert stack.shell(service, "id --user").stdout == "10001\n"
    for folder in ("/", "/opt/efficientsam3", "/var/lib", "/etc", "/usr/local/bin"):
        tried = stack.shell(service, f"touch {folder}/probe")
        assert tried.returncode == 1 and "Read-only file system" in tried.stderr, tried
    assert stack.shell(service, "touch /tmp/probe").returncode == 0


@pytest.mark.parametrize("service", OURS)
def test_a_container_has_nothing_to_build_or_install_with(stack: Stack, service: str) -> None:
    found = stack.shell(service, "command -v cc gcc g++ ld make cmake git pip pip3 uv")
    assert found.stdout == ""
    for module in ("pip", "ensurepip"):
        assert f"No module named {module}" in stack.shell(service, f"python -m {module} --version").stderr
    privileged = stack.shell(service, "find / -xdev -type f -perm /6000 2>/dev/null")
    assert privileged.stdout == ""


@pytest.mark.parametrize("service", OURS)
def test_an_image_says_what_it_is(stack: Stack, service: str) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in stack.facts(service)["Config"]["Labels"].items()
    }
    assert (
        labels["title"] == {"gateway": "efficientsam3-gateway", "worker": "efficientsam3-worker-cpu"}[service]
    )
    assert labels["version"] == "0.1.0" and labels["licenses"] == "Apache-2.0" and labels["revision"]


def test_a_text_is_answered(stack: Stack) -> None:
    with Client(f"http://{stack.address('gateway', 8080)}") as client:
        answer = client.segment((SAMPLES / "pets.jpg").read_bytes(), [{"text": "animal"}])
    assert len(answer.results[0]) >= 2
    assert all(segment.mask_array().any() for segment in answer.results[0])


def test_a_session_goes_on_though_its_worker_is_killed(stack: Stack, frames: list[bytes]) -> None:
    async def tracked(kill_at: int | None) -> list[Frame]:
        async with AsyncClient(f"grpc://{stack.address('gateway', 8081)}", timeout_s=120) as client:
            session = await client.open_session()

            async def sent() -> AsyncIterator[tuple[bytes, list[dict[str, Any]]]]:
                for index, frame in enumerate(frames):
                    if index == kill_at:
                        await asyncio.to_thread(stack.kill, "worker")
                    yield frame, [{"text": "polar bear"}] if index == 0 else []

            answered = [frame async for frame in session.stream(sent())]
            await session.delete()
            return answered

    undisturbed = asyncio.run(tracked(None))
    before = stack.facts("worker")["RestartCount"]
    disturbed = asyncio.run(tracked(len(frames) // 2))
    assert stack.facts("worker")["RestartCount"] == before + 1
    assert [frame.index for frame in disturbed] == list(range(len(frames)))
    overlaps = [_overlap(*pair) for pair in zip(undisturbed, disturbed, strict=True)]
    assert any(overlap is not None for overlap in overlaps)
    assert min(overlap for overlap in overlaps if overlap is not None) >= 0.99


def _overlap(one: Frame, other: Frame) -> float | None:
    """The least IoU of an object's masks in both, None where there is none to be seen."""
    masks = [{each.id: each.mask_array() for each in frame.objects if each.visible} for frame in (one, other)]
    assert masks[0].keys() == masks[1].keys()
    if not masks[0]:
        return None
    return min(
        float((mask & masks[1][id]).sum() / (mask | masks[1][id]).sum()) for id, mask in masks[0].items()
    )


def test_prometheus_sees_both_and_the_dashboard_has_data(stack: Stack, frames: list[bytes]) -> None:
    missing = set(queries())
    with (
        httpx.Client(base_url=f"http://{stack.address('prometheus', 9090)}") as prometheus,
        Client(f"http://{stack.address('gateway', 8080)}") as client,
    ):
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and missing:
            _use(client, frames)
            missing = {(title, query) for title, query in missing if not _data(prometheus, query)}
        assert missing == set()
        for service in OURS:
            assert _data(prometheus, f'up{{job="{service}"}} == 1')
        assert _data(prometheus, 'efficientsam3_requests_total{variant="demo", kind="ok"} > 2')


def _use(client: Client, frames: list[bytes]) -> None:
    """A bit of everything that the service does, for about as long as two scrapes are apart."""
    session = client.open_session()
    for index, frame in enumerate(frames[:5]):
        session.add(frame, [{"text": "polar bear"}] if index == 0 else [])
        client.segment((SAMPLES / "pets.jpg").read_bytes(), [{"text": "animal"}, {"box": [40, 40, 200, 200]}])
        time.sleep(1)
    session.delete()


def _data(prometheus: httpx.Client, query: str) -> bool:
    """Whether the query's result has a number. Raises where Prometheus does not understand the query."""
    answer = prometheus.get("/api/v1/query", params={"query": query})
    assert answer.is_success, (query, answer.text)
    return any(math.isfinite(float(each["value"][1])) for each in answer.json()["data"]["result"])
