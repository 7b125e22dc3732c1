"""A network in evaluation mode as operations on tensors, cut in parts that cost about the same.

Parts that learn are cut elsewhere, between modules: see `cut`.

The network is run once on one frame, and every operation on tensors is written down (`torch.fx`), with no module and no
branch left; so any network that does the same operations on every frame of a size can be cut, between any two of them.
Operations stand in the order in which the result needs them, so what hangs on the picture alone and is wanted late,
as the stems of a U-Net, falls into a late part.

The cost of an operation is estimated, not measured: the cut is the same on every machine and in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import flop_registry

from seeall.types import SeeallError

FRAME = "frame"
"""The name of what goes in."""
_OF_A_NUMBER, _OF_AN_OPERATION = 10, 3e5
"""Multiplications that take as long as reading or writing a number, or starting an operation, on one core."""


@dataclass(frozen=True, eq=False)
class Part:
    """run: the values of `takes` → those of `gives`, by name · cost: multiplications, about"""

    run: fx.GraphModule
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    cost: float

    @torch.no_grad()
    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        """What it gives, from all that there is."""
        return dict(zip(self.gives, self.run(*(values[name] for name in self.takes))))


@torch.no_grad()
def cut(graph: fx.GraphModule, frame: Tensor, parts: int) -> list[Part]:
    """The parts, `parts` or as many as there are operations; the last one gives the result alone.

    graph: as `traced` gives it · frame: (B, 3, H, W), of the shape that it was traced with
    """
    nodes, result = _needed(graph)
    costs = _costs(graph, frame)
    ends = _balanced([costs[node] for node in nodes], parts)
    pieces = [nodes[start:end] for start, end in zip([0, *ends], ends)]
    made = []
    for k, piece in enumerate(pieces):
        later = {node for other in pieces[k + 1 :] for one in other for node in one.all_input_nodes}
        gives = [node for node in piece if node in later or node is result]
        made.append(_part(graph, piece, gives, sum(costs[node] for node in piece)))
    return made


@torch.no_grad()
def traced(network: nn.Module, frame: Tensor) -> fx.GraphModule:
    """The operations of a network, in evaluation mode, frame → tensor, for frames (B, 3, H, W) of this shape.

    Raises: SeeallError for a network that is not the same operations for every frame.
    """
    try:
        graph = make_fx(torch.func.functionalize(network, remove="mutations"))(frame)
        other = 1 - frame.flip(-1)
        wanted, found = network(other), graph(other)
    except Exception as fault:
        why = str(fault).strip().partition("\n")[0]
        raise SeeallError(f"{type(network).__name__} cannot be cut in parts: {why or type(fault).__name__}") from None
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor) or not torch.equal(wanted, found):
        raise SeeallError(f"{type(network).__name__} cannot be cut in parts: it is not the same for every frame")
    return graph


def _needed(graph: fx.GraphModule) -> tuple[list[fx.Node], fx.Node]:
    """The operations that the result needs, each as late as it can be, and the one that gives it."""
    (last,) = (node for node in graph.graph.nodes if node.op == "output")
    (result,) = last.all_input_nodes
    order, seen, stack = list[fx.Node](), set[fx.Node](), [(result, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen and node.op == "call_function":
            seen.add(node)
            stack.append((node, True))
            stack += [(one, False) for one in reversed(node.all_input_nodes)]
    return order, result


@final
class _Meter(fx.Interpreter):
    """Runs the operations, and keeps what each costs."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.costs: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        packet = getattr(n.target, "overloadpacket", None)
        self.costs[n] = 0.0
        if packet is not None:
            args, named = self.fetch_args_kwargs_from_env(n)
            flops = flop_registry[packet](*args, **named, out_val=out) if packet in flop_registry else 0
            self.costs[n] = flops / 2 + _OF_A_NUMBER * (_numbers(args) + _numbers(out)) + _OF_AN_OPERATION
        return out


def _numbers(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    return sum(map(_numbers, value)) if isinstance(value, (tuple, list)) else 0


def _costs(graph: fx.GraphModule, frame: Tensor) -> dict[fx.Node, float]:
    meter = _Meter(graph)
    meter.run(frame)
    return meter.costs


def _balanced(costs: Sequence[float], parts: int) -> list[int]:
    """Where each of the stretches ends, of which the dearest is as cheap as can be.

    >>> _balanced([3, 1, 1, 1, 2, 2], 2), _balanced([1, 9, 1], 3), _balanced([1, 1], 4)
    ([3, 6], [1, 2, 3], [1, 2])
    """
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    n, parts = len(costs), min(parts, len(costs))
    best, before = sums.copy(), list[Any]()
    stretch = np.where(np.tri(n + 1, k=-1, dtype=bool), sums[:, None] - sums[None, :], np.inf)  # [end, start]
    best[0] = np.inf
    for _ in range(parts - 1):
        worst = np.maximum(best[None, :], stretch)
        before.append(worst.argmin(1))
        best = worst.min(1)
    ends = [n]
    for starts in reversed(before):
        ends.append(int(starts[ends[-1]]))
    return ends[::-1]


def _part(graph: fx.GraphModule, piece: list[fx.Node], gives: list[fx.Node], cost: float) -> Part:
    """The operations of `piece` as a module of their own; constants are there in each that asks for them."""
    made, copied, own = fx.Graph(), dict[fx.Node, fx.Node](), set(piece)
    asked = list(dict.fromkeys(one for node in piece for one in node.all_input_nodes if one not in own))
    takes = [node for node in asked if node.op != "get_attr"]
    for node in takes:
        copied[node] = made.placeholder(_name(node))
    for node in [*(one for one in asked if one.op == "get_attr"), *piece]:
        copied[node] = made.node_copy(node, copied.__getitem__)
    made.output(tuple(copied[node] for node in gives))
    return Part(fx.GraphModule(graph, made), tuple(map(_name, takes)), tuple(map(_name, gives)), cost)


def _name(node: fx.Node) -> str:
    return FRAME if node.op == "placeholder" else node.name
