"""Adam on one flat vector: a handful of kernels however many parameters there are, and no step that is not finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxrl_seq.types import Metrics, PyTree

_adam = optax.scale_by_adam(eps=1e-5)


def init_optimiser(params: PyTree) -> Any:
    """The optimiser's state before the first step."""
    return _adam.init(ravel_pytree(params)[0])


def optimiser_step(
    params: PyTree, opt_state: Any, grads: PyTree, lr: Any, max_grad_norm: Any, weight_decay: Any = None
) -> tuple[PyTree, Any, Metrics]:
    """One step of Adam on clipped gradients, with decoupled weight decay (Loshchilov & Hutter 2019).

    A step that is not finite is left out and counted (`skipped`), so one bad batch cannot end a run.
    """
    flat, unflatten = ravel_pytree(grads)
    norm = jnp.linalg.norm(flat)
    good = jnp.isfinite(norm)
    clipped = flat * jnp.minimum(1.0, max_grad_norm / jnp.maximum(norm, 1e-12))
    direction, new_opt = _adam.update(clipped, opt_state)
    opt_state = jax.tree.map(lambda new, old: jnp.where(good, new, old), new_opt, opt_state)
    direction = jnp.asarray(direction)
    if weight_decay is not None:
        direction += weight_decay * ravel_pytree(params)[0]
    step = unflatten(jnp.where(good, -lr * direction, 0.0))
    return jax.tree.map(jnp.add, params, step), opt_state, {"grad_norm": norm, "skipped": 1.0 - good}
