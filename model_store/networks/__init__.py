"""The students in torch, for import and export only. Nothing that serves imports this."""

from model_store.networks.torchvision_ops import declare

# Before anything below imports timm or transformers: both import torchvision at their own import.
declare()
