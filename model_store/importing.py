"""Making artefacts: from a released checkpoint, or from weights of our own recipe."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from model_store import artifact, checkpoint, registry, tokenizer
from model_store.artifact import Manifest, StoreError
from model_store.export import Report, export
from model_store.networks.sizes import Sizes, sizes_of
from model_store.networks.student import Student, blank, build, shapes
from model_store.synthetic import RECIPE, calibrate, weights

# What the graphs made here can serve.
_PROMPTS = ("text", "exemplar_box")


def import_checkpoint(
    name: str, path: Path, store: Path, report: Report, *, origin: Mapping[str, Any] | None = None
) -> Path:
    """Turns a released checkpoint into the artefact `<store>/<name>`.

    Args:
        path: .pt, .pth or .safetensors.
        report: called with (stage, fraction 0..1) as the work goes on.
        origin: where the file came from; recorded in the manifest's `source`.

    Returns:
        The artefact's folder. On failure the store is as it was.

    Raises:
        registry.UnknownVariantError: no variant has that name.
        StoreError: the variant cannot be made here, the checkpoint's audit failed, or a graph differs from
            its module by more than its bound.
    """
    variant = _runnable(name)
    sizes = sizes_of(variant)
    report("read checkpoint", 0.0)
    tensors = checkpoint.read(path)
    report("read checkpoint", 1.0)
    report("audit weights", 0.0)
    taken, account = checkpoint.audit(tensors, shapes(blank(sizes)), sizes.text.context)
    source = {"file": path.name, "sha256": artifact.sha256_of(path), "bytes": path.stat().st_size}
    source |= origin or {}
    report("audit weights", 1.0)
    return make(variant, sizes, taken, store, report, source, asdict(account), synthetic=False)


def synthesize(name: str, store: Path, report: Report) -> Path:
    """Makes the artefact `<store>/<name>` from weights of our own recipe: true cost, meaningless answers.

    Arguments, result and errors as for `import_checkpoint`.
    """
    variant = _runnable(name)
    sizes = sizes_of(variant)
    report("fill weights", 0.0)
    made = weights(shapes(blank(sizes)))
    report("fill weights", 1.0)
    report("calibrate scores", 0.0)
    calibrate(sizes, made, variant.score_threshold)
    report("calibrate scores", 1.0)
    account = {"keys": len(made), "used": len(made), "unused_groups": {}}
    return make(variant, sizes, made, store, report, {"recipe": RECIPE}, account, synthetic=True)


def _runnable(name: str) -> registry.Variant:
    variant = registry.find(name)
    if not variant.runnable:
        can = ", ".join(row.name for row in registry.variants().values() if row.runnable)
        raise StoreError(f"{name} cannot be made by this version, which makes {can}")
    return variant


def make(
    variant: registry.Variant,
    sizes: Sizes,
    made: Mapping[str, Tensor],
    store: Path,
    report: Report,
    source: Mapping[str, Any],
    audit: Mapping[str, Any],
    *,
    synthetic: bool,
) -> Path:
    """Builds the student of these sizes and weights, and puts its artefact in the store.

    Raises:
        StoreError: a graph differs from its module by more than its bound; the store is as it was.
    """
    student = build(sizes, made)
    with _staged(store, variant.name) as folder:
        graphs = export(student, folder, report)
        report("write artefact", 0.0)
        tokenizer.build().save(str(folder / artifact.TOKENIZER))
        manifest = Manifest(
            variant=variant.name,
            image_encoder=variant.image_encoder,
            text_encoder=variant.text_encoder,
            context_length=sizes.text.context,
            image_size=sizes.image_size,
            mask_size=sizes.mask_size,
            prompts=tuple(prompt for prompt in _PROMPTS if prompt in variant.prompts),
            score_threshold=variant.score_threshold,
            parameters=_parameters(student),
            synthetic=synthetic,
            licence="Apache-2.0" if synthetic else variant.licence,
            source=source,
            audit=audit,
            preprocessing=_preprocessing(sizes),
            graphs=graphs,
            files={artifact.TOKENIZER: artifact.sha256_of(folder / artifact.TOKENIZER)},
        )
        artifact.write(folder, manifest)
        report("write artefact", 1.0)
    return store / variant.name


def _parameters(student: Student) -> int:
    return sum(parameter.numel() for parameter in student.parameters())


def _preprocessing(sizes: Sizes) -> dict[str, Any]:
    return {
        "colour": "RGB",
        "size": [sizes.image_size, sizes.image_size],
        "resize": "bilinear, antialiased, half-pixel centres, aspect ignored; rounded to whole levels",
        "levels": "uint8 0..255; (x / 255 - 0.5) / 0.5 is the graph's first step",
    }


@contextmanager
def _staged(store: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which becomes `<store>/<name>` if nothing fails and vanishes if something does."""
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=store) as staging:
        made, old = Path(staging, "new"), Path(staging, "old")
        made.mkdir()
        yield made
        if (store / name).exists():
            (store / name).replace(old)
        try:
            made.replace(store / name)
        except OSError:
            if old.exists():
                shutil.move(old, store / name)
            raise
