"""Making artefacts: from a released checkpoint, or from weights of our own recipe."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from model_store import artifact, checkpoint, registry, tokenizer
from model_store.artifact import Graph, Manifest, Memory, StoreError
from model_store.assembly import CONCEPT_PARTS, FULL_TABLE, OBJECT_PARTS, assemble, position_rows
from model_store.export import Report, export
from model_store.networks.sizes import Sizes, sizes_of
from model_store.networks.student import Abilities, Student, blank, build, shapes
from model_store.staging import staged
from model_store.synthetic import RECIPE, calibrate, weights

# Kinds of prompt, and the parts of a student that each needs.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "text": CONCEPT_PARTS,
    "exemplar_box": CONCEPT_PARTS,
    "exemplar_point": CONCEPT_PARTS,
    "points": OBJECT_PARTS,
    "box": OBJECT_PARTS,
    "mask": OBJECT_PARTS,
}
Origins = Mapping[Path, Mapping[str, Any]]

_LEFT_OUT = "its text encoder was left out at import, which --with-text puts in"


def import_checkpoint(
    name: str,
    path: Path,
    store: Path,
    report: Report,
    *,
    fill_from: Path | None = None,
    origins: Origins | None = None,
    context: int | None = None,
    texts: bool | None = None,
) -> Path:
    """Turns a released checkpoint into the artefact `<store>/<name>`.

    Args:
        path: .pt, .pth or .safetensors.
        report: called with (stage, fraction 0..1) as the work goes on.
        fill_from: a second such file, from which parts that the first lacks are taken.
        origins: where a file came from, by its path; recorded beside its name and digest.
        context: tokens per text; None for the variant's own.
        texts: False leaves the text encoder out. None: only SAM3's, which is larger than all else.

    Returns:
        The artefact's folder. On failure the store is as it was.

    Raises:
        registry.UnknownVariantError: no variant has that name.
        StoreError: the checkpoint's audit failed, or a graph differs from its module by more than its bound.
    """
    variant = registry.find(name)
    sizes = sizes_of(variant, context)
    report("read checkpoint", 0.0)
    tensors = checkpoint.read(path)
    fill = checkpoint.read(fill_from) if fill_from else None
    report("read checkpoint", 1.0)
    report("audit weights", 0.0)
    _check_context(name, sizes, position_rows(tensors) or position_rows(fill or {}))
    assembly = assemble(
        sizes,
        tensors,
        fill,
        interpolate_positions=variant.positions == "interpolated",
        memory=variant.memory,
    )
    source = _file(path, origins or {})
    if assembly.audit.filled and fill_from:
        source["filled_from"] = _file(fill_from, origins or {})
    report("audit weights", 1.0)
    student = build(sizes, assembly.weights, assembly.abilities)
    account = Account(
        source=source,
        audit=asdict(assembly.audit),
        texts=sizes.text.by_default if texts is None else texts,
        lacking=assembly.lacking,
    )
    return make(variant, student, store, report, account)


def synthesize(name: str, store: Path, report: Report) -> Path:
    """Makes the artefact `<store>/<name>` from weights of our own recipe: true cost, meaningless answers.

    Arguments, result and errors as for `import_checkpoint`.
    """
    variant = registry.find(name)
    sizes = sizes_of(variant)
    report("fill weights", 0.0)
    abilities = Abilities(memory=variant.memory)
    made = weights(shapes(blank(sizes, abilities)))
    report("fill weights", 1.0)
    report("calibrate scores", 0.0)
    calibrate(sizes, made, variant.score_threshold)
    report("calibrate scores", 1.0)
    audit = {"keys": len(made), "used": len(made), "unused_groups": {}, "position_rows": 0, "filled": {}}
    account = Account(source={"recipe": RECIPE}, audit=audit, texts=sizes.text.by_default)
    return make(variant, build(sizes, made, abilities), store, report, account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is to be said of a student beside what its networks say."""

    # See `Manifest`.
    source: Mapping[str, Any]
    audit: Mapping[str, Any]
    # False leaves the text encoder out.
    texts: bool = True
    # Parts that the student has no weights of, of `assembly.PARTS`.
    lacking: tuple[str, ...] = ()
    # The tokenizer, where it is not CLIP's whole one.
    words: Tokenizer | None = None
    # True: weights are kept as f16 in the files.
    halves: bool = False


def make(variant: registry.Variant, student: Student, store: Path, report: Report, account: Account) -> Path:
    """Puts the artefact of a student in the store.

    Raises:
        StoreError: a graph differs from its module by more than its bound; the store is as it was.
    """
    with staged(store, variant.name) as folder:
        graphs = export(student, folder, report, texts=account.texts, halves=account.halves)
        report("write artefact", 0.0)
        words = account.words or tokenizer.build()
        (folder / artifact.TOKENIZER).write_text(words.to_str(pretty=True), encoding="utf-8")
        artifact.write(folder, _manifest(variant, student, account, graphs, folder))
        report("write artefact", 1.0)
    return store / variant.name


def _manifest(
    variant: registry.Variant, student: Student, account: Account, graphs: Mapping[str, Graph], folder: Path
) -> Manifest:
    sizes, lacking = student.sizes, account.lacking
    unserved = {kind: _missing(lacking, parts) for kind, parts in _NEEDS.items() if set(parts) & set(lacking)}
    has_texts = account.texts and student.abilities.concepts
    if student.abilities.concepts and not account.texts:
        unserved["text"] = _LEFT_OUT
    synthetic = "recipe" in account.source
    start = sizes.text.vocabulary - 2
    return Manifest(
        variant=variant.name,
        image_encoder=variant.image_encoder,
        text_encoder=variant.text_encoder if has_texts else "",
        context_length=sizes.text.context if has_texts else 0,
        image_size=sizes.image_size,
        mask_size=sizes.mask_size,
        prompts=tuple(kind for kind in _NEEDS if kind not in unserved),
        unserved=unserved,
        score_threshold=variant.score_threshold,
        parameters=_parameters(student, texts=has_texts),
        synthetic=synthetic,
        licence="Apache-2.0" if synthetic else variant.licence,
        source=account.source,
        audit=account.audit,
        preprocessing=_preprocessing(sizes),
        graphs=graphs,
        constants=constants_of(student),
        memory=memory_of(student),
        files=artifact.others(folder, graphs),
        tokens={"start": start, "end": start + 1, "padding": 0},
    )


def _check_context(name: str, sizes: Sizes, rows: int) -> None:
    # Padding takes part in what a text encoder makes of a text: a table for other texts is another model's.
    if rows not in (0, sizes.text.context, FULL_TABLE):
        raise StoreError(
            f"the file's position table has {rows} rows, and {name} reads texts of {sizes.text.context} "
            f"tokens: it is another variant's, or --context {rows} is meant"
        )


def _file(path: Path, origins: Origins) -> dict[str, Any]:
    own = {"file": path.name, "sha256": artifact.sha256_of(path), "bytes": path.stat().st_size}
    return own | dict(origins.get(path, {}))


def _missing(lacking: tuple[str, ...], parts: tuple[str, ...]) -> str:
    missing = [part for part in lacking if part in parts]
    return f"its checkpoint has no {' and no '.join(missing)}, which --fill-from FILE puts in"


def _parameters(student: Student, *, texts: bool) -> dict[str, int]:
    """By part; the image encoder's trunk and projection head apart."""
    counts: dict[str, int] = {}
    for name, parameter in student.named_parameters():
        if name.startswith("image."):
            part = "projection head" if name.startswith("image.head.") else "trunk"
        else:
            part = name.partition(".")[0].replace("_", " ")
        counts[part] = counts.get(part, 0) + parameter.numel()
    if not texts:
        counts.pop("text", None)
    return counts


def constants_of(student: Student) -> dict[str, tuple[float, ...]]:
    """The manifest's `constants`."""
    if not student.abilities.objects:
        return {}
    values: dict[str, list[Tensor]] = {"no_memory": [student.objects.no_memory]}
    if student.abilities.memory:
        prompt = student.memory.mask_prompt.parameters()
        values |= {"no_pointer": [student.memory.no_pointer], "mask_prompt": [*prompt]}
    return {
        name: tuple(number for tensor in tensors for number in tensor.flatten().tolist())
        for name, tensors in values.items()
    }


def memory_of(student: Student) -> Memory | None:
    """The manifest's `memory`."""
    if not student.abilities.memory:
        return None
    return Memory(
        kind=student.abilities.memory,
        tokens=student.memory.tokens,
        width=student.sizes.memory.width,
        pointer_width=student.sizes.width,
        frames=student.sizes.memory.frames,
        pointers=student.sizes.memory.pointers,
        mask_size=student.sizes.remembered_size,
    )


def _preprocessing(sizes: Sizes) -> dict[str, Any]:
    return {
        "colour": "RGB",
        "size": [sizes.image_size, sizes.image_size],
        "resize": "bilinear, antialiased, half-pixel centres, aspect ignored; rounded to whole levels",
        "levels": "uint8 0..255; (x / 255 - 0.5) / 0.5 is the graph's first step",
    }
