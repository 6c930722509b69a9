"""Lets torchvision be imported beside a torch that cannot load its compiled operators.

transformers' Sam3 classes and timm import torchvision. The wheel on PyPI carries operators built for CUDA;
beside a CPU-only torch they do not load, and torchvision's own import then fails because it registers
shapes for operators that nobody declared. Declaring their signatures is enough: none of them is called
(`roi_align`, the one operator we need, has a version in Python).
"""

# mypy: allow-untyped-calls

from functools import cache

import torch

_SIGNATURES = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def _declarations() -> torch.library.Library:
    """Kept for the life of the process: what a library declares goes when the library goes."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for signature in _SIGNATURES:
        library.define(signature)
    return library


def declare() -> None:
    """Makes `import torchvision` work. Does nothing where it works by itself."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declarations()
        import torchvision  # noqa: F401
