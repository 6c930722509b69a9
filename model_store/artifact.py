"""An artefact on disk: manifest.json beside its graphs. Write, verify, read. Standard library only.

An artefact is a folder `<store>/<variant>/` that holds `manifest.json`, one `<graph>.onnx` per graph and
`tokenizer.json`. The manifest says everything another runtime needs to run the graphs without our code.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
MANIFEST = "manifest.json"


class ArtifactError(Exception):
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
    bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    # Per output: the largest absolute difference between the graph and its torch module at export.
    difference: Mapping[str, float]
    # Per output: the largest difference the export accepts.
    bound: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artefact is, what it was made from, and what its graphs take and give."""

    variant: str
    # e.g. "efficientvit_b1"; "mobileclip_s0".
    image_encoder: str
    text_encoder: str
    # Tokens per text, start and end included.
    context_length: int
    # Side of the square that pictures are resized to (bilinear, antialiased, aspect ignored), pixels.
    image_size: int
    # Side of the mask logits, pixels.
    mask_size: int
    # Kinds of prompt that the graphs can serve: "text", "exemplar_box", ...
    prompts: tuple[str, ...]
    # Default score threshold, 0..1.
    score_threshold: float
    # Trained parameters in the graphs.
    parameters: int
    # True: the weights are synthetic.
    synthetic: bool
    licence: str
    # {"file", "sha256", "bytes"} of the checkpoint, or {"recipe"} of synthetic weights.
    source: Mapping[str, Any]
    # {"keys", "used", "unused_groups"}: how the checkpoint's keys were accounted for.
    audit: Mapping[str, Any]
    # How an image becomes `pixels`, in words and numbers.
    preprocessing: Mapping[str, Any]
    graphs: Mapping[str, Graph]
    # Other files of the artefact by name: sha256.
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA
