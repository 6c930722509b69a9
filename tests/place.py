"""A deployment in which a session's frames are followed, and what is found when nothing happens to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from model_store import artifact, registry
from service.client import Client
from tests.deployment import Deployment
from tests.redis_server import RedisServer
from tests.tracked_clip import Sent, followed

# Longer than a full-size student takes to start beside other work.
PATIENCE_S = 300
DEMO = artifact.PACKAGED / registry.EMBEDDED

Answers = list[Mapping[str, Any]]
After = Mapping[int, Callable[[], object]]


@dataclass
class Place:
    """Where the frames of a session are followed, and what is found on them when nothing happens."""

    deployment: Deployment
    redis: RedisServer
    frames: Sequence[Sent]

    @cached_property
    def undisturbed(self) -> Answers:
        with Client(self.deployment.urls[0], timeout_s=PATIENCE_S) as client:
            answers = followed(client.open_session(), self.frames)
        assert all([each["object"] for each in answer["objects"]][:3] == [1, 2, 3] for answer in answers)
        assert any(each["visible"] for each in answers[-1]["objects"])
        return answers

    def disturbed(self, url: str, after: After) -> Answers:
        """The frames' answers; those that the store still has are given again, by the last gateway."""
        with Client(url, timeout_s=PATIENCE_S) as client, Client(self.deployment.urls[-1]) as other:
            session = client.open_session()
            answers = followed(session, self.frames, after)
            again = other.session(session.id)
            assert again.next_frame == len(answers)
            again.next_frame = again.state()["oldest_answer"]
            last = followed(again, self.frames[again.next_frame :])
        assert len(last) == 4 and last == answers[-4:]
        return answers

    def restart_redis(self) -> None:
        self.redis.kill()
        self.redis.start()


@contextmanager
def placed(
    folder: Path,
    artefact: Path,
    frames: Sequence[Sent],
    *,
    sync: str = "always",
    batching: str = "fixed",
    **settings: Any,
) -> Iterator[Place]:
    """A deployment before a Redis of its own. `sync` is the one's, the other settings are the other's."""
    redis = RedisServer(folder / "redis", sync)
    placing = Deployment(artefact, folder, redis.url, batching=batching, **settings)
    with redis.running(), placing as deployment:
        yield Place(deployment, redis, frames)
        assert "Traceback" not in deployment.logs()
