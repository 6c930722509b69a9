"""An artefact on disk: manifest.json beside its graphs. Write, verify, read. Standard library only.

An artefact is a folder `<store>/<variant>/` that holds `manifest.json`, one `<graph>.onnx` per graph and
`tokenizer.json`. The manifest says everything another runtime needs to run the graphs without our code.
"""

import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from model_store import strict_json
from model_store.artifact_files import (
    GRAPH_SUFFIX,
    ArtifactFileError,
    check_graph,
    check_is_file,
    check_names,
)

SCHEMA = 3
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
MAX_MANIFEST_BYTES = 16 << 20
# Sides of images and masks, tokens of a text, frames and pointers of a memory: far more than any variant has,
# and few enough that a manifest cannot make a worker ask for all memory there is.
_MOST = 8192
_MOST_TOKENS = 2**20
# A store that comes with the package.
PACKAGED = Path(__file__).parent / "packaged"


class StoreError(Exception):
    """An expected failure of the model store. The message is for whoever gave the command."""


class ArtifactError(StoreError):
    """The folder is not a whole, readable artefact; the message says which file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a graph."""

    name: str
    # numpy's name: "float32", "int32", "uint8", "bool".
    dtype: str
    # An int is fixed; a str names a dynamic axis, the same name meaning the same size within a graph.
    shape: tuple[int | str, ...]
    # Meaning, unit, frame of reference, range.
    description: str


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX file."""

    file: str
    sha256: str
    # Of the file, and of its weights where they lie beside it.
    bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    # Per output: the largest absolute difference between the graph and its torch module at export.
    difference: Mapping[str, float]
    # Per output: the largest difference the export accepts.
    bound: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Memory:
    """How the objects of a video are remembered, where the graphs can follow any."""

    # "dense" or "perceiver".
    kind: str
    # What is kept of an object in a frame: so many tokens of so many channels, and a pointer of so many.
    tokens: int
    width: int
    pointer_width: int
    # Ages that a remembered frame can have: that of a prompted frame, and 1 to `frames - 1` frames ago.
    frames: int
    # Frames whose pointers are kept, the latest included.
    pointers: int
    # Side of the mask that the memory encoder takes, pixels.
    mask_size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artefact is, what it was made from, and what its graphs take and give."""

    variant: str
    # e.g. "efficientvit_b1".
    image_encoder: str
    # e.g. "mobileclip_s0"; empty where there is no graph of it.
    text_encoder: str
    # Tokens per text, start and end included; 0 without a text encoder.
    context_length: int
    # Side of the square that pictures are resized to (bilinear, antialiased, aspect ignored), pixels.
    image_size: int
    # Side of the mask logits, pixels.
    mask_size: int
    # Kinds of prompt that the graphs can serve: "text", "exemplar_box", ...
    prompts: tuple[str, ...]
    # The other kinds, each with what is missing for it.
    unserved: Mapping[str, str]
    # Default score threshold, 0..1.
    score_threshold: float
    # Trained parameters by part.
    parameters: Mapping[str, int]
    # True: the weights are synthetic.
    synthetic: bool
    licence: str
    # {"file", "sha256", "bytes"} of the checkpoint, with {"repository", "revision", "path"} of the hub if it
    # was pulled from there; "filled_from" has the same of the file that parts missing from it were taken
    # from. Or {"recipe"} of synthetic weights.
    source: Mapping[str, Any]
    # {"keys", "used", "unused_groups", "position_rows", "filled"}: how the keys were accounted for.
    audit: Mapping[str, Any]
    # How an image becomes `pixels`, in words and numbers.
    preprocessing: Mapping[str, Any]
    graphs: Mapping[str, Graph]
    # Numbers that the graphs do not hold. `no_memory`: added to each cell of interactive_x1 where an object
    # has no past, which makes `conditioned` of it. Where there is a memory also `no_pointer`: the pointer of
    # an object that is not in the picture; and `mask_prompt`: 4 x 4 weights, rows first, and a bias, of the
    # convolution with stride 4 that makes the prompt decoder's mask of a given one.
    constants: Mapping[str, tuple[float, ...]]
    # None: no object can be followed through a video.
    memory: Memory | None
    # Other files of the artefact by name: sha256.
    files: Mapping[str, str] = field(default_factory=dict)
    # Ids that are not the tokenizer's business: "start" and "end" of a text, and "padding" after it.
    tokens: Mapping[str, int] = field(default_factory=lambda: {"start": 49406, "end": 49407, "padding": 0})
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artefact on disk whose files are those its manifest names."""

    folder: Path
    manifest: Manifest
    # sha256 of manifest.json, which holds that of every other file: two artefacts with the same digest are
    # the same to the last bit.
    digest: str

    def path(self, graph: str) -> Path:
        """The ONNX file of a graph."""
        return self.folder / self.manifest.graphs[graph].file


def folder_of(store: Path, variant: str) -> Path | None:
    """Where the variant's artefact is: in the store, else with the package, else nowhere."""
    folders = (place / variant for place in (store, PACKAGED))
    return next((folder for folder in folders if (folder / MANIFEST).is_file()), None)


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def others(folder: Path, graphs: Mapping[str, Graph]) -> dict[str, str]:
    """sha256 of every file in the folder that no graph names: the tokenizer, and what a graph of more than
    1.5 GB keeps beside it (`<graph>.onnx.data`)."""
    named = {graph.file for graph in graphs.values()}
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name not in named}


def write(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json into the folder where the files it names already are."""
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """The manifest of the artefact in the folder. Looks at no other file.

    Raises:
        ArtifactError: there is no manifest, or it is not one of this schema.
    """
    return _parse(folder / MANIFEST)[0]


def load(folder: Path) -> Artifact:
    """The artefact in the folder, every file of it compared with the manifest.

    Raises:
        ArtifactError: the manifest cannot be read, or a file is missing or not the one it names.
    """
    manifest, digest = _parse(folder / MANIFEST)
    artifact = Artifact(folder, manifest, digest)
    verify(artifact)
    return artifact


def digests(manifest: Manifest) -> dict[str, str]:
    """sha256 of every file of the artefact but its manifest, by name.

    Raises:
        ArtifactError: a name is none of a file in the folder.
    """
    graphs = [(graph.file, graph.sha256) for graph in manifest.graphs.values()]
    named = [*graphs, *manifest.files.items()]
    try:
        check_names(named, MANIFEST)
    except ArtifactFileError as fault:
        raise ArtifactError(f"{manifest.variant}: {MANIFEST} {fault}") from None
    for name, _ in graphs:
        if not name.endswith(GRAPH_SUFFIX):
            raise ArtifactError(
                f"{manifest.variant}: {MANIFEST} names {name} as a graph's, not {GRAPH_SUFFIX}"
            )
    return dict(named)


def verify(artifact: Artifact) -> None:
    """Compares every file of the artefact with its manifest, before any runtime opens one.

    Raises:
        ArtifactError: a file is missing, a link, or not the one the manifest names, or a graph refers to a
            file that the manifest does not name.
    """
    named = digests(artifact.manifest)
    # An installer may link the package's files from its cache.
    packaged = artifact.folder.parent == PACKAGED
    try:
        check_is_file(artifact.folder / MANIFEST, may_be_linked=packaged)
        for name, expected in named.items():
            path = artifact.folder / name
            check_is_file(path, may_be_linked=packaged)
            if sha256_of(path) != expected:
                raise ArtifactError(f"{path} is not the file its manifest names: its sha256 differs")
        for graph in artifact.manifest.graphs.values():
            check_graph(artifact.folder / graph.file, artifact.manifest.files)
    except ArtifactFileError as fault:
        raise ArtifactError(str(fault)) from None
    except OSError as error:
        raise ArtifactError(f"{artifact.folder} cannot be read: {error.strerror}") from error


def _parse(path: Path) -> tuple[Manifest, str]:
    """The manifest, and the sha256 of its bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise ArtifactError(
                f"{path} is larger than {MAX_MANIFEST_BYTES} bytes, the most that it may have"
            )
        value = strict_json.parse(content)
    except FileNotFoundError:
        raise ArtifactError(f"there is no {path}") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else None
        raise ArtifactError(f"{path} is of schema {found!r:.60}; this version reads schema {SCHEMA}")
    try:
        manifest: Manifest = _convert(Manifest, value, "")
        _check_ranges(manifest)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return manifest, hashlib.sha256(content).hexdigest()


def _check_ranges(manifest: Manifest) -> None:
    """Raise ValueError for a number that no artefact can have."""
    memory = asdict(manifest.memory) if manifest.memory else {}
    sizes = {
        "image_size": manifest.image_size,
        "mask_size": manifest.mask_size,
        "context_length": manifest.context_length,
        **{f"memory.{name}": value for name, value in memory.items() if name != "kind"},
    }
    least = {"image_size": 1, "mask_size": 1}
    for name, value in sizes.items():
        if not least.get(name, 0) <= value <= _MOST:
            raise ValueError(f"{name} is {value}; it is {least.get(name, 0)} to {_MOST}")
    for name, id in manifest.tokens.items():
        if not 0 <= id < _MOST_TOKENS:
            raise ValueError(f"tokens.{name} is {id}; it is 0 to {_MOST_TOKENS - 1}")
    for name, graph in manifest.graphs.items():
        if graph.bytes < 0:
            raise ValueError(f"graphs.{name}.bytes is {graph.bytes}; it is 0 or more")
    if not 0 <= manifest.score_threshold <= 1:
        raise ValueError(f"score_threshold is {manifest.score_threshold:g}; it is 0 to 1")


def _convert(kind: Any, value: Any, where: str) -> Any:
    """The JSON value as `kind`. Raises ValueError that names the place where it does not fit."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        return _convert_record(kind, value, where)
    if origin is types.UnionType and type(value) in arguments:
        return value
    if origin is types.UnionType and is_dataclass(arguments[0]):
        return _convert(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where.lstrip('.')} is {value!r:.60}, not {kind}")
    return value


def _convert_record(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where.lstrip('.') or 'the manifest'} is not an object")
    hints, names = get_type_hints(kind), {entry.name for entry in fields(kind)}
    wrong = sorted(names ^ value.keys())
    if wrong:
        missing = [name for name in wrong if name in names]
        fault = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(wrong)}"
        raise ValueError(f"{where.lstrip('.') or 'the manifest'}: {fault}")
    return kind(**{name: _convert(hints[name], value[name], f"{where}.{name}") for name in names})
