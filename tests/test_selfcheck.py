"""`efficientsam3 variants selfcheck`."""

import subprocess
import sys
from pathlib import Path

import pytest


def _selfcheck(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "variants", "selfcheck", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_cannot_be_made_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    done = _selfcheck("es-ev-s-mc-s0", "es-tv-l-perceiver", "--layouts", str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].startswith("| variant | layout |") and len(rows) == 4
    for row, layout in zip(rows[2:], ("ev_s_notext", "tv_l_notext"), strict=True):
        assert f"FAILED: {tmp_path / layout}.json.gz is no layout of a checkpoint" in row
    assert done.stderr.strip().endswith("2 of 2 variants failed")


@pytest.mark.slow
def test_a_variant_is_made_served_and_asked(reference: Path) -> None:
    done = _selfcheck("es-ev-s-mc-s0", "--layouts", str(reference / "manifests"))
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[2].split("|")]
    assert cells[1:3] == ["es-ev-s-mc-s0", "verified"]
    assert "text exemplar_box exemplar_point points box mask" in cells
