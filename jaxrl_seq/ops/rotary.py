"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), with integer wavelengths by default.

Rounding each wavelength to a whole number of steps ("Resonance RoPE", Wang et al. 2024, arXiv:2403.00071) makes the
angle a function of `clock mod wavelength`: exact for every int32 clock. With real-valued frequencies float32 angles are
off by 5e-3 after a million steps, which acting loops do reach.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.ops.precision import Dtype

Array = jax.Array


@cache
def integer_wavelengths(head_dim: int, base: float = 10000.0) -> tuple[int, ...]:
    """The H/2 wavelengths 2 pi base^(2i/H), rounded to whole steps. ValueError if H is odd."""
    if head_dim % 2:
        raise ValueError(f"rotary embedding turns pairs, so head_dim must be even; got {head_dim}")
    waves = 2 * np.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    return tuple(int(w) for w in np.rint(waves))


def integer_angles(clock: Array, wavelengths: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
    """clock[...] int32 -> angles[..., H/2] = 2 pi (clock mod wavelength) / wavelength; exact at any clock."""
    waves = jnp.asarray(wavelengths, jnp.int32)
    phase = jnp.remainder(clock[..., None], waves)
    return phase.astype(dtype) * (2 * np.pi / np.asarray(wavelengths)).astype(dtype)


def geometric_angles(position: Array, head_dim: int, base: float = 10000.0, dtype: Dtype = jnp.float32) -> Array:
    """position[...] int32 -> angles[..., H/2] = position * base^(-2i/H); use positions counted from the reset."""
    if head_dim % 2:
        raise ValueError(f"rotary embedding turns pairs, so head_dim must be even; got {head_dim}")
    frequencies = base ** (-np.arange(0, head_dim, 2) / head_dim)
    return position[..., None].astype(dtype) * frequencies.astype(dtype)


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """Slope of each of N heads, 2^(-8 n / N) for n = 1 .. N (Press et al. 2022, arXiv:2108.12409)."""
    return tuple(2.0 ** (-8 * (n + 1) / heads) for n in range(heads))


def sinusoids(count: int, width: int, base: float = 10000.0) -> np.ndarray:
    """Float64 sines and cosines [count, width] of the numbers 0 .. count-1 (Vaswani et al. 2017, arXiv:1706.03762)."""
    angles = np.arange(count)[:, None] * base ** (-np.arange(0, width, 2) / width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def rotate(x: Array, angles: Array) -> Array:
    """Turn the pairs (x[i], x[i + H/2]) of x[..., H] by angles[..., H/2], which broadcast against them."""
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
