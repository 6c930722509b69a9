"""What released files hold, beside what the networks read."""

import gzip
import json
from pathlib import Path

import pytest

from model_store import registry
from model_store.assembly import shapes_in_file
from model_store.layouts import STAGE_3_LEFT_OUT, layout_of
from model_store.networks.keys import canonical, sources, unused_group
from model_store.networks.memory import MemoryKind
from model_store.networks.sizes import sizes_of
from model_store.networks.student import Abilities, blank, shapes

# Tables that the import cuts, resizes or takes the first row from.
_TABLES = ("pos_embed.pos_embed", "encoder.positional_embedding")


@pytest.mark.slow
@pytest.mark.parametrize("name", [variant.name for variant in registry.distilled()])
def test_a_variants_file_holds_what_its_networks_read_and_what_is_known_to_be_unused(
    name: str, reference: Path
) -> None:
    variant = registry.find(name)
    layout = layout_of(variant, reference / "manifests")
    in_file = {canonical(key): shape for key, shape in layout.shapes.items()}
    read = shapes_in_file(sizes_of(variant))
    missing = {key for key in read if key not in in_file}
    if variant.stage == "stage3" and variant.released:
        assert missing and all(key.startswith(STAGE_3_LEFT_OUT) for key in missing)
    elif variant.memory == "perceiver":
        assert missing and not any(key.startswith("tracker.") for key in missing)
    else:
        assert not missing
    for key, shape in in_file.items():
        assert key in read or unused_group(key), key
        assert key not in read or key.endswith(_TABLES) or read[key] == shape, key


def test_parameters_of_the_stage_3_files_are_those_published(reference: Path) -> None:
    for name in ("es-ev-m-mc-s0", "es-rv-m-mc-s0", "es-tv-m-mc-s0"):
        variant = registry.find(name)
        millions = layout_of(variant, reference / "manifests").parameters / 1e6
        assert abs(millions - variant.published_millions) < 0.06


@pytest.mark.parametrize(
    ("variant", "kind", "layout"),
    [
        ("es-ev-m-mc-s0", "dense", "ev_m_mobileclip_s0"),
        ("es-ev-m-perceiver", "perceiver", "stage2_efficient_tracker_ev_m"),
    ],
)
def test_a_student_with_a_video_memory_reads_all_of_the_tracker_but_one_tensor(
    variant: str, kind: MemoryKind, layout: str, reference: Path
) -> None:
    with gzip.open(reference / "manifests" / f"{layout}.json.gz") as file:
        in_file = {canonical(key): each["shape"] for key, each in json.load(file)["keys"].items()}
    sizes = sizes_of(registry.find(variant))
    wanted = shapes(blank(sizes, Abilities(concepts=False, memory=kind)))
    read: set[str] = set()
    for name, source in sources(wanted).items():
        if name.startswith(("memory.", "objects.")):
            read.add(source.key)
            first = wanted[name][0] * (1 if source.third is None else 3)
            assert in_file[source.key] == [first, *wanted[name][1:]], source.key
    left = {key for key in in_file if key.startswith("tracker.")} - read
    # Added where the reference has no past to attend to, which the students do otherwise.
    assert left == {"tracker.no_mem_pos_enc"}
