from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store import artifact, importing, registry
from model_store.artifact import StoreError
from model_store.export import run_torch
from model_store.networks.graph_spec import GraphSpec
from model_store.networks.graphs import graphs
from model_store.networks.sizes import Sizes
from model_store.networks.student import Student, build

Array = NDArray[Any]
Run = Callable[[Path, dict[str, Array]], list[Array]]


def _onnxruntime(path: Path, feeds: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, feeds)
    return found


def _openvino(path: Path, feeds: dict[str, Array]) -> list[Array]:
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(model(feeds).to_tuple())


def _feed(tensor: artifact.Tensor, axes: dict[str, int], random: np.random.Generator) -> Array:
    shape = [axes.get(axis, axis) if isinstance(axis, str) else axis for axis in tensor.shape]
    match tensor.name:
        case "pixels":
            return random.integers(0, 256, shape, dtype=np.uint8)
        case "tokens":
            return random.integers(0, 3, shape, dtype=np.int32)
        case "exemplar_point_labels" | "exemplar_box_labels":
            return random.choice(np.array([1, 0, -10], dtype=np.int32), shape)
        case "point_labels":
            return random.choice(np.array([0, 1, 2, 3, -1, -10], dtype=np.int32), shape)
        case "image":
            return random.integers(0, axes["N"], shape, dtype=np.int32)
        case "ages":
            return random.integers(0, 7, shape, dtype=np.int32)
        case "mask_levels":
            return 20 * random.random(shape, dtype=np.float32) - 10
        case "exemplar_points" | "points":
            return random.random(shape, dtype=np.float32)
        case "exemplar_boxes":
            low = random.random((*shape[:2], 2), dtype=np.float32) * 0.6
            return np.concatenate((low, low + 0.3), axis=-1)
    if tensor.dtype == "bool":
        valid = random.random(shape) < 0.6
        valid[..., -1] = True
        return valid
    return random.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("run", [_onnxruntime, _openvino])
@pytest.mark.parametrize(
    "axes", [(1, 1, 1, 1, 7, 1, 1, 1), (2, 2, 3, 10, 1, 2, 7, 3), (3, 4, 2, 9, 5, 3, 2, 16)]
)
def test_every_graph_agrees_with_its_module_at_any_size(
    artefact: Path, student: Student, run: Run, axes: tuple[int, ...]
) -> None:
    random = np.random.default_rng(5)
    named = dict(zip("NBKPQJFG", axes, strict=True))
    for spec in graphs(student, texts=True):
        feeds = {tensor.name: _feed(tensor, named, random) for tensor in spec.inputs}
        expected = run_torch(spec.reference(student), list(feeds.values()))
        found = run(artefact / f"{spec.name}.onnx", feeds)
        for tensor, one, other in zip(spec.outputs, expected, found, strict=True):
            assert other.shape == one.shape and other.dtype == one.dtype == np.dtype(tensor.dtype)
            np.testing.assert_allclose(other, one, atol=spec.bound, rtol=0, err_msg=tensor.name)


def test_padding_exemplars_and_their_place_change_nothing(artefact: Path, student: Student) -> None:
    spec = next(spec for spec in graphs(student, texts=True) if spec.name == "concept_decoder")
    random = np.random.default_rng(6)
    feeds = {tensor.name: _feed(tensor, {"B": 1, "K": 1, "J": 1}, random) for tensor in spec.inputs}
    padded = dict(feeds)
    for kind, size in (("box", 4), ("point", 2)):
        regions = "exemplar_boxes" if kind == "box" else "exemplar_points"
        feeds[f"exemplar_{kind}_labels"][:] = 1
        padded[f"exemplar_{kind}_labels"] = np.array([[-10, 1, -10]], dtype=np.int32)
        padded[regions] = np.zeros((1, 3, size), dtype=np.float32)
        padded[regions][:, 1] = feeds[regions][:, 0]
    alone, among = (_onnxruntime(artefact / "concept_decoder.onnx", given)[:5] for given in (feeds, padded))
    for one, other in zip(alone, among, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5, rtol=0)


def test_padding_points_change_nothing_and_objects_do_not_see_each_other(
    artefact: Path, student: Student
) -> None:
    spec = next(spec for spec in graphs(student, texts=True) if spec.name == "prompt_decoder")
    random = np.random.default_rng(7)
    feeds = {tensor.name: _feed(tensor, {"N": 2, "B": 3, "P": 5}, random) for tensor in spec.inputs}
    feeds["point_labels"] = np.array([[2, 3, 1, 0, -1], [1, -1, -10, -10, -10], [-10] * 5], dtype=np.int32)
    feeds["has_mask"] = np.array([False, True, True])
    together = _onnxruntime(artefact / "prompt_decoder.onnx", feeds)
    rows = [name for name in feeds if not name.startswith("interactive")]
    for row, points in enumerate((5, 2, 1)):
        alone = feeds | {name: feeds[name][row : row + 1] for name in rows}
        alone |= {name: alone[name][:, :points] for name in ("points", "point_labels")}
        for one, other in zip(_onnxruntime(artefact / "prompt_decoder.onnx", alone), together, strict=True):
            np.testing.assert_allclose(other[row], one[0], atol=1e-5, rtol=0)


def test_the_manifest_describes_the_graphs(artefact: Path, student: Student) -> None:
    manifest = artifact.read(artefact)
    assert manifest.synthetic and manifest.context_length == student.sizes.text.context
    assert manifest.prompts == ("text", "exemplar_box", "exemplar_point", "points", "box", "mask")
    no_memory = student.objects.no_memory.flatten().tolist()
    assert manifest.constants["no_memory"] == tuple(no_memory) and not manifest.unserved
    assert manifest.constants["no_pointer"] == tuple(student.memory.no_pointer.flatten().tolist())
    assert len(manifest.constants["mask_prompt"]) == 4 * 4 + 1
    memory, sizes = manifest.memory, student.sizes
    assert memory and (memory.kind, memory.tokens, memory.width) == ("perceiver", 5 + 3 * 3, 8)
    assert (memory.mask_size, memory.pointer_width) == (16 * sizes.grid, sizes.width)
    assert sum(manifest.parameters.values()) == sum(each.numel() for each in student.parameters())
    specs: dict[str, GraphSpec] = {spec.name: spec for spec in graphs(student, texts=True)}
    assert list(manifest.graphs) == list(specs)
    for name, graph in manifest.graphs.items():
        assert graph.inputs == specs[name].inputs and graph.outputs == specs[name].outputs
        outputs = {tensor.name for tensor in graph.outputs}
        assert graph.difference.keys() == graph.bound.keys() == outputs
        assert all(graph.difference[output] <= graph.bound[output] for output in outputs)
        session = onnxruntime.InferenceSession(artefact / graph.file, providers=["CPUExecutionProvider"])
        assert [entry.name for entry in session.get_inputs()] == [tensor.name for tensor in graph.inputs]
    assert not list(artefact.parent.glob(".*"))


def test_an_export_out_of_bounds_fails_and_leaves_the_old_artefact(
    artefact: Path, sizes: Sizes, weights: dict[str, Tensor]
) -> None:
    before = artifact.load(artefact).digest
    # No number agrees with what is none.
    spoilt = {
        name: tensor * torch.nan if name == "image.head.3.weight" else tensor
        for name, tensor in weights.items()
    }
    variant, account = registry.find(artefact.name), importing.Account(source={"recipe": "none"}, audit={})
    with pytest.raises(StoreError, match="image_encoder differs from its module: embedding by"):
        importing.make(variant, build(sizes, spoilt), artefact.parent, lambda *_: None, account)
    assert artifact.load(artefact).digest == before
    assert [entry.name for entry in artefact.parent.iterdir()] == [artefact.name]


def test_a_graphs_file_says_nothing_of_the_machine_it_was_made_on(artefact: Path) -> None:
    for file in artefact.glob("*.onnx"):
        model = onnx.load(file)
        assert str(Path.cwd()).encode() not in file.read_bytes()
        assert not model.metadata_props and not any(node.metadata_props for node in model.graph.node)


def test_an_artefact_of_f16_weights_is_half_as_large_and_records_what_that_costs(
    artefact: Path, partial_artefact: Path
) -> None:
    whole, half = artifact.load(artefact).manifest, artifact.load(partial_artefact).manifest
    assert half.graphs["image_encoder"].bytes < 0.6 * whole.graphs["image_encoder"].bytes
    for name, graph in half.graphs.items():
        costs = {output: cost for output, cost in graph.difference.items() if not output.endswith("valid")}
        # What concepts without a text are asked by is no network's: its one graph has nothing but its answer.
        assert all(0 < cost < 0.2 or name == "visual_prompt" for cost in costs.values()), (name, costs)
