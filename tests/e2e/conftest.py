"""Running services for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import DEMO, Place, placed
from tests.redis_server import RedisServer
from tests.serving import Serving
from tests.tracked_clip import FRAMES, TEXT, clip


@pytest.fixture(scope="module", params=["demo", pytest.param("synthetic", marks=pytest.mark.slow)])
def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student, or a synthesized one of full size, behind gateway and worker as processes."""
    artefact = DEMO if request.param == "demo" else request.getfixturevalue("synthetic")
    with Serving(artefact, tmp_path_factory.mktemp("serving") / "log", max_body_bytes=4_000_000) as running:
        yield running


@pytest.fixture(scope="package")
def small(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The small student behind gateway and worker, in processes of their own."""
    with Serving(artefact, tmp_path_factory.mktemp("small") / "log", precision="f32") as serving:
        yield serving


@pytest.fixture(scope="package")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(Path(tmp_path_factory.mktemp("redis"), "data"))
    with server.running():
        yield server


@pytest.fixture(scope="package")
def lasting(
    artefact: Path, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """The small student, whose sessions outlive its worker."""
    log = tmp_path_factory.mktemp("lasting") / "log"
    with Serving(artefact, log, precision="f32", redis_url=redis.url) as serving:
        yield serving


@pytest.fixture(scope="package", params=["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The embedded student's, with three objects that are shown and a text's instances."""
    folder, frames = tmp_path_factory.mktemp("place"), clip(FRAMES, TEXT)
    with placed(folder, DEMO, frames, engine=request.param, precision="f32") as place:
        seen = [each for answer in place.undisturbed for each in answer["objects"] if each["visible"]]
        assert {each["label"] for each in seen} == {"", TEXT}
        yield place


@pytest.fixture(params=["http", "grpc"])
def way(request: pytest.FixtureRequest) -> str:
    """How a client speaks to the service."""
    return str(request.param)
