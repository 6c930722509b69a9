"""Calls of one graph as a single call of more rows, and its outputs as theirs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Graph
from service.worker.engines import Tensors

Arrays = dict[str, NDArray[Any]]

# Axes whose entries are images, and rows, each of which is of the image that `_IMAGE` gives the index of.
_IMAGES, _ROWS, _IMAGE = "N", "B", "image"
# Axes that calls may differ in. What is added says by a label or a flag that it is nothing; of queries, whose
# masks nobody reads. Memories are not among them: to attend to nothing costs as much as to something.
_PADDED = frozenset({"J", "K", "P", "Q"})
_NO_POINT = -10

# Rows of each call, from and to, in the outputs.
Parts = list[tuple[int, int]]
# Memory for an array of a shape and a type; what is in it means nothing.
Room = Callable[[Sequence[int], "np.dtype[Any]"], NDArray[Any]]


class Merger:
    """Merges calls of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._axes = {tensor.shape[0] for tensor in graph.inputs}
        # Where rows name their image, calls about the same one share it.
        self._shares = any(tensor.name == _IMAGE for tensor in graph.inputs)
        # Memory for each input, kept: new memory costs more than what is copied into it.
        self._rooms: dict[str, NDArray[np.uint8]] = {}

    def likeness(self, inputs: Tensors) -> tuple[int, ...]:
        """Calls whose likeness is the same can be merged."""
        return tuple(
            size
            for tensor in self._graph.inputs
            for axis, size in zip(tensor.shape[1:], inputs[tensor.name].shape[1:], strict=True)
            if isinstance(axis, str) and axis not in _PADDED
        )

    def rows(self, inputs: Tensors) -> int:
        """How many rows the call has, or images where there are no others."""
        axis = _ROWS if _ROWS in self._axes else _IMAGES
        return next(len(inputs[tensor.name]) for tensor in self._graph.inputs if tensor.shape[0] == axis)

    def merged(self, calls: Sequence[Tensors]) -> tuple[Arrays, Parts]:
        """One call's inputs, until the next are merged, and which of its rows are whose."""
        ends = np.cumsum([self.rows(inputs) for inputs in calls]).tolist()
        parts = list(zip([0, *ends[:-1]], ends, strict=True))
        sources, firsts = self._images(calls)
        inputs: Arrays = {}
        for tensor in self._graph.inputs:
            if tensor.name == _IMAGE:
                rows = [each[_IMAGE] + first for each, first in zip(calls, firsts, strict=True)]
                inputs[_IMAGE] = np.concatenate(rows, dtype=np.int32)
            else:
                holders = sources if tensor.shape[0] == _IMAGES else calls
                inputs[tensor.name] = joined([each[tensor.name] for each in holders], self._room(tensor.name))
        return inputs, parts

    def _room(self, name: str) -> Room:
        def room(shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
            nbytes = math.prod(shape) * dtype.itemsize
            if name not in self._rooms or self._rooms[name].nbytes < nbytes:
                self._rooms[name] = np.empty(nbytes, np.uint8)
            return self._rooms[name][:nbytes].view(dtype).reshape(shape)

        return room

    def split(self, outputs: Tensors, calls: Sequence[Tensors], parts: Parts) -> Iterator[Arrays]:
        """Each call's outputs, as views."""
        for inputs, (first, end) in zip(calls, parts, strict=True):
            own = self._lengths(inputs)
            yield {
                tensor.name: outputs[tensor.name][
                    (slice(first, end), *(slice(own.get(axis)) for axis in tensor.shape[1:]))
                ]
                for tensor in self._graph.outputs
            }

    def _images(self, calls: Sequence[Tensors]) -> tuple[list[Tensors], list[int]]:
        """Calls whose images are taken, and the index of each call's first image among these."""
        names = [tensor.name for tensor in self._graph.inputs if tensor.shape[0] == _IMAGES]
        if not self._shares:
            return list(calls), [0] * len(calls)
        sources: list[Tensors] = []
        firsts: list[int] = []
        known: dict[tuple[int, ...], int] = {}
        count = 0
        for inputs in calls:
            key = tuple(id(inputs[name]) for name in names)
            if key not in known:
                known[key] = count
                sources.append(inputs)
                count += len(inputs[names[0]])
            firsts.append(known[key])
        return sources, firsts

    def _lengths(self, inputs: Tensors) -> Mapping[int | str, int]:
        """The call's own lengths along padded axes."""
        return {
            axis: size
            for tensor in self._graph.inputs
            for axis, size in zip(tensor.shape, inputs[tensor.name].shape, strict=True)
            if axis in _PADDED
        }


def joined(arrays: Sequence[NDArray[Any]], room: Room = np.empty) -> NDArray[Any]:
    """Inputs of the same name behind each other, padded to the longest: with labels, flags and values of
    nothing. One alone is given as it is."""
    if len(arrays) == 1:
        return arrays[0]
    shapes = [array.shape[1:] for array in arrays]
    longest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    whole = room((sum(map(len, arrays)), *longest), arrays[0].dtype)
    if any(shape != longest for shape in shapes):
        whole.fill(_NO_POINT if arrays[0].dtype == np.int32 else 0)
    first = 0
    for array in arrays:
        whole[(slice(first, first + len(array)), *map(slice, array.shape[1:]))] = array
        first += len(array)
    return whole
