"""Fetching released files, from a server of our own that speaks the hub's protocol."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model_store import artifact, registry
from tests.hub_server import COMMIT, Fault, Hub, HubFile, serve_hub
from tests.released import write_checkpoint

REPOSITORY, FILE = "somebody/students", "folder/student.pt"
VARIANT = registry.find("es-ev-m-mc-s0")
# huggingface_hub takes ten megabytes at a time; what came of the next ten is lost when a transfer ends.
MEGABYTE = 10**6
CONTENT = bytes(range(256)) * (24 * MEGABYTE // 256)
FETCH = """
import json, sys
from model_store import pull
told = []
try:
    found = pull.fetch(*json.loads(sys.argv[1]), lambda stage, fraction: told.append((stage, fraction)))
    answer = {name: str(getattr(found, name)) for name in found.__slots__} | {"origin": found.origin()}
except pull.PullError as error:
    answer = {"error": str(error)}
print(json.dumps(answer | {"told": told, "torch": "torch" in sys.modules}))
"""


@dataclass
class Shell:
    """Runs commands with the hub's environment."""

    hub: Hub
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        ours = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "NO_PROXY": "127.0.0.1,localhost"}
        return {**kept, **ours, **more}

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=self.environment(**more)
        )

    def fetch(self, *aliases: str, revision: str | None = None, **more: str) -> dict[str, Any]:
        done = self.run("-c", FETCH, json.dumps([REPOSITORY, FILE, aliases, revision]), **more)
        # Nothing of huggingface_hub's is printed: no warning, no bar.
        assert (done.returncode, done.stderr) == (0, "")
        answer: dict[str, Any] = json.loads(done.stdout)
        assert not answer.pop("torch")
        return answer

    def fails(self, *aliases: str, **more: str) -> str:
        """What is told of a fetch that cannot succeed, in one line."""
        told: str = self.fetch(*aliases, **more)["error"]
        assert "\n" not in told
        return told

    def pull(self, name: str, **more: str) -> subprocess.CompletedProcess[str]:
        store = str(self.home.parent / "store")
        return self.run("-m", "service.cli", "variants", "pull", name, "--store", store, **more)

    def refuses(self, name: str, sentence: str, **more: str) -> None:
        """The command ends with one line that has the sentence, and nothing is in the store."""
        done = self.pull(name, **more)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.strip().splitlines()
        assert sentence in line
        assert not (self.home.parent / "store").exists()


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with one repository of one file."""
    with serve_hub(Hub(files={(REPOSITORY, FILE): HubFile(CONTENT)})) as hub:
        yield hub


@pytest.fixture
def shell(hub: Hub, tmp_path: Path) -> Shell:
    return Shell(hub, tmp_path / "home")


def _partial(shell: Shell, digest: str) -> Path:
    return shell.home / "hub" / "models--somebody--students" / "blobs" / f"{digest}.incomplete"


def test_a_file_is_fetched_once_with_its_revision_digest_and_progress(shell: Shell, hub: Hub) -> None:
    digest = hub.files[REPOSITORY, FILE].digest
    first = shell.fetch()
    assert Path(first["path"]).read_bytes() == CONTENT
    assert first["sha256"] == digest and first["bytes"] == str(len(CONTENT))
    assert (first["repository"], first["file"], first["revision"]) == (REPOSITORY, FILE, COMMIT)
    assert first["origin"] == {"repository": REPOSITORY, "revision": COMMIT, "path": FILE}
    stages, fractions = zip(*first["told"], strict=True)
    assert set(stages) == {"download student.pt"}
    assert list(fractions) == sorted(fractions) and fractions[0] < 0.5 < fractions[-2] and fractions[-1] == 1

    second = shell.fetch(revision=COMMIT)
    assert (second["path"], second["told"]) == (first["path"], [["download student.pt", 1.0]])
    assert hub.ranges() == [""]


def test_a_small_file_is_verified_by_gits_digest(shell: Shell, hub: Hub) -> None:
    # What `git hash-object` says of "student\n".
    digest = "ca0e242138c94e30506c0f2b8323d7468d65c261"
    hub.files[REPOSITORY, FILE] = HubFile(b"Student\n", digest)
    assert f"the hub's digest {digest}" in shell.fails()
    hub.files[REPOSITORY, FILE] = HubFile(b"student\n", digest)
    assert Path(shell.fetch()["path"]).read_bytes() == b"student\n"


def test_a_connection_that_breaks_is_taken_up_in_the_same_pull(shell: Shell, hub: Hub) -> None:
    hub.faults = [Fault(15 * MEGABYTE, "close")]
    assert Path(shell.fetch()["path"]).read_bytes() == CONTENT
    assert hub.ranges() == ["", f"bytes={10 * 2**20}-"]


def test_a_pull_that_was_killed_is_gone_on_with_by_the_next(shell: Shell, hub: Hub) -> None:
    hub.faults = [Fault(15 * MEGABYTE, "wait")]
    command = [sys.executable, "-c", FETCH, json.dumps([REPOSITORY, FILE, [], None])]
    with subprocess.Popen(command, env=shell.environment(), stdout=subprocess.PIPE) as first:
        assert hub.waiting.wait(60)
        partial = _partial(shell, hub.files[REPOSITORY, FILE].digest)
        while not (partial.exists() and partial.stat().st_size >= 10 * MEGABYTE):
            assert first.poll() is None
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    kept = partial.stat().st_size
    second = shell.fetch()
    assert Path(second["path"]).read_bytes() == CONTENT and not partial.exists()
    assert hub.ranges() == ["", f"bytes={kept}-"]
    assert second["told"][0][1] == pytest.approx(kept / len(CONTENT))


def test_a_transfer_that_breaks_off_says_that_the_next_goes_on(shell: Shell, hub: Hub) -> None:
    hub.faults = [Fault(15 * MEGABYTE, "reset")]
    told = shell.fails()
    assert f"transfer of {FILE} broke off" in told and "the next pull goes on" in told
    assert Path(shell.fetch()["path"]).read_bytes() == CONTENT
    assert hub.ranges() == ["", f"bytes={10 * 2**20}-"]


def test_two_pulls_at_once_fetch_once(shell: Shell, hub: Hub) -> None:
    command = [sys.executable, "-c", FETCH, json.dumps([REPOSITORY, FILE, [], None])]
    both = [subprocess.Popen(command, env=shell.environment(), stdout=subprocess.PIPE) for _ in range(2)]
    answers = [json.loads(each.communicate()[0]) for each in both]
    assert answers[0]["path"] == answers[1]["path"]
    assert hub.ranges() == [""]


@pytest.mark.parametrize("without_links", ["", "1"])
def test_a_file_with_another_digest_is_refused_and_fetched_anew(
    shell: Shell, hub: Hub, without_links: str
) -> None:
    right = hub.files[REPOSITORY, FILE]
    hub.files[REPOSITORY, FILE] = HubFile(CONTENT[::-1], right.digest)
    told = shell.fails(HF_HUB_DISABLE_SYMLINKS=without_links)
    assert "student.pt is not the file that the hub announced" in told and right.digest in told
    assert not [path for path in shell.home.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    hub.files[REPOSITORY, FILE] = right
    again = shell.fetch(HF_HUB_DISABLE_SYMLINKS=without_links)
    assert Path(again["path"]).read_bytes() == CONTENT
    assert hub.ranges() == ["", ""]


def test_a_cached_file_that_changed_is_refused_even_without_a_network(shell: Shell, hub: Hub) -> None:
    path = Path(shell.fetch()["path"])
    path.write_bytes(CONTENT[::-1])
    assert "not the file that the hub announced" in shell.fails(HF_HUB_OFFLINE="1")
    assert not os.path.lexists(path)


def test_a_file_of_another_length_is_refused_and_fetched_anew(shell: Shell, hub: Hub) -> None:
    right = hub.files[REPOSITORY, FILE]
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        hub.files[REPOSITORY, FILE] = HubFile(CONTENT, right.digest, size)
        assert f"did not come with the {size} bytes announced" in shell.fails()
    hub.files[REPOSITORY, FILE] = right
    assert Path(shell.fetch()["path"]).read_bytes() == CONTENT
    assert hub.ranges() == ["", "", ""]


def test_an_older_name_is_found_and_recorded(shell: Shell, hub: Hub) -> None:
    hub.files = {(REPOSITORY, "old.pt"): HubFile(b"old")}
    assert shell.fetch("older.pt", "old.pt")["origin"]["path"] == "old.pt"
    assert shell.fetch("older.pt", "old.pt", HF_HUB_OFFLINE="1")["file"] == "old.pt"
    assert f"{REPOSITORY} has no file {FILE} or older.pt at revision main" in shell.fails("older.pt")


def test_the_cache_serves_where_the_hub_cannot(shell: Shell, hub: Hub) -> None:
    fetched = shell.fetch()
    asked = len(hub.asked)
    assert shell.fetch(HF_HUB_OFFLINE="1")["path"] == fetched["path"]
    assert shell.fetch(HF_ENDPOINT="http://127.0.0.1:1")["path"] == fetched["path"]
    assert len(hub.asked) == asked
    hub.trouble = (503, {})
    assert shell.fetch()["path"] == fetched["path"]


def test_no_room_is_told_before_the_transfer(shell: Shell, hub: Hub) -> None:
    hub.files[REPOSITORY, FILE] = HubFile(CONTENT, size=10**18)
    told = shell.fails()
    assert f"no room in {shell.home}" in told and "it needs 1000000000000.0 MB" in told
    assert hub.ranges() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_disk_that_fills_is_told_with_what_was_needed(shell: Shell, hub: Hub) -> None:
    partial = _partial(shell, hub.files[REPOSITORY, FILE].digest)
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    told = shell.fails()
    assert f"no room in {shell.home}" in told and f"it needs {len(CONTENT) / 1e6:.1f} MB" in told
    partial.unlink()
    assert Path(shell.fetch()["path"]).read_bytes() == CONTENT


def test_a_token_opens_what_is_private_and_goes_to_the_hub_alone(shell: Shell, hub: Hub) -> None:
    hub.private = "hf_secret"
    assert "(401)" in shell.fails() and "hf auth login" in shell.fails()
    assert "(401)" in shell.fails(HF_TOKEN="hf_wrong")
    assert Path(shell.fetch(HF_TOKEN="hf_secret")["path"]).read_bytes() == CONTENT
    with_token = {(path.startswith("/cdn/"), token) for _, path, _, token in hub.asked}
    assert (False, True) in with_token and (True, True) not in with_token


def test_a_gated_repository_names_the_page_to_ask_on(shell: Shell, hub: Hub) -> None:
    hub.private, hub.gated = "hf_secret", True
    told = shell.fails(HF_TOKEN="hf_other")
    assert f"no access to {hub.url}/{REPOSITORY}: it is gated" in told and "HF_TOKEN" in told


def test_what_the_hub_refuses_is_told_by_its_reason(shell: Shell, hub: Hub) -> None:
    assert f"{REPOSITORY} has no revision v9" in shell.fails(revision="v9")
    hub.trouble = (404, {"X-Error-Code": "RepoNotFound"})
    assert f"there is no repository {hub.url}/{REPOSITORY}" in shell.fails()
    hub.trouble = (429, {"RateLimit": '"resolvers";r=0;t=42'})
    assert "too many requests from here (429); try in 42 seconds" in shell.fails()
    hub.trouble = (503, {})
    assert "cannot be read now (503)" in shell.fails()
    hub.trouble = (200, {"ETag": '"../../escaped"', "X-Repo-Commit": COMMIT})
    assert "(HF_ENDPOINT) does not tell the commit, digest and size" in shell.fails()


def test_the_command_says_in_one_line_why_nothing_was_fetched(shell: Shell, hub: Hub) -> None:
    name = VARIANT.name
    shell.refuses(name, "http://127.0.0.1:1 cannot be reached", HF_ENDPOINT="http://127.0.0.1:1")
    shell.refuses(name, "variants import NAME --checkpoint FILE", HF_ENDPOINT="http://127.0.0.1:1")
    shell.refuses(name, "offline mode is on (HF_HUB_OFFLINE)", HF_HUB_OFFLINE="1")
    shell.refuses(name, f"no access to {hub.url}/{VARIANT.repository} (401)")
    hub.files[VARIANT.repository, "README.md"] = HubFile(b"")
    shell.refuses(name, f"has no file {VARIANT.file}")


def test_the_command_asks_for_nothing_that_could_not_be_imported(shell: Shell, hub: Hub) -> None:
    shell.refuses("es-ev-s-mc-s0", "no weights of es-ev-s-mc-s0 were ever published")
    shell.refuses("es-rv-m-mc-s0", "this version could not import it")
    shell.refuses("es-ev-xs", "there is no variant 'es-ev-xs'")
    # What the import system does when torch is not installed.
    code = "import sys; sys.modules['torch'] = None; from service.cli import main; main(sys.argv[1:])"
    done = shell.run("-c", code, "variants", "pull", VARIANT.name)
    assert "needs torch: pip install 'efficientsam3-service[import]'" in done.stderr
    assert hub.asked == []


def test_a_fetched_file_that_is_no_checkpoint_stays_in_the_hubs_cache_alone(shell: Shell, hub: Hub) -> None:
    hub.files[VARIANT.repository, VARIANT.file] = HubFile(b"no checkpoint")
    done = shell.pull(VARIANT.name)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"efficientsam3: {Path(VARIANT.file).name} ")
    assert not (shell.home.parent / "store").exists()
    (kept,) = shell.home.rglob(Path(VARIANT.file).name)
    assert kept.read_bytes() == b"no checkpoint"


@pytest.mark.slow
def test_a_variant_is_pulled_and_its_origin_recorded(
    shell: Shell, hub: Hub, reference: Path, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(reference, VARIANT.name, tmp_path / "checkpoint.pt")
    hub.files[VARIANT.repository, VARIANT.file] = HubFile(checkpoint.read_bytes())
    done = shell.pull(VARIANT.name)
    assert done.returncode == 0, done.stderr
    made = artifact.load(tmp_path / "store" / VARIANT.name)
    assert made.manifest.source == {
        "file": Path(VARIANT.file).name,
        "sha256": hub.files[VARIANT.repository, VARIANT.file].digest,
        "bytes": checkpoint.stat().st_size,
        "repository": VARIANT.repository,
        "revision": COMMIT,
        "path": VARIANT.file,
    }
