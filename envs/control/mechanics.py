"""What the mechanical environments share: one Runge-Kutta step, and angles."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def rk4(slope: Callable[[Array], Array], y: Array, dt: Array) -> Array:
    """`y` after `dt` of y' = slope(y), by the classical fourth-order rule; same shape and dtype as `y`."""
    k1 = slope(y)
    k2 = slope(y + 0.5 * dt * k1)
    k3 = slope(y + 0.5 * dt * k2)
    k4 = slope(y + dt * k3)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def wrap(angle: Array) -> Array:
    """The same angles in [-pi, pi]."""
    # By rounding, not by a remainder: an angle that is in range already stays as it is, to the bit.
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))
