"""The programs that the model benchmarks time: a training pass and an acting loop of any mixer or model.

Sizes: T steps, B environments, D width; one step in a hundred is a reset.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_seq.models import SequenceModel, as_functions

RESET_SHARE = 0.01


def inputs(steps: int, batch: int, width: int, dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array]:
    """x[T, B, D] standard normal, reset[T, B]."""
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (steps, batch, width), dtype), resets(keys[1], steps, batch)


def resets(key: jax.Array, steps: int, batch: int) -> jax.Array:
    return jax.random.bernoulli(key, RESET_SHARE, (steps, batch))


def initial(model: SequenceModel, batch: int, width: int) -> tuple[Any, Any]:
    """Parameters and a fresh carry."""
    x, reset = jnp.zeros((1, 1, width)), jnp.ones((1, 1), bool)
    params = jax.jit(model.init)(jax.random.key(1), model.initialize_carry((1,)), x, reset)
    return params, model.initialize_carry((batch,))


def training_pass(model: SequenceModel) -> Any:
    """(params, carry, x, reset) -> gradients of params and x: the parallel view, forward and backward."""

    apply = as_functions(model).apply

    def loss(params, x, carry, reset):
        return jnp.mean(jnp.square(apply(params, carry, x, reset)[1]))

    def run(params, carry, x, reset):
        return jax.grad(loss, argnums=(0, 1))(params, x, carry, reset)

    return run


def acting_loop(model: SequenceModel) -> Any:
    """(params, carry, x[T, B, D], reset) -> carry, the sum of y: `step` in a loop, every output consumed."""

    step = as_functions(model).step

    def run(params, carry, x, reset):
        def body(state, now):
            carry, total = state
            carry, y = step(params, carry, *now)
            return (carry, total + y.sum()), None

        return jax.lax.scan(body, (carry, jnp.zeros(())), (x, reset))[0]

    return run


def saved_arrays(model: SequenceModel, params: Any, carry: Any, x: jax.Array, reset: jax.Array) -> int:
    """Bytes that the backward pass keeps from the forward pass, parameters and inputs not counted."""

    def view(params, x):
        return model.apply(params, carry, x, reset)[1]

    kept = jax.eval_shape(lambda params, x: jax.vjp(view, params, x)[1], params, x)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    return size - sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((params, x, reset)))
