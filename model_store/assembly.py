"""A checkpoint's tensors, and those of a second one where it lacks a part -> the weights of a student."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from model_store.checkpoint import CheckpointError, listed
from model_store.networks.keys import Source, sources, unused_group
from model_store.networks.sizes import Sizes
from model_store.networks.student import Abilities, blank, shapes
from model_store.registry import MemoryKind

# A student's parts, which a file has or has not, by how their names begin in the networks.
PARTS: Mapping[str, str] = {
    "image encoder": "image.",
    "concept neck": "neck.",
    "text encoder": "text.",
    "geometry encoder": "detector.geometry.",
    "detector": "detector.",
    "mask head": "masks.",
    "interactive neck": "interactive_neck.",
    "prompt decoder": "objects.",
    "video memory": "memory.",
}
# No stage trains these, nor a dense video memory: every released file that has them has SAM3's.
UNTRAINED_PARTS = ("geometry encoder", "interactive neck", "prompt decoder")
CONCEPT_PARTS = ("concept neck", "text encoder", "geometry encoder", "detector", "mask head")
OBJECT_PARTS = ("interactive neck", "prompt decoder")

_MOBILECLIP_ROWS = "detector.backbone.language_backbone.encoder.positional_embedding.pos_embed.pos_embed"
_SAM3_ROWS = "detector.backbone.language_backbone.encoder.positional_embedding"
_PATCH_ROWS = "detector.backbone.vision_backbone.trunk.pos_embed"

# Rows of the position table that files have where nobody cut it, whatever their texts.
FULL_TABLE = 77
# Types of weights that files are saved in.
_KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Audit:
    """How the keys of a file, and of the one it was filled from, were accounted for."""

    # Keys in the file; those whose tensors the networks take; the others by group.
    keys: int
    used: int
    unused_groups: Mapping[str, int]
    # Rows of the text position table in the file; 0 without one.
    position_rows: int
    # Keys taken from the second file, by part.
    filled: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a student is built from."""

    abilities: Abilities
    # Float32, by the networks' names.
    weights: Tensors
    audit: Audit
    # Parts that neither file holds.
    lacking: tuple[str, ...]


def shapes_in_file(sizes: Sizes) -> dict[str, torch.Size]:
    """The shape of every tensor that a student takes from its file, by key."""
    whole = shapes(blank(sizes))
    return _expected(whole, sources(whole))


def position_rows(tensors: Tensors) -> int:
    """Rows of the text position table: the longest text the file was made for, in tokens; 0 without one."""
    for key, dimensions, counted in ((_MOBILECLIP_ROWS, 4, 2), (_SAM3_ROWS, 2, 0)):
        if key in tensors and tensors[key].dim() == dimensions:
            return tensors[key].shape[counted]
    return 0


def assemble(
    sizes: Sizes,
    tensors: Tensors,
    fill: Tensors | None = None,
    *,
    interpolate_positions: bool = False,
    memory: MemoryKind = "",
) -> Assembly:
    """The weights of as much of a student as the files hold, with every key of the first accounted for.

    Args:
        tensors: by canonical key, see `checkpoint.read`.
        fill: the second file's, for the parts that the first lacks altogether: those that no stage trains,
            and the others only if it is of the same image encoder.
        interpolate_positions: a longer position table is resized to the context instead of cut to it.
        memory: of which kind the video memory is to be; "" leaves it in the files.

    Raises:
        CheckpointError: a key is missing, unexpected or of the wrong shape, a weight is not finite, or the
            files hold too little to serve any prompt.
    """
    whole = shapes(blank(sizes, Abilities(memory=memory)))
    origin = sources(whole)
    part_of = {source.key: _part(name) for name, source in origin.items()}
    absent = set(part_of.values()) - {part_of[key] for key in tensors if key in part_of}
    if "image encoder" in absent:
        raise CheckpointError(
            f"none of the file's {len(tensors)} keys is of the image encoder {sizes.trunk or 'of SAM3'}: it "
            f"is a file of another model; its keys: {listed(sorted(tensors))}"
        )
    untrained = {*UNTRAINED_PARTS, *(["video memory"] if memory == "dense" else [])}
    taken = _taken(_expected(whole, origin), part_of, absent, untrained, fill or {})
    if fill is not None and absent and not taken:
        raise CheckpointError(f"the second file has none of what the first lacks: {listed(sorted(absent))}")
    lacking = tuple(part for part in PARTS if part in absent - set(taken.values()))
    abilities = _abilities(lacking, memory)
    merged = dict(tensors) | {key: fill[key] for key in taken} if fill is not None else tensors
    served = _served(abilities)
    wanted = {name: source for name, source in origin.items() if _part(name) in served}
    expected = _expected(whole, wanted)
    values = {
        key: _prepared(key, merged[key], sizes.text.context, interpolate_positions)
        for key in expected
        if key in merged
    }
    known = {
        key: part_of.get(key) or unused_group(key, memory=bool(memory))
        for key in tensors
        if key not in expected
    }
    _check(
        values, expected, [key for key, group in known.items() if group is None], set(taken.values()), part_of
    )
    audit = Audit(
        keys=len(tensors),
        used=sum(key in tensors for key in expected),
        unused_groups=dict(sorted(Counter(group for group in known.values() if group).items())),
        position_rows=position_rows(merged),
        filled=dict(Counter(part for key, part in taken.items() if key in expected)),
    )
    weights = {name: _third(values[source.key], source.third) for name, source in wanted.items()}
    return Assembly(abilities, weights, audit, lacking)


def _taken(
    shapes_by_key: Mapping[str, torch.Size],
    part_of: Mapping[str, str],
    absent: set[str],
    untrained: set[str],
    fill: Tensors,
) -> dict[str, str]:
    """The keys that come from the second file, and their parts."""
    trunk = [key for key, part in part_of.items() if part == "image encoder"]
    same = all(key in fill and fill[key].shape == shapes_by_key[key] for key in trunk)
    allowed = absent if same else absent & untrained
    return {key: part for key, part in part_of.items() if part in allowed and key in fill}


def _part(name: str) -> str:
    return next(part for part, beginning in PARTS.items() if name.startswith(beginning))


def _served(abilities: Abilities) -> set[str]:
    """The parts that what a student is able to do needs."""
    concepts = CONCEPT_PARTS if abilities.concepts else ()
    objects = OBJECT_PARTS if abilities.objects else ()
    memory = ("video memory",) if abilities.memory else ()
    return {"image encoder", *concepts, *objects, *memory}


def _abilities(lacking: Iterable[str], memory: MemoryKind) -> Abilities:
    lost = set(lacking)
    objects = not lost & set(OBJECT_PARTS)
    kept: MemoryKind = memory if objects and "video memory" not in lost else ""
    abilities = Abilities(concepts=not lost & set(CONCEPT_PARTS), objects=objects, memory=kept)
    if abilities.concepts or abilities.objects:
        return abilities
    hint = ""
    if "geometry encoder" in lost:
        hint = ": every concept prompt needs the geometry encoder, for its class token"
    raise CheckpointError(
        f"the file has no {', no '.join(sorted(lost))}, so that no prompt can be served{hint}. No stage "
        "trains the geometry encoder, the interactive neck and the prompt decoder: --fill-from FILE takes "
        "them from a Stage 1 file of the same image encoder or from SAM3's own"
    )


def _expected(whole: Mapping[str, torch.Size], wanted: Mapping[str, Source]) -> dict[str, torch.Size]:
    """The shape of every tensor that the file must hold, by key."""
    expected: dict[str, torch.Size] = {}
    for name, source in wanted.items():
        shape = whole[name]
        expected[source.key] = shape if source.third is None else torch.Size((3 * shape[0], *shape[1:]))
    return expected


def _prepared(key: str, value: Tensor, context: int, interpolate: bool) -> Tensor:
    """A tensor as the networks take it: tables of positions have as many rows as there are positions."""
    if key == _MOBILECLIP_ROWS and value.dim() == 4 and value.numel():
        if interpolate and value.shape[2] != context and value.dtype in _KINDS:
            # What code did whose table is longer than its texts: rows between rows, and columns as they are.
            return F.interpolate(value.float(), size=(context, value.shape[3]), mode="bilinear")
        return value[:, :, :context]
    if key == _SAM3_ROWS and value.dim() == 2:
        return value[:context]
    if key == _PATCH_ROWS and value.dim() == 3 and value.shape[1] % 2:
        # The first row is that of a class token that SAM3 does not have.
        return value[:, 1:]
    return value


def _check(
    values: Tensors,
    expected: Mapping[str, torch.Size],
    unexpected: list[str],
    filled: set[str],
    part_of: Mapping[str, str],
) -> None:
    def named(key: str) -> str:
        return f"{key} (of the file that fills)" if part_of[key] in filled else key

    fits = {key: value for key, value in values.items() if value.shape == expected[key]}
    faults = {
        "missing": [named(key) for key in expected if key not in values],
        "unexpected": unexpected,
        "of the wrong shape": [
            f"{named(key)} {tuple(value.shape)} instead of {tuple(expected[key])}"
            for key, value in values.items()
            if key not in fits
        ],
        # Only what has its shape is looked at: another may be of any size.
        "not finite or no floating point": [named(key) for key, value in fits.items() if not _sound(value)],
    }
    told = [f"{len(keys)} keys are {fault}: {listed(keys)}" for fault, keys in faults.items() if keys]
    if told:
        raise CheckpointError("; ".join(told))


def _sound(value: Tensor) -> bool:
    return value.dtype in _KINDS and bool(torch.isfinite(value.to(torch.float32)).all())


def _third(value: Tensor, third: int | None) -> Tensor:
    whole = value.to(torch.float32)
    return (whole if third is None else whole.chunk(3)[third]).contiguous()
