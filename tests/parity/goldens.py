"""Which artefact each of the reference outputs is compared with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Largest absolute differences allowed in f32 (students.md, section 13).
FEATURES = 1e-4
MASKS = 5e-4


@dataclass(frozen=True)
class Subject:
    """An artefact, and the goldens that are about it."""

    variant: str
    # Of its image encoder and necks, on the picture of the truck.
    image: str = ""
    # Of the whole student, by picture.
    whole: dict[str, str] = field(default_factory=dict)
    # Of its text encoder.
    texts: tuple[str, ...] = ()
    # Tokens per text and rows of the file's position table; None: the variant's and the released file's.
    context: int | None = None
    rows: int | None = None

    @property
    def name(self) -> str:
        """The variant, with the context where it is not its own."""
        return f"{self.variant}, {self.context} tokens" if self.context else self.variant


SMALLEST = Subject(
    "es-ev-s-mc-s0",
    image="enc_ev_s",
    whole={"truck": "full_ev_s_s0_truck"},
    texts=("text_s0_ctx16", "text_mobileclip_s0_ctx16"),
)
# One that was filled from a second file, as the released ones must be.
FILLED = Subject(
    "es-ev-m-mc-s0",
    image="enc_ev_m",
    whole={"truck": "full_ev_m_s0_truck", "groceries": "full_ev_m_s0_groceries"},
    texts=("text_s0_ctx16",),
)
OTHERS = (
    Subject("es-ev-l-mc-s1-ctx32", image="enc_ev_l", texts=("text_s1_ctx32_legacy_interp",)),
    Subject("es-rv-s-mc-s1-ctx32", image="enc_rv_s"),
    Subject("es-rv-m-mc-s1-ctx32", image="enc_rv_m"),
    Subject("es-tv-s-mc-s1-ctx32", image="enc_tv_s"),
    Subject("es-tv-m-mc-s1-ctx32", image="enc_tv_m"),
    Subject("es-ev-s-mc-s0", texts=("text_s0_ctx32",), context=32, rows=77),
    Subject("es-ev-s-mc-s0", texts=("text_s0_ctx77",), context=77, rows=77),
    Subject("es-ev-s-mc-s1-ctx32", texts=("text_s1_ctx16",), context=16, rows=16),
)


@dataclass(frozen=True)
class Difference:
    """How far one output of one graph is from the reference."""

    picture: str
    case: str
    graph: str
    output: str
    largest: float
    bound: float
    # Largest absolute value of the reference, for scale.
    scale: float


def compare(
    where: tuple[str, str, str], output: str, ours: Array, theirs: Array, bound: float = FEATURES
) -> Difference:
    """The difference of two arrays of one shape; `where` is picture, case and graph."""
    assert ours.shape == theirs.shape, (where, output, ours.shape, theirs.shape)
    largest = float(np.abs(ours.astype(np.float64) - theirs).max())
    return Difference(*where, output, largest, bound, float(np.abs(theirs).max()))


def golden(reference: Path, name: str) -> Any:
    """A file of reference outputs."""
    return np.load(reference / "goldens" / f"{name}.npz")
