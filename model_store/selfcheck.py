"""A checkpoint in a variant's released layout, filled with weights of our own recipe.

`python -m model_store.selfcheck VARIANT LAYOUTS FILE` writes it in a process of its own, whose memory is not
counted as the import's.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model_store import registry, synthetic
from model_store.layouts import Layout, layout_of
from model_store.networks.keys import canonical, sources
from model_store.networks.sizes import sizes_of
from model_store.networks.student import Abilities, blank, shapes


def in_file(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A student's weights by the keys of a full checkpoint, where some are thirds of one tensor."""
    parts: dict[str, dict[int, Tensor]] = {}
    for name, source in sources(weights).items():
        parts.setdefault(source.key, {})[source.third or 0] = weights[name]
    return {key: torch.cat([thirds[each] for each in sorted(thirds)]) for key, thirds in parts.items()}


def write_checkpoint(variant: registry.Variant, layout: Layout, path: Path) -> None:
    """Writes `{"model": {key: tensor}}` with every key of the layout, in float32."""
    abilities = Abilities(memory=variant.memory)
    known = in_file(synthetic.weights(shapes(blank(sizes_of(variant), abilities))))
    tensors = {}
    for key, shape in layout.shapes.items():
        value = known.pop(canonical(key), None)
        # What no graph reads, and tables that are longer in the file, need values of some kind.
        fits = value is not None and value.shape == shape
        tensors[key] = value if fits else synthetic.fill(key, shape)
    torch.save({"model": tensors}, path)


def main(name: str, layouts: str, path: str) -> None:
    """Write the file."""
    variant = registry.find(name)
    write_checkpoint(variant, layout_of(variant, Path(layouts)), Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
