"""Fetching released files, from a server of our own that speaks the hub's protocol."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, Fault, Hub, HubFile
from tests.hub_shell import FETCH, FILE, REPOSITORY, Shell, hub_shell

# huggingface_hub takes ten megabytes at a time; what came of the next ten is lost when a transfer ends.
MEGABYTE = 10**6
CONTENT = bytes(range(256)) * (24 * MEGABYTE // 256)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with hub_shell(Hub(files={(REPOSITORY, FILE): HubFile(CONTENT)}), tmp_path) as shell:
        yield shell


@pytest.fixture
def hub(shell: Shell) -> Hub:
    """A hub with one repository of one file."""
    return shell.hub


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
