"""Linear layers that meet without a nonlinearity between them, made one. The sums are done in float64.

A 1x1 convolution commutes with a bilinear resize (whose weights add up to 1, so that a bias passes through
unchanged), and a 2x2 transposed convolution of stride 2 is four 1x1 convolutions whose results interleave
(a pixel shuffle). The first layer of each level of the neck can therefore run on the small image embedding
instead of the resized one, with a fifth of the work.
"""

# mypy: allow-untyped-calls

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model_store.networks.detector import MaskHead
from model_store.networks.image import Neck, resized
from model_store.networks.objects import PromptDecoder


def _conv1x1(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """(O, I) and (O,) float64 -> the convolution in float32."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device="meta")
    conv.weight = nn.Parameter(weight[:, :, None, None].to(torch.float32), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(torch.float32), requires_grad=False)
    return conv


def transposed_then_pointwise(transposed: nn.ConvTranspose2d, pointwise: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight (I, O, 2, 2) and bias (O,) in float64 of the one transposed convolution that equals the two."""
    mixing = pointwise.weight.double()[:, :, 0, 0]
    weight = torch.einsum("ijyx,oj->ioyx", transposed.weight.double(), mixing)
    assert transposed.bias is not None and pointwise.bias is not None
    return weight, mixing @ transposed.bias.double() + pointwise.bias.double()


def before_shuffle(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """The 1x1 convolution that, followed by a pixel shuffle of 2, equals a 2x2 transposed convolution of
    stride 2 with this weight (I, O, 2, 2) and bias (O,)."""
    return _conv1x1(weight.permute(1, 2, 3, 0).flatten(0, 2), bias.repeat_interleave(4))


def product(conv: nn.Conv2d, pointwise: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight (O, I, 3, 3) and bias (O,) of the one 3x3 convolution that equals the two; gradients pass."""
    assert conv.bias is not None and pointwise.bias is not None
    mixing = pointwise.weight.to(dtype)[:, :, 0, 0]
    weight = torch.einsum("oj,jiyx->oiyx", mixing, conv.weight.to(dtype))
    return weight, mixing @ conv.bias.to(dtype) + pointwise.bias.to(dtype)


def conv_then_pointwise(conv: nn.Conv2d, pointwise: nn.Conv2d) -> nn.Conv2d:
    """The one 3x3 convolution that equals the two."""
    weight, bias = product(conv, pointwise, torch.float64)
    made = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, device="meta")
    made.weight = nn.Parameter(weight.to(torch.float32), requires_grad=False)
    made.bias = nn.Parameter(bias.to(torch.float32), requires_grad=False)
    return made


class FoldedNeck(nn.Module):
    """Equals `Neck`, with the first layer of each level before the resize."""

    def __init__(self, neck: Neck) -> None:
        super().__init__()
        self.grid = neck.grid
        levels: Any = neck.levels
        x4, x2, x1 = levels
        first = x4.scale_layers[0]
        self.first_x4 = before_shuffle(first.weight.double(), first.bias.double())
        weight, bias = transposed_then_pointwise(x4.scale_layers[2], x4.proj1)
        self.second_x4 = nn.ConvTranspose2d(weight.shape[0], weight.shape[1], 2, 2, device="meta")
        self.second_x4.weight = nn.Parameter(weight.to(torch.float32), requires_grad=False)
        self.second_x4.bias = nn.Parameter(bias.to(torch.float32), requires_grad=False)
        self.first_x2 = before_shuffle(*transposed_then_pointwise(x2.scale_layers[0], x2.proj1))
        self.first_x1 = x1.proj1
        self.last_x4, self.last_x2, self.last_x1 = x4.proj2, x2.proj2, x1.proj2

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Neck.forward`."""
        x4 = F.gelu(F.pixel_shuffle(resized(self.first_x4(embedding), self.grid), 2))
        x2 = F.pixel_shuffle(resized(self.first_x2(embedding), self.grid), 2)
        x1 = resized(self.first_x1(embedding), self.grid)
        return self.last_x4(self.second_x4(x4)), self.last_x2(x2), self.last_x1(x1)


class FoldedInteractiveFeatures(nn.Module):
    """Equals `InteractiveFeatures`, with the projections of the finer maps in the neck's last layers."""

    def __init__(self, neck: Neck, decoder: PromptDecoder) -> None:
        super().__init__()
        self.neck = FoldedNeck(neck)
        self.neck.last_x4 = conv_then_pointwise(self.neck.last_x4, decoder.decoder.conv_s0)
        self.neck.last_x2 = conv_then_pointwise(self.neck.last_x2, decoder.decoder.conv_s1)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `InteractiveFeatures.forward`."""
        x4, x2, x1 = self.neck(embedding)
        return x4, x2, x1


class SteadyGroupNorm(nn.Module):
    """Equals `nn.GroupNorm`, with sums taken by row, then column, then channel.

    One sum over a group is a sum of millions of numbers, which runtimes add up one after the other in f32;
    in the mask head that alone costs 1e-3 of a logit.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def _group_mean(self, values: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, D, 1, 1): each channel's entry is the mean of its group."""
        groups = values.mean(3).mean(2).unflatten(1, (self.norm.num_groups, -1))
        means: Tensor = groups.mean(2, keepdim=True).expand_as(groups).flatten(1)
        return means[:, :, None, None]

    def forward(self, values: Tensor) -> Tensor:
        """(B, D, H, W) -> the same."""
        centred = values - self._group_mean(values)
        deviation = torch.sqrt(self._group_mean(centred * centred) + self.norm.eps)
        return centred * (self.norm.weight[:, None, None] / deviation) + self.norm.bias[:, None, None]


class FoldedMaskHead(nn.Module):
    """Equals `MaskHead`, with the projection of the pixels moved to the queries, which are fewer.

    q . (W p + b) = (W^T q) . p + b . q, and q is itself linear in what goes into its last layer.
    """

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.head = head
        norms: Any = head.pixels.norms
        self.norms = nn.ModuleList(SteadyGroupNorm(norm) for norm in norms)
        layers: Any = head.queries.layers
        *first, last = layers
        self.first = nn.ModuleList(first)
        assert head.instances.bias is not None
        pixels = head.instances.weight.double()[:, :, 0, 0]
        rows = torch.cat((pixels.T, head.instances.bias.double()[None]))
        self.last = nn.Linear(last.in_features, rows.shape[0], device="meta")
        self.last.weight = nn.Parameter((rows @ last.weight.double()).to(torch.float32), requires_grad=False)
        self.last.bias = nn.Parameter((rows @ last.bias.double()).to(torch.float32), requires_grad=False)

    def forward(
        self,
        encoded: Tensor,
        prompt: Tensor,
        prompt_valid: Tensor,
        features_x2: Tensor,
        features_x4: Tensor,
        queries: Tensor,
    ) -> Tensor:
        """As `MaskHead.forward`."""
        pixels = self.head.attend(encoded, prompt, prompt_valid)
        for conv, norm, features in zip(
            self.head.pixels.conv_layers, self.norms, (features_x2, features_x4), strict=True
        ):
            resized = F.interpolate(pixels, size=features.shape[-2:], mode="nearest")
            pixels = F.relu(norm(conv(resized + features)))
        for layer in self.first:
            queries = F.relu(layer(queries))
        projected = self.last(queries)
        logits = projected[..., :-1] @ pixels.flatten(2) + projected[..., -1:]
        maps: Tensor = logits.unflatten(2, pixels.shape[-2:])
        return maps
