"""Many seeds of one learner as one learner: vmap written once, outside every algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from jaxrl_seq.ops.segments import carry_axes
from jaxrl_seq.types import Array, Learner, Metrics, PyTree


@dataclass(frozen=True)
class Lanes:
    """`num` independent lanes of `learner`, itself a learner: `init` takes keys [S], states and metrics lead with S.

    Lane i is the run that the learner alone would make of key i (the numbers agree to float rounding, because XLA may
    fuse the batched program differently). `hyper` is shared by all lanes.
    """

    learner: Learner[Any]
    num: int

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"Lanes: num must be at least 1, got {self.num}.")

    @property
    def steps_per_update(self) -> int:
        """Of one lane."""
        return self.learner.steps_per_update

    def init(self, keys: Array, hyper: Any) -> PyTree:
        axes = carry_axes(jax.eval_shape(self.learner.init, keys[0], hyper))
        return jax.vmap(self.learner.init, in_axes=(0, None), out_axes=axes)(keys, hyper)

    def update(self, state: PyTree, hyper: Any) -> tuple[PyTree, Metrics]:
        axes = carry_axes(state)
        return jax.vmap(self.learner.update, in_axes=(axes, None), out_axes=(axes, 0))(state, hyper)

    def evaluate(self, state: PyTree, hyper: Any, keys: Array, **options: Any) -> PyTree:
        """The learner's own `evaluate` in every lane, with keys [S]."""
        one: Any = self.learner

        def evaluate(state: PyTree, key: Array) -> PyTree:
            return one.evaluate(state, hyper, key, **options)

        return jax.vmap(evaluate, in_axes=(carry_axes(state), 0))(state, keys)


def lane(state: PyTree, index: int) -> PyTree:
    """The state of one lane, as the learner alone would have it."""
    return jax.tree.map(lambda x, axis: x if axis is None else x[index], state, carry_axes(state))
