"""Elastic Decision Transformer (Wu et al. 2023, arXiv:2307.02484): forget what came before, where that pays.

The return that can still be had is estimated as a high expectile of the data's, from pasts of several lengths; the past
that promises most is kept, and the action is the one for its promise. So a bad past is dropped where a better one leads
through the same state. Past returns-to-go are shown to no token (the estimate would only copy them): what is asked for
enters at the action's head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.offline.learner import SequenceLearner
from jaxrl_seq.offline.network import Outs
from jaxrl_seq.offline.objectives import Columns
from jaxrl_seq.offline.policy import Rereading
from jaxrl_seq.types import Array


@dataclass(frozen=True)
class PromiseTerm:
    """An expectile of the return-to-go, in its units; the loss is in units of the batch's deviation."""

    expectile: float = 0.99
    weight: float = 0.5
    given: tuple[str, ...] = ()

    name: ClassVar[str] = "promise"
    reads: ClassVar[str] = "obs"
    unit: ClassVar[str] = "rtg"

    def __post_init__(self) -> None:
        if not 0 < self.expectile < 1:
            raise ValueError(f"expectile must be between 0 and 1, got {self.expectile}.")

    @property
    def width(self) -> int:
        return 1

    def loss(self, out: Array, columns: Columns) -> Array:
        target = columns["rtg"]
        gap = (target - out)[..., 0]
        side = jnp.where(gap > 0, self.expectile, 1.0 - self.expectile)
        return side * gap**2 / jnp.maximum(jnp.var(target), 1e-6)


@struct.dataclass
class Elastic(Rereading):
    """The mode window, with the past cut to the length of `lengths` that promises the highest return."""

    lengths: tuple[int, ...] = struct.field(pytree_node=False, default=())

    def read(self, context: Columns, t: Array) -> Outs:
        outs = jax.vmap(lambda length: self._cut_read(context, t, length))(jnp.array(self.lengths))
        best = jnp.argmax(outs["promise"][..., 0], axis=0)
        kept = {name: x[best, jnp.arange(t.shape[0])] for name, x in outs.items()}
        length = jnp.minimum(jnp.array(self.lengths)[best], t + 1)
        return kept | {"length": length[:, None].astype(jnp.float32)}

    def _cut_read(self, context: Columns, t: Array, length: Array) -> Outs:
        """Predictions at the present step from the last `length` steps, asked for what they promise."""
        last = jnp.minimum(t, self.window - 1)
        drop = jnp.maximum(last + 1 - length, 0)
        index = jnp.minimum(drop + jnp.arange(self.window)[:, None], self.window - 1)
        rows = jnp.arange(t.shape[0])
        cut = jax.tree.map(lambda x: x[index, rows], context)
        reset = self._opens(t)
        blank = jnp.zeros((*reset.shape, 1), jnp.float32)
        promised = self.net.parallel(self.variables, cut | {"rtg": blank}, reset)["promise"]
        outs = self.net.parallel(self.variables, cut | {"rtg": promised}, reset)  # XLA reads the past once
        return {name: x[last - drop, rows] for name, x in outs.items()}


@dataclass(frozen=True, kw_only=True)
class ElasticLearner(SequenceLearner):
    """A `SequenceLearner` with a `PromiseTerm`. Nothing is asked for: the policy asks itself."""

    stride: int = 2
    """Pasts that are tried, from the whole window downwards, differ by so many steps; `window` keeps it whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode != "window":
            raise ValueError(
                f"{self.name} reads pasts of several lengths anew, so its mode is window, not {self.mode}."
            )
        if self.stride < 1:
            raise ValueError(f"{self.name}: stride must be at least 1, got {self.stride}.")

    @property
    def conditioned(self) -> bool:
        return False

    def policy(self, state: Any, asked: dict[str, Array], greedy: bool) -> Elastic:
        lengths = tuple(range(self.window, 0, -self.stride))[::-1]
        return Elastic(self.net, (), self.acting(state), {}, greedy, self.window, lengths)
