"""A checkpoint in a variant's released layout, filled with weights of our own recipe."""

from pathlib import Path

import torch
from torch import Tensor

from model_store import registry, synthetic
from model_store.layouts import Layout
from model_store.networks.keys import sources
from model_store.networks.sizes import sizes_of
from model_store.networks.student import blank, shapes


def write_checkpoint(variant: registry.Variant, layout: Layout, path: Path) -> None:
    """Writes `{"model": {key: tensor}}` with every key of the layout, in float32."""
    whole = shapes(blank(sizes_of(variant)))
    made = synthetic.weights(whole)
    parts: dict[str, dict[int, Tensor]] = {}
    for name, source in sources(whole).items():
        parts.setdefault(source.key, {})[source.third or 0] = made.pop(name)
    tensors = {}
    for key, shape in layout.shapes.items():
        thirds = parts.pop(key, {})
        value = torch.cat([thirds[third] for third in sorted(thirds)]) if thirds else None
        # What no graph reads, and tables that are longer in the file, need values of some kind.
        fits = value is not None and value.shape == shape
        tensors[key] = value if fits else synthetic.fill(key, shape)
    torch.save({"model": tensors}, path)
