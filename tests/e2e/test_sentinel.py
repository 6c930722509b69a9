"""A session's frames while the master of its Redis is killed, and its replica becomes the master."""

from pathlib import Path

from service.client import Client
from tests.deployment import Deployment
from tests.place import DEMO, PATIENCE_S
from tests.sentinels import Sentinels
from tests.tracked_clip import TEXT, clip, followed

FRAMES = 12


def test_a_session_goes_on_at_the_new_master(tmp_path: Path) -> None:
    servers, frames = Sentinels(tmp_path), clip(FRAMES, TEXT)
    placing = Deployment(
        DEMO, tmp_path, servers.url, workers=1, gateways=1, batching="fixed", precision="f32"
    )
    with servers.running(), placing as deployment, Client(deployment.urls[0], timeout_s=PATIENCE_S) as client:
        undisturbed = followed(client.open_session(), frames)
        after = {
            4: servers.first.kill,
            # What the worker kept at hand is gone: what follows comes from the new master.
            8: deployment.kill_workers,
        }
        assert followed(client.open_session(), frames, after) == undisturbed
        assert "Traceback" not in deployment.logs()
