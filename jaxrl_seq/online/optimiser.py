"""Adam on one flat vector: a handful of kernels however many parameters there are, and no step that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl_seq.types import Array, Metrics, PyTree

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


# --- learning from batches that are drawn -----------------------------------------------------------------------------
@struct.dataclass
class FitHyper:
    """The numbers of learning from drawn batches that are traced."""

    lr: float = 1e-3
    """Adam's learning rate after the warm-up."""
    warmup_updates: float = 100.0
    """Updates over which lr rises from zero."""
    decay_updates: float = 0.0
    """Updates over which lr falls to zero, as a cosine; 0 keeps it."""
    weight_decay: float = 1e-4
    """Decoupled, as a share of lr."""
    max_grad_norm: float = 1.0
    """Gradients longer than this (global norm) are scaled down to it."""


def learning_rate(update: Array, hyper: FitHyper) -> Array:
    """float32 []: of the update with that number."""
    warm = jnp.minimum(1.0, (update + 1) / jnp.maximum(hyper.warmup_updates, 1.0))
    done = jnp.clip(update / jnp.maximum(hyper.decay_updates, 1.0), 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return hyper.lr * warm * jnp.where(jnp.asarray(hyper.decay_updates) > 0, cosine, 1.0)


def fit(
    draw: Callable[[Array], PyTree],
    loss: Callable[[PyTree, PyTree], tuple[Array, Metrics]],
    params: PyTree,
    opt_state: Any,
    keys: Array,
    lr: Array,
    hyper: FitHyper,
) -> tuple[PyTree, Any, Metrics]:
    """One gradient step for each of `keys` on `loss(params, draw(key))`; metrics are means over them."""

    def one_step(carry: tuple[PyTree, Any], key: Array) -> tuple[tuple[PyTree, Any], Metrics]:
        params, opt_state = carry
        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, draw(key))
        params, opt_state, norms = optimiser_step(params, opt_state, grads, lr, hyper.max_grad_norm, hyper.weight_decay)
        return (params, opt_state), metrics | norms | {"loss": value}

    (params, opt_state), metrics = jax.lax.scan(one_step, (params, opt_state), keys)
    return params, opt_state, mean_metrics(metrics) | {"lr": lr}


def mean_metrics(metrics: Metrics) -> Metrics:
    """Of several gradient steps [n]: means, but the number of steps that were `skipped`."""
    return {name: (jnp.sum if name == "skipped" else jnp.mean)(x) for name, x in metrics.items()}
