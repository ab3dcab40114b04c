"""PPO's losses, per sample: arrays of equal shape in and out."""

import jax.numpy as jnp

from jaxrl_seq.types import Array


def clipped_surrogate(ratio: Array, advantage: Array, clip: Array | float) -> Array:
    """The pessimistic policy loss, to be minimised (Schulman et al. 2017, eq. 7)."""
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def clipped_value_loss(value: Array, old_value: Array, target: Array, clip: Array | float) -> Array:
    """Half the squared error, with steps beyond `clip` of the old value not rewarded; clip = 0 turns that off."""
    clip = jnp.where(jnp.asarray(clip) > 0, clip, jnp.inf)
    clipped = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum((value - target) ** 2, (clipped - target) ** 2)


def approximate_kl(log_ratio: Array) -> Array:
    """KL(old || new) per sample, unbiased and never negative: exp(d) - 1 - d with d = log ratio."""
    return jnp.expm1(log_ratio) - log_ratio
