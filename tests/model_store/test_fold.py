import torch

from model_store.networks.fold import FoldedMaskHead, FoldedNeck, SteadyGroupNorm
from model_store.networks.student import Student


def _unit(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_the_folded_neck_equals_the_neck(student: Student) -> None:
    side = student.sizes.embedding_side
    embedding = _unit(2, student.sizes.embedding_channels, side, side)
    expected, found = student.neck(embedding), FoldedNeck(student.neck)(embedding)
    assert [level.shape[-1] for level in found] == [20, 10, 5]
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, atol=2e-6, rtol=0)


def test_the_folded_mask_head_equals_the_mask_head(student: Student) -> None:
    width, grid = student.sizes.width, student.sizes.grid
    valid = torch.tensor([[True, True, False, True], [True, False, False, True]])
    inputs = (
        _unit(2, width, grid, grid),
        _unit(2, 4, width),
        valid,
        _unit(2, width, 2 * grid, 2 * grid),
        _unit(2, width, 4 * grid, 4 * grid),
        _unit(2, 3, width),
    )
    found = FoldedMaskHead(student.masks)(*inputs)
    torch.testing.assert_close(found, student.masks(*inputs), atol=1e-5, rtol=0)


def test_the_steady_group_norm_equals_the_group_norm() -> None:
    norm = torch.nn.GroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    values = 3 + 2 * _unit(2, 8, 9, 7)
    torch.testing.assert_close(SteadyGroupNorm(norm)(values), norm(values), atol=2e-6, rtol=0)
