"""Artefacts appear in the store whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.artifact import StoreError
from model_store.staging import staged


def _fill(store: Path, content: str) -> None:
    with staged(store, "a") as folder:
        (folder / "file").write_text(content)


def test_a_filled_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for content in ("one", "two"):
        _fill(tmp_path / "store", content)
        assert [each.name for each in (tmp_path / "store").iterdir()] == ["a"]
        assert (tmp_path / "store" / "a" / "file").read_text() == content


def test_a_failure_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    _fill(tmp_path, "one")
    with pytest.raises(ZeroDivisionError), staged(tmp_path, "a") as folder:
        (folder / "file").write_text("two")
        raise ZeroDivisionError
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "one"


def test_what_a_killed_process_left_is_swept_and_what_runs_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from model_store.staging import staged\n"
        "with staged(Path(sys.argv[1]), 'a') as folder:\n"
        "    (folder / 'file').write_text('half'); print('filling', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"filling\n"
        (running,) = tmp_path.iterdir()
        _fill(tmp_path, "one")
        assert {each.name for each in tmp_path.iterdir()} == {"a", running.name}
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert running.exists()
    with staged(tmp_path, "b"):
        pass
    assert {each.name for each in tmp_path.iterdir()} == {"a", "b"}, "whoever comes next sweeps"


def test_an_artefact_on_its_way_out_comes_back_where_the_process_was_killed(tmp_path: Path) -> None:
    _fill(tmp_path, "one")
    left = tmp_path / ".importing-a~x"
    (left / "new").mkdir(parents=True)
    (tmp_path / "a").rename(left / "old")
    with pytest.raises(ZeroDivisionError), staged(tmp_path, "a"):
        raise ZeroDivisionError
    assert (tmp_path / "a" / "file").read_text() == "one"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"no room in {tmp_path}"), staged(tmp_path, "a"):
        Path("/dev/full").write_bytes(bytes(1 << 16))
    assert not list(tmp_path.iterdir())
