"""A network cut into parts that follow each other, whatever network it is.

The network is followed once by torch.fx on a copy without values (device meta), at the size it will see, so that a
network may ask for shapes on its way. What is followed is a list of steps, a block of a ResNet or a ViT being one step.
The list is cut where the dearest part is as cheap as it can be, by floating-point operations: so the cut is a function
of network and size alone, and no clock decides it. All that later steps need goes over a cut, one tensor or several.
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument, map_arg
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from seeall.backbones.contract import Backbone
from seeall.types import SeeallError


@final
class Part:
    """Some steps of a network, in order: the tensors that come in → those that go on.

    draws: whether its steps draw random numbers
    """

    def __init__(self, network: nn.Module, steps: list[fx.Node], takes: list[fx.Node], gives: list[fx.Node]) -> None:
        self._network, self._steps, self._takes, self._gives = network, steps, takes, gives
        self.draws = any(node.meta["draws"] for node in steps)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that its steps use, in order."""
        found: dict[nn.Parameter, None] = {}
        for node in self._steps:
            if node.op == "call_module":
                found |= dict.fromkeys(self._network.get_submodule(str(node.target)).parameters())
            held = (_held(self._network, n) for n in node.all_input_nodes if n.op == "get_attr")
            found |= dict.fromkeys(value for value in held if isinstance(value, nn.Parameter))
        return list(found)

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Runs the steps, with the network as it is now."""
        known: dict[fx.Node, Any] = dict(zip(self._takes, given))

        def value(node: fx.Node) -> Any:
            return _held(self._network, node) if node.op == "get_attr" else known[node]

        for node in self._steps:
            args, kwargs = map_arg(node.args, value), map_arg(node.kwargs, value)
            known[node] = _done(self._network, node, args, kwargs)
        return [known[node] for node in self._gives]


def cut(network: nn.Module, x: Tensor, count: int) -> list[Part]:
    """`network`, a function of one tensor to one tensor, as `count` parts that share its modules.

    x: what it will be given, of which only shape and type count

    Raises: SeeallError where it cannot be followed, or has too few steps.
    """
    hollow = copy.deepcopy(network).to("meta")
    for module in hollow.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # it may ask other processes
    try:
        with torch.no_grad():
            graph = _Tracer(torch.empty_like(x, device="meta")).trace(hollow)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as fault:
        why = str(fault).strip().partition("\n")[0]
        raise SeeallError(f"this network cannot be cut into parts ({why}): choose another backbone") from None
    first, *steps = _needed(graph)
    (end,) = graph.output_node().all_input_nodes
    place = {first: -1} | {node: i for i, node in enumerate(steps)}
    last_use = {node: max((place[u] for u in node.users if u in place), default=-1) for node in place}
    last_use[end] = len(steps)

    def alive(i: int) -> list[fx.Node]:
        """What is made before step i and used from there on."""
        return [node for node in place if place[node] < i <= last_use[node]]

    changed = [(place[old], k) for k, node in enumerate(steps) for old in node.meta["changes"] if old in place]
    spoilt = {i for made, k in changed for i in range(made + 1, k + 1)}
    values = [[node.meta["value"] for node in alive(i)] for i in range(len(steps))]
    able = [i for i in range(1, len(steps)) if i not in spoilt and all(isinstance(one, Tensor) for one in values[i])]
    handed = [sum(one.numel() for one in some) if i in able else 0 for i, some in enumerate([*values, []])]
    at = balanced([node.meta["cost"] for node in steps], handed, able, count)
    if at is None:
        raise SeeallError(f"this network cannot be cut into {count} parts: it has too few steps that take time")
    ends = [0, *at, len(steps)]
    return [
        Part(network, steps[i:j], alive(i) if i else [first], alive(j) if j < len(steps) else [end])
        for i, j in itertools.pairwise(ends)
    ]


def balanced(costs: Sequence[int], handed: Sequence[int], able: Sequence[int], count: int) -> list[int] | None:
    """Where to cut a list into `count` parts so that the dearest is cheapest, and then as little as can be goes over.

    costs: of each step · handed[i]: what goes over a cut before step i · able: where there may be one

    Returns: the steps before which to cut; None where some part would have no cost.

    >>> balanced([4, 1, 1, 2, 3], [0, 9, 9, 1, 9, 0], [1, 2, 3, 4], 2)
    [3]
    """
    before = [0]
    for cost in costs:
        before.append(before[-1] + cost)
    best: dict[int, tuple[int, int, list[int]]] = {0: (0, 0, [])}
    for part in range(count):
        ends = [len(costs)] if part == count - 1 else able
        found = {}
        for end in ends:
            ways = [
                (max(most, before[end] - before[start]), over + handed[end], [*at, end])
                for start, (most, over, at) in best.items()
                if before[end] > before[start]
            ]
            if ways:
                found[end] = min(ways)
        best = found
    return best[len(costs)][2][:-1] if best else None


def _needed(graph: fx.Graph) -> list[fx.Node]:
    """The input, and the steps whose values or changes the output depends on, in order."""
    needed, found = {graph.output_node()}, list[fx.Node]()
    for node in reversed(graph.nodes):
        if node in needed or not needed.isdisjoint(node.meta["changes"]) or node.op == "placeholder":
            needed.update(node.all_input_nodes)
            if node.op not in ("get_attr", "output"):
                found.insert(0, node)
    return found


def _held(network: nn.Module, node: fx.Node) -> Any:
    """The parameter or buffer that a node stands for."""
    return operator.attrgetter(str(node.target))(network)


def _done(network: nn.Module, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """The value of one step."""
    if node.op == "call_module":
        return network.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


@final
class _Tracer(fx.Tracer):
    """Follows a network while its values, which have shapes only, are at hand.

    Of each step it notes: value, cost (floating-point operations), draws (random numbers), changes (the steps whose
    values it overwrites).
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._x, self._running = x, False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, (nn.Sequential, Backbone))

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        node = proxy.node
        if kind == "output":
            return proxy
        older = [n for n in self.graph.nodes if isinstance(n.meta.get("value"), Tensor)]
        versions = [n.meta["value"]._version for n in older]
        self._running, seen = True, _Draws()
        try:
            with FlopCounterMode(display=False) as counted, seen:
                value = self._value(node)
        finally:
            self._running = False
        changes = [n for n, version in zip(older, versions) if n.meta["value"]._version != version]
        node.meta.update(value=value, cost=counted.get_total_flops(), draws=seen.any, changes=changes)
        if isinstance(value, (tuple, list)) and any(isinstance(one, Tensor) for one in value):
            places = range(len(value))
            return [self.create_proxy("call_function", operator.getitem, (proxy, i), {}) for i in places]
        if not isinstance(value, Tensor):
            self.graph.erase_node(node)
            return value
        return proxy

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._x
        if node.op == "get_attr":
            return _held(self.root, node)
        args: Argument = map_arg(node.args, lambda n: n.meta["value"])
        return _done(self.root, node, args, map_arg(node.kwargs, lambda n: n.meta["value"]))


class _Proxy(fx.Proxy):
    """A value to come whose shape is known."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.node.meta["value"], name)
        if isinstance(value, Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name) if callable(value) else value

    def __len__(self) -> int:
        return len(self.node.meta["value"])


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Whether anything drew random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.any = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.any |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))
