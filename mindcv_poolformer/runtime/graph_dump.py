"""What a compiled graph consists of, counted in the text that MindSpore's compiler dumps."""

from __future__ import annotations

import contextlib
import math
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

_BYTES = {"Float16": 2, "BFloat16": 2, "Float32": 4, "Int32": 4, "Int64": 8, "Bool": 1, "UInt8": 1}
# Names in a graph that are no work for the device: order, tuples, branches and views.
_FREE = {
    "Depend",
    "Load",
    "MakeTuple",
    "Partial",
    "Reshape",
    "Return",
    "Switch",
    "TupleGetItem",
    "UpdateState",
}
_NODE = re.compile(r"\s+%(\d+)\(.*?\) = (?:PrimFunc_)?([A-Za-z_]\w*)\((.*)")
_TYPES = re.compile(r"\s+: \((.*)\) -> \((.*)\)")
_SCOPE = re.compile(r"\s+# Fullname with scope: \((.*)\)")
_BACKWARD = "Gradients/"  # how scopes of the backward pass begin
_TENSOR = re.compile(r"Tensor\[(\w+)\](?:\*(\d+))?")
_SHAPE = re.compile(r"\(((?:-?\d+(?:, )?)*)\)")


@dataclass(frozen=True)
class Map:
    """A tensor between two operators."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _BYTES[self.dtype]


@dataclass(frozen=True)
class Operator:
    """A primitive's call: the numbers of what it takes, and all that it takes and gives.

    ``item`` tells which one of a tuple a TupleGetItem takes; "" for other calls. ``scope`` is where
    it was written, cell by cell.
    """

    number: int
    primitive: str
    item: str
    takes_from: tuple[int, ...]
    inputs: tuple[Map, ...]
    outputs: tuple[Map, ...]
    scope: str = ""

    @property
    def is_work(self) -> bool:
        return self.primitive not in _FREE

    @property
    def bytes(self) -> int:
        """Read and written, were it alone: as under jit_level O0, where nothing is fused."""
        return sum(each.bytes for each in self.inputs + self.outputs)


@dataclass
class GraphDump:
    """A graph and those that it branches to, each a list of calls in their order."""

    subgraphs: list[list[Operator]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Operator]:
        """All calls that are work for the device."""
        return (call for subgraph in self.subgraphs for call in subgraph if call.is_work)

    @property
    def operators(self) -> int:
        return sum(1 for _ in self)

    @property
    def bytes(self) -> int:
        """That all operators read and write, were none fused with another."""
        return sum(call.bytes for call in self)

    @property
    def dynamic(self) -> set[str]:
        """The primitives with a dimension that is known only when the graph runs."""
        return {
            call.primitive
            for call in self
            if any(edge < 0 for each in call.inputs + call.outputs for edge in each.shape)
        }

    @property
    def kept_for_backward(self) -> int:
        """Bytes that the forward pass makes and the backward pass reads; 0 without a gradient.

        The parameters themselves are not among them, their casts are.
        """
        return sum(map(_kept_bytes, self.subgraphs))


def _kept_bytes(graph: Sequence[Operator]) -> int:
    calls = {call.number: call for call in graph}
    # What waits for a gradient belongs to the backward pass too: recomputed operators do.
    backward: set[int] = set()
    kept: dict[tuple[int, str], Operator] = {}
    for call in graph:
        if call.scope.startswith(_BACKWARD) or not backward.isdisjoint(call.takes_from):
            backward.add(call.number)
            for number in call.takes_from if call.is_work else ():
                made = _made_by(number, calls)
                if made and _origin(made) not in backward:
                    kept[_origin(made), made.item] = made
    return sum(each.bytes for made in kept.values() for each in made.outputs)


def _made_by(number: int, calls: dict[int, Operator]) -> Operator | None:
    """The call that a value comes from, through views; None for a parameter."""
    call = calls.get(number)
    while call and call.primitive in {"Reshape", "Depend"}:
        call = calls.get(call.takes_from[0]) if call.takes_from else None
    return None if call and call.primitive == "Load" else call


def _origin(made: Operator) -> int:
    """The number of the operator that a value, or the tuple that it is an item of, comes from."""
    return made.takes_from[0] if made.primitive == "TupleGetItem" else made.number


def read_dump(path: Path) -> GraphDump:
    """Read a dump of MindSpore 2.7 to 2.10, a text file ``*.ir``."""
    dump, call = GraphDump(), None
    typed = False  # by the line before
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("subgraph @"):
                dump.subgraphs.append([])
                call = None
            elif found := _NODE.match(line):
                call = found
            elif call and (types := _TYPES.match(line)):
                arguments = call[3].split(" primitive_attrs")[0].split(" cnode_attrs")[0]
                dump.subgraphs[-1].append(
                    Operator(
                        int(call[1]),
                        call[2],
                        arguments if call[2] == "TupleGetItem" else "",
                        tuple(map(int, re.findall(r"%(\d+)\b", arguments))),
                        _maps(types[1]),
                        _maps(types[2]),
                    )
                )
                call = None
                typed = True
                continue
            elif typed and (scope := _SCOPE.match(line)):
                dump.subgraphs[-1][-1] = replace(dump.subgraphs[-1][-1], scope=scope[1])
            typed = False
    return dump


def _maps(types: str) -> tuple[Map, ...]:
    """The tensors in "<Tensor[Float16], (4, 64)>, <Tuple[Tensor[Float32]*2], TupleShape(…)>"."""
    maps: list[Map] = []
    for item in re.findall(r"<([^<>]*)>", types):
        dtypes = [d for d, times in _TENSOR.findall(item) for _ in range(int(times or 1))]
        shapes = _SHAPE.findall(item.split("], ", 1)[-1])
        maps += [
            Map(dtype, tuple(int(edge) for edge in shape.split(", ") if edge))
            for dtype, shape in zip(dtypes, shapes)
        ]
    return tuple(maps)


@contextlib.contextmanager
def dumped_graphs(front_end_only: bool) -> Iterator[Path]:
    """Have MindSpore dump each graph that it compiles, as the device gets it, into a folder.

    The folder goes with the context. To enter before the process compiles anything: MindSpore reads
    these settings once.

    Args:
        front_end_only: leave out what a device's back end makes of the graph, which can then be
            for a device that is not there, and is not to be called.
    """
    with tempfile.TemporaryDirectory(prefix="graph_dump_") as folder:
        settings = {
            "MS_DEV_SAVE_GRAPHS": "2",
            "MS_DEV_SAVE_GRAPHS_PATH": folder,
            "MS_DEV_DUMP_IR_PASSES": "validate",
        }
        if front_end_only:
            settings["MS_DEV_PRECOMPILE_ONLY"] = "1"
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
