"""An exponential moving average of a module's weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """The running average of every floating-point tensor of `module`'s state, buffers included.

    decay: the share that stays at each step; early steps use less, (1 + t) / (10 + t), so that the average
    does not remember its random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, t: int) -> None:
        """Take in the weights after step t."""
        share = 1 - min(self.decay, (1 + t) / (10 + t))
        for name, value in module.state_dict().items():
            if value.is_floating_point() and value.shape == self.state[name].shape:
                self.state[name].lerp_(value, share)
            else:
                self.state[name] = value.detach().clone()

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved `state`. Raises ValueError where it is another module's."""
        if state.keys() != self.state.keys():
            raise ValueError("the average is of other weights")
        self.state = state

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The average in the module for as long as the block runs."""
        self.swap(module)
        try:
            yield
        finally:
            self.swap(module)

    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the average; a second call puts them back."""
        own: dict[str, Tensor] = {name: value.detach().clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self.state)
        self.state = own
