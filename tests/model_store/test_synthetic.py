import torch
from torch import Tensor

from model_store import sample, synthetic
from model_store.networks.geometry import PADDING
from model_store.networks.sizes import Sizes
from model_store.networks.student import build


def test_weights_follow_from_names_alone(sizes: Sizes, weights: dict[str, Tensor]) -> None:
    again = synthetic.weights({name: tensor.shape for name, tensor in reversed(weights.items())})
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    some = weights["detector.encoder.layers.0.mlp.fc1.weight"]
    assert not torch.equal(some, weights["detector.decoder.layers.0.mlp.fc1.weight"])


def test_calibration_lets_five_queries_pass_on_the_sample(sizes: Sizes, weights: dict[str, Tensor]) -> None:
    calibrated = dict(weights)
    synthetic.calibrate(sizes, calibrated, 0.7)
    student = build(sizes, calibrated)
    _, _, features = student.neck(student.image(torch.from_numpy(sample.picture(sizes.image_size)[None])))
    text = student.text(torch.from_numpy(sample.tokens(sizes.text.context, sizes.text.vocabulary)))
    padding = torch.full((1, 1), PADDING, dtype=torch.int32)
    exemplars = (torch.zeros(1, 1, 2), padding, torch.zeros(1, 1, 4), padding)
    logits, presence, *_ = student.detector(features, *text, *exemplars)
    scores = torch.sigmoid(logits) * torch.sigmoid(presence)
    assert int((scores > 0.7).sum()) == 5
