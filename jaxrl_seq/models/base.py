"""The protocol of a sequence model: one set of parameters, two views of one function.

Shapes: T time, B environments, D input width. See `SequenceModel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Carry = Any


class SequenceModel(nn.Module):
    """Base of all sequence models.

    Both views compute the same function: y[t] depends on x since the latest reset at or before t, starting
    there from the initial carry, or on the carry passed in where there was no reset yet. `reset[t]` acts before x[t]
    is consumed. `jaxrl_seq.testing.check_model` proves these laws for a model, yours included.

    A subclass makes its parameters in `setup`, has a field `features` (output width), and defines `__call__` and
    `initialize_carry`; it should define `step` too, since the default runs the parallel view on one step.

    Carry: a pytree whose leaves lead with B and keep shape and type; the exception are rank-0 int32 leaves named
    `clock`, shared by the whole batch and computed from nothing but the old clock and static numbers, so that
    they stay unbatched under a vmap over seeds (`jaxrl_seq.ops.carry_axes`).
    """

    @property
    def has_memory(self) -> bool:
        """False for models that act on every step alone; their carry is `()`."""
        return True

    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        """Parallel view: x[T, B, D], reset[T, B] bool -> carry after the chunk, y[T, B, features]."""
        raise TypeError(f"{type(self).__name__} must define __call__(carry, x[T,B,D], reset[T,B])")

    def step(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        """Recurrent view: x[B, D], reset[B] bool -> next carry, y[B, features]."""
        carry, y = self(carry, x[None], reset[None])
        return carry, y[0]

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Carry:
        """The carry of B environments that have seen nothing; batch is (B,). Needs no parameters and no key."""
        raise TypeError(f"{type(self).__name__} must define initialize_carry((B,))")


@runtime_checkable
class ModelConfig(Protocol):
    """A frozen dataclass of static choices that builds a model; made known with `register_model`."""

    @property
    def width(self) -> int:
        """Output features of the model that `build` makes."""
        ...

    def build(self) -> SequenceModel:
        """The flax module, without parameters."""
        ...


class SequenceFns(NamedTuple):
    """A sequence model as four pure functions, for programs that do not use flax."""

    init: Callable[..., Any]  # (key, features_in) -> params
    apply: Callable[..., tuple[Carry, Array]]  # (params, carry, x[T,B,D], reset[T,B]) -> carry, y
    step: Callable[..., tuple[Carry, Array]]  # (params, carry, x[B,D], reset[B]) -> carry, y
    initialize_carry: Callable[..., Carry]  # ((B,)) -> carry


def as_functions(model: SequenceModel) -> SequenceFns:
    """The model as pure functions of its parameters."""

    def init(key: Array, features_in: int) -> Any:
        carry = model.initialize_carry((1,))
        return model.init(key, carry, jnp.zeros((1, 1, features_in)), jnp.ones((1, 1), bool))

    def apply(params: Any, carry: Carry, x: Array, reset: Array) -> Any:
        return model.apply(params, carry, x, reset)

    def step(params: Any, carry: Carry, x: Array, reset: Array) -> Any:
        return model.apply(params, carry, x, reset, method="step")

    return SequenceFns(init, apply, step, model.initialize_carry)


def require_inputs(model: SequenceModel, carry: Carry, x: Array, reset: Array, axes: str) -> None:
    """ValueError unless x is [*axes, D] (axes: "T, B" or "B"), reset bool[*axes], and the carry one of this model's."""
    name, rank = type(model).__name__, len(axes.split(", "))
    if x.ndim != rank + 1 or 0 in x.shape[:rank]:
        raise ValueError(f"{name}: x must be [{axes}, D] with at least one of each, got shape {x.shape}")
    if reset.shape != x.shape[:rank] or reset.dtype != bool:
        raise ValueError(
            f"{name}: x is {x.shape}, so reset must be bool{list(x.shape[:rank])}, got {reset.dtype}{list(reset.shape)}"
        )
    batch = x.shape[rank - 1]
    fresh = jax.eval_shape(lambda: model.initialize_carry((batch,)))
    fix = f"make it with initialize_carry(({batch},)) of the same model"
    if jax.tree.structure(carry) != jax.tree.structure(fresh):
        raise ValueError(
            f"{name}: the carry is of another model: {jax.tree.structure(carry)} instead of "
            f"{jax.tree.structure(fresh)}; {fix}"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(carry), jax.tree.leaves(fresh), strict=True)
    for (path, leaf), want in pairs:
        if jnp.shape(leaf) != want.shape:
            raise ValueError(
                f"{name}: carry leaf {jax.tree_util.keystr(path)} is {jnp.shape(leaf)}, but {batch} environments of "
                f"this model need {want.shape}; {fix}"
            )


def require_width(model: SequenceModel, x: Array, features: int) -> None:
    """ValueError unless x[..., D] has D == features: mixers keep the width, stacks project to it."""
    if x.shape[-1] != features:
        name = type(model).__name__
        raise ValueError(
            f"{name} works at width {features} but got x of shape {x.shape}; put it into a SequenceStack, "
            f"which projects any input to its width, or use features={x.shape[-1]}"
        )
