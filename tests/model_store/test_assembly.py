"""What a student is put together from, when a file lacks a part of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_store import artifact, checkpoint, importing, synthetic
from model_store.artifact import StoreError
from model_store.assembly import OBJECT_PARTS, assemble
from model_store.checkpoint import CheckpointError
from model_store.networks.sizes import Sizes
from model_store.networks.student import Abilities, blank, build, shapes
from model_store.registry import MemoryKind
from model_store.selfcheck import in_file
from tests.model_store.conftest import INTERACTIVE, TRACKER

Tensors = dict[str, Tensor]
POSITIONS = "text.embeddings.position_embedding.position_embedding"
TABLE = "detector.backbone.language_backbone.encoder.positional_embedding.pos_embed.pos_embed"
GEOMETRY = "detector.geometry_encoder."


def _without(tensors: Tensors, *beginnings: str) -> Tensors:
    return {key: value for key, value in tensors.items() if not key.startswith(beginnings)}


def test_a_file_without_the_interactive_side_finds_concepts(released: Tensors, sizes: Sizes) -> None:
    made = assemble(sizes, _without(released, INTERACTIVE, TRACKER))
    assert made.abilities.concepts and not made.abilities.objects
    assert made.lacking == OBJECT_PARTS
    assert not [name for name in made.weights if name.startswith(("interactive_neck.", "objects."))]


def test_a_file_of_the_tracker_alone_segments_objects(
    released: Tensors, sizes: Sizes, tmp_path: Path
) -> None:
    """As Stage 2 saves it: no `tracker.` before its keys."""
    tracker = _without(
        released, GEOMETRY, "detector.transformer", "detector.segmentation_head", "detector.dot"
    )
    path = tmp_path / "file.pt"
    torch.save({key.removeprefix("tracker."): value for key, value in tracker.items()}, path)
    made = assemble(sizes, checkpoint.read(path))
    assert made.abilities.objects and not made.abilities.concepts
    assert made.lacking == ("geometry encoder", "detector", "mask head")
    assert made.audit.unused_groups["concept neck"] and made.audit.unused_groups["text encoder"]


def test_a_file_that_can_serve_nothing_is_refused_and_told_where_the_rest_is(
    released: Tensors, sizes: Sizes
) -> None:
    with pytest.raises(CheckpointError, match=r"no geometry encoder.*class token.*--fill-from FILE"):
        assemble(sizes, _without(released, GEOMETRY, INTERACTIVE, TRACKER))


def test_missing_parts_come_from_the_second_file_and_nothing_else_does(
    released: Tensors, sizes: Sizes
) -> None:
    other = {key: value + 1 if value.is_floating_point() else value for key, value in released.items()}
    made = assemble(sizes, _without(released, GEOMETRY, INTERACTIVE, TRACKER), other)
    assert not made.lacking
    assert set(made.audit.filled) == {"geometry encoder", *OBJECT_PARTS}
    whole = assemble(sizes, released)
    for name, weight in made.weights.items():
        filled = name.startswith(("detector.geometry.", "interactive_neck.", "objects."))
        assert torch.equal(weight, whole.weights[name] + filled), name
    assert made.audit.used + sum(made.audit.filled.values()) == whole.audit.used


def test_a_second_file_that_has_nothing_to_give_is_refused(released: Tensors, sizes: Sizes) -> None:
    lacking = _without(released, INTERACTIVE, TRACKER)
    with pytest.raises(
        CheckpointError, match="second file has none of what the first lacks: interactive neck"
    ):
        assemble(sizes, lacking, {"foo": torch.zeros(1)})
    assert assemble(sizes, lacking).abilities.concepts


def test_what_was_trained_comes_from_a_file_of_the_same_image_encoder_alone(
    released: Tensors, sizes: Sizes
) -> None:
    neck, trunk = "detector.backbone.vision_backbone.convs.", "detector.backbone.vision_backbone.trunk."
    lacking = _without(released, neck)
    assert assemble(sizes, lacking, released).audit.filled.keys() == {"concept neck"}
    other = _without(released, trunk)
    with pytest.raises(CheckpointError, match="none of what the first lacks: concept neck"):
        assemble(sizes, lacking, other)


def test_a_fault_in_the_second_file_is_told_as_its(released: Tensors, sizes: Sizes) -> None:
    key = GEOMETRY + "label_embed.weight"
    spoilt = released | {key: torch.full_like(released[key], torch.nan)}
    with pytest.raises(CheckpointError, match=rf"not finite.*{key} \(of the file that fills\)"):
        assemble(sizes, _without(released, GEOMETRY), spoilt)
    with pytest.raises(CheckpointError, match=rf"missing: {key} \(of the file that fills\)"):
        assemble(sizes, _without(released, GEOMETRY), _without(released, key))


def test_half_a_part_is_a_fault_and_is_not_filled(released: Tensors, sizes: Sizes) -> None:
    key = GEOMETRY + "label_embed.weight"
    with pytest.raises(CheckpointError, match=f"1 keys are missing: {key}"):
        assemble(sizes, _without(released, key), released)


def test_the_image_encoder_is_never_filled(released: Tensors, sizes: Sizes) -> None:
    trunk = "detector.backbone.vision_backbone.trunk."
    with pytest.raises(CheckpointError, match="image encoder efficientvit_b0: it is a file of another model"):
        assemble(sizes, _without(released, trunk), released)


def _with_memory(sizes: Sizes, kind: MemoryKind) -> Tensors:
    """A whole file with a video memory, and what no student reads of it."""
    tensors = in_file(synthetic.weights(shapes(blank(sizes, Abilities(memory=kind)))))
    return tensors | {"tracker.no_mem_pos_enc": torch.zeros(1, 1, sizes.width)}


@pytest.mark.parametrize("kind", ["dense", "perceiver"])
def test_a_video_memory_is_read_where_it_is_asked_for(sizes: Sizes, kind: MemoryKind) -> None:
    tensors = _with_memory(sizes, kind)
    made = assemble(sizes, tensors, memory=kind)
    assert made.abilities == Abilities(memory=kind) and not made.lacking
    assert made.audit.used == len(tensors) - 1
    assert made.audit.unused_groups == {"position of no memory": 1}
    expected = synthetic.weights(shapes(blank(sizes, made.abilities)))
    assert all(torch.equal(made.weights[name], value) for name, value in expected.items())
    build(sizes, made.weights, made.abilities)
    without = assemble(sizes, tensors)
    assert without.abilities == Abilities()
    assert without.audit.unused_groups == {"video memory": len(tensors) - without.audit.used}


def test_a_key_of_no_known_video_memory_is_unexpected(sizes: Sizes) -> None:
    tensors = _with_memory(sizes, "dense")
    with pytest.raises(CheckpointError, match=r"^1 keys are unexpected: tracker\.other$"):
        assemble(sizes, tensors | {"tracker.other": torch.zeros(1)}, memory="dense")
    with pytest.raises(
        CheckpointError, match=r"missing: tracker\.spatial_perceiver.*unexpected: tracker\.transformer"
    ):
        assemble(sizes, tensors, memory="perceiver")


def test_only_a_dense_video_memory_comes_from_a_file_of_any_image_encoder(
    released: Tensors, sizes: Sizes
) -> None:
    taken: dict[MemoryKind, bool] = {"dense": True, "perceiver": False}
    for kind, expected in taken.items():
        other = _without(_with_memory(sizes, kind), "detector.backbone.vision_backbone.trunk.")
        made = assemble(sizes, _without(released, TRACKER), other, memory=kind)
        assert made.abilities.objects and (made.abilities.memory == kind) == expected
        assert ("video memory" in made.lacking) != expected
        assert ("video memory" in made.audit.filled) == expected


def test_a_longer_position_table_is_cut_or_resized_as_the_variant_says(
    released: Tensors, sizes: Sizes
) -> None:
    rows = sizes.text.context
    table = torch.randn(1, 1, 3 * rows, released[TABLE].shape[3])
    released[TABLE] = table
    cut = assemble(sizes, released).weights[POSITIONS]
    assert torch.equal(cut, table[:, :, :rows])
    resized = assemble(sizes, released, interpolate_positions=True).weights[POSITIONS]
    # Bilinear from 3 n rows to n with half-pixel centres: every third row, from the second on.
    torch.testing.assert_close(resized, table[:, :, 1::3])
    assert not torch.equal(cut, resized)
    released[TABLE] = table[:, :, :rows]
    assert torch.equal(assemble(sizes, released, interpolate_positions=True).weights[POSITIONS], cut)


def test_a_position_table_shorter_than_the_context_is_told(tmp_path: Path) -> None:
    torch.save({TABLE: torch.zeros(1, 1, 7, 512)}, tmp_path / "file.pt")
    with pytest.raises(StoreError, match=r"7 rows, and es-ev-s-mc-s0 reads texts of 16 tokens.*--context 7"):
        importing.import_checkpoint(
            "es-ev-s-mc-s0", tmp_path / "file.pt", tmp_path / "store", lambda *_: None
        )


def test_the_manifest_says_what_cannot_be_served_and_why(partial_artefact: Path) -> None:
    manifest = artifact.load(partial_artefact).manifest
    assert manifest.prompts == ("exemplar_box", "exemplar_point")
    assert manifest.unserved["text"] == "its text encoder was left out at import, which --with-text puts in"
    for kind in ("points", "box", "mask"):
        assert manifest.unserved[kind] == (
            "its checkpoint has no interactive neck and no prompt decoder, which --fill-from FILE puts in"
        )
    assert (manifest.text_encoder, manifest.context_length) == ("", 0)
    assert "visual_prompt" in manifest.graphs and "text_encoder" not in manifest.graphs
    assert "prompt_decoder" not in manifest.graphs and not manifest.constants
    assert not manifest.synthetic and manifest.licence == "SAM License"
