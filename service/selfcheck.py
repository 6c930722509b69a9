"""`efficientsam3 variants selfcheck`: every variant made from its released layout, and served."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service import processes
from service.cli_common import CommandError, need

if TYPE_CHECKING:
    from model_store.artifact import Manifest
    from model_store.registry import Variant
    from service.pb.efficientsam3.v1 import segmentation_pb2 as pb

COLUMNS = (
    "variant",
    "layout",
    "trunk M (published)",
    "text M (published)",
    "file M (published)",
    "artefact MB",
    "import s",
    "peak GB",
    "serves",
    "f32 difference",
)
_READY_S = 300.0
# What a student's import may take. SAM3's own encoders are larger than any student.
_MAX_PEAK_BYTES = 6e9


@dataclass(frozen=True, slots=True)
class Made:
    """An artefact made from a file of the variant's layout."""

    folder: Path
    # Every key of its own file stands in a layout that was read off the reference. (Of the file it is filled
    # from, only parts that do are taken.)
    verified: bool
    # Parameters in the file.
    parameters: int
    seconds: float
    # Largest resident memory of the importing process.
    peak_bytes: int


def check(variant: "Variant", layouts: Path, *, with_text: bool) -> list[str]:
    """Make the variant, serve it, ask it one prompt of every kind; the cells of its row, as `COLUMNS`.

    Raises CommandError when a step fails; its message is that of the command that failed.
    """
    from model_store import artifact

    with tempfile.TemporaryDirectory(prefix="efficientsam3-selfcheck-") as folder:
        made = _make(variant, layouts, Path(folder), with_text=with_text)
        manifest = artifact.load(made.folder).manifest
        with processes.worker(made.folder, Path(folder), "--precision", "f32") as socket:
            _ask(socket, manifest)
        return _cells(variant, made, manifest)


def _make(variant: "Variant", layouts: Path, folder: Path, *, with_text: bool) -> Made:
    from model_store import registry

    layout = need("model_store.layouts", "import").layout_of(variant, layouts)
    arguments = ["import", variant.name, "--store", str(folder / "store")]
    for option, row in zip(("--checkpoint", "--fill-from"), registry.files_of(variant), strict=False):
        file = folder / f"{row.name}.pt"
        _run([sys.executable, "-m", "model_store.selfcheck", row.name, str(layouts), str(file)])
        arguments += [option, str(file)]
    started = time.monotonic()
    command = [sys.executable, "-m", "service.cli", "variants", *arguments]
    peak_bytes = _run([*command, *(["--with-text"] if with_text else [])])
    seconds = time.monotonic() - started
    for file in folder.glob("*.pt"):
        file.unlink()
    if peak_bytes > _MAX_PEAK_BYTES and variant.image_encoder != "sam3_vit" and not with_text:
        raise CommandError(f"its import took {peak_bytes / 1e9:.1f} GB; the limit is 6 GB.")
    return Made(folder / "store" / variant.name, layout.verified, layout.parameters, seconds, peak_bytes)


def _run(command: Sequence[str]) -> int:
    """Run a command; the largest resident memory it had, in bytes."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            last = log.read().strip().rpartition("\n")[2].removeprefix("efficientsam3: ")
            raise CommandError(last or f"{command[2]} ended with exit code {process.returncode}")
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _ask(address: str, manifest: "Manifest") -> None:
    """Ask a prompt of every kind that the manifest lists. Raises CommandError for an answer that is none."""
    import grpc

    from service.pb.efficientsam3.v1 import segmentation_pb2_grpc
    from service.rpc import from_rpc_error

    request = _request(manifest.prompts)
    with grpc.insecure_channel(address) as channel:
        try:
            answer = segmentation_pb2_grpc.SegmentationStub(channel).Segment(request, timeout=_READY_S)
        except grpc.RpcError as error:
            raise CommandError(f"it was asked and failed: {from_rpc_error(error).detail}") from error
    for kind, result in zip(manifest.prompts, answer.results, strict=True):
        if not result.segments or not all(segment.HasField("mask") for segment in result.segments):
            raise CommandError(f"it answered nothing for a prompt of the kind {kind}.")


def _request(kinds: Sequence[str]) -> "pb.SegmentRequest":
    """The sample picture, and one prompt of each kind, for all that they find."""
    import io

    from PIL import Image

    from model_store import sample
    from service.pb.efficientsam3.v1 import segmentation_pb2 as pb

    side = 256
    file = io.BytesIO()
    Image.fromarray(sample.picture(side)).save(file, "PNG")
    point, box = pb.Point(x=150, y=150), pb.Box(x0=100, y0=100, x1=230, y1=200)
    logits = pb.Mask(height=1, width=2, logits=b"\x00\xbc\x00\x3c")  # -1 on the left, 1 on the right
    prompts = {
        "text": pb.Prompt(text="truck"),
        "exemplar_box": pb.Prompt(exemplars=[pb.Exemplar(box=box)]),
        "exemplar_point": pb.Prompt(exemplars=[pb.Exemplar(point=point)]),
        "points": pb.Prompt(points=[point]),
        "box": pb.Prompt(box=box),
        "mask": pb.Prompt(mask=logits),
    }
    return pb.SegmentRequest(
        image=pb.Image(data=file.getvalue()),
        prompts=[prompts[kind] for kind in kinds],
        options=pb.SegmentOptions(score_threshold=0.0, max_segments=3),
    )


def _cells(variant: "Variant", made: Made, manifest: "Manifest") -> list[str]:
    from model_store import registry

    published = registry.published()
    counts = manifest.parameters
    trunk, text = counts["trunk"] / 1e6, counts.get("text", 0) / 1e6
    size = sum(graph.bytes for graph in manifest.graphs.values()) / 1e6
    shares = {
        f"{name} {output}": difference / graph.bound[output]
        for name, graph in manifest.graphs.items()
        for output, difference in graph.difference.items()
    }
    worst = max(shares, key=lambda each: shares[each])
    return [
        variant.name,
        "verified" if made.verified else "unverified",
        _beside(trunk, published.get(variant.image_encoder, 0.0)),
        _beside(text, published[variant.text_encoder]) if text else "-",
        _beside(made.parameters / 1e6, variant.published_millions),
        f"{size:.0f}",
        f"{made.seconds:.0f}",
        f"{made.peak_bytes / 1e9:.1f}",
        " ".join(manifest.prompts),
        f"{shares[worst]:.0%} of the bound ({worst})",
    ]


def _beside(own: float, published: float) -> str:
    return f"{own:.2f} ({published:.2f})" if published else f"{own:.2f}"
