"""Lets torchvision be imported beside a torch that cannot load its compiled operators.

transformers' Sam3 classes and timm import torchvision. The wheel on PyPI carries operators built for CUDA;
beside a CPU-only torch they do not load, and torchvision's own import then fails because it registers
shapes for operators that nobody declared. Declaring their signatures is enough: none of them is called
(`roi_align`, the one operator we need, has a version in Python).
"""

import torch

_SIGNATURES = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare() -> None:
    """Makes `import torchvision` work. Does nothing where it works by itself."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # torch keeps no reference of its own: the declaration lives as long as this object.
        declare.library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[attr-defined]
        for signature in _SIGNATURES:
            declare.library.define(signature)  # type: ignore[attr-defined]
        import torchvision  # noqa: F401
