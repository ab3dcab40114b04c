"""Continuous-time diagonal state spaces: their initial spectrum and their discretisation, in real pairs (re, im).

dh/dt = l h + B u  becomes  h[t] = a h[t-1] + gain B u[t]  for a step of length dt, with z = l dt:
    zero-order hold:  a = exp(z),                  gain = dt * phi1(z),  phi1(z) = (exp(z) - 1) / z
    bilinear:         a = (1 + z/2) / (1 - z/2),   gain = dt / (1 - z/2)
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Pair = tuple[Array, Array]

DISCRETIZATIONS = ("zoh", "bilinear")


class HippoN(NamedTuple):
    """Eigenbasis of HiPPO-N of size N, float64, conjugate half with im >= 0 (read-only numpy arrays)."""

    re: np.ndarray  # [N/2], exactly -1/2
    im: np.ndarray  # [N/2], ascending, about N^2 / pi at the top
    basis_re: np.ndarray  # [N, N/2] eigenvectors, columns of unit length
    basis_im: np.ndarray  # [N, N/2]


@cache
def hippo_n(size: int) -> HippoN:
    """The normal part of HiPPO-LegS, diagonalised (S5: Smith et al. 2023, arXiv:2208.04933, section 4.3).

    Computed on the host in float64, once per size: float32 eigenvalues are off by up to 6e-3.
    Raises ValueError unless `size` is even and positive.
    """
    if size < 2 or size % 2:
        raise ValueError(f"hippo_n: size must be even and at least 2, got {size}")
    root = np.sqrt(2 * np.arange(size) + 1.0)
    outer = 0.5 * np.outer(root, root)
    skew = np.triu(outer, 1) - np.tril(outer, -1)
    im, basis = np.linalg.eigh(-1j * skew)
    half = size // 2
    im, basis = im[half:], basis[:, half:]
    parts = HippoN(np.full(half, -0.5), im, np.real(basis).copy(), np.imag(basis).copy())
    for array in parts:
        array.setflags(write=False)
    return parts


@jax.jit  # traced once for all layers and views
def zoh(l_re: Array, l_im: Array, dt: Array) -> tuple[Pair, Pair]:
    """Zero-order hold: eigenvalues and dt, all [P] -> (decay (re, im), input gain (re, im)), each [P]."""
    z_re, z_im = l_re * dt, l_im * dt
    size = jnp.exp(z_re)
    decay = (size * jnp.cos(z_im), size * jnp.sin(z_im))
    phi = _phi1(z_re, z_im)
    return decay, (dt * phi[0], dt * phi[1])


def bilinear(l_re: Array, l_im: Array, dt: Array) -> tuple[Pair, Pair]:
    """Tustin's rule: eigenvalues and dt, all [P] -> (decay (re, im), input gain (re, im)), each [P]."""
    x, y = l_re * dt / 2, l_im * dt / 2
    norm = (1 - x) ** 2 + y**2
    decay = ((1 - x * x - y * y) / norm, 2 * y / norm)
    return decay, (dt * (1 - x) / norm, dt * y / norm)


def discretize(kind: str, l_re: Array, l_im: Array, dt: Array) -> tuple[Pair, Pair]:
    """`zoh` or `bilinear` by name; ValueError for another."""
    rules = {"zoh": zoh, "bilinear": bilinear}
    if kind not in rules:
        raise ValueError(f"unknown discretization {kind!r}; known: {', '.join(DISCRETIZATIONS)}")
    return rules[kind](l_re, l_im, dt)


def _phi1(x: Array, y: Array) -> Pair:
    """(exp(z) - 1) / z for z = x + iy; by series near 0, where the quotient loses all its digits."""
    norm = x * x + y * y
    small = norm < 1e-4
    # the untaken branch must stay finite too, or its nan reaches the gradient
    safe = jnp.where(small, 1.0, norm)
    grown_re = jnp.expm1(x) * jnp.cos(y) - 2 * jnp.sin(y / 2) ** 2
    grown_im = jnp.exp(x) * jnp.sin(y)
    far = ((grown_re * x + grown_im * y) / safe, (grown_im * x - grown_re * y) / safe)
    near = _phi1_series(jnp.where(small, x, 0.0), jnp.where(small, y, 0.0))
    return jnp.where(small, near[0], far[0]), jnp.where(small, near[1], far[1])


def _phi1_series(x: Array, y: Array) -> Pair:
    """sum z^k / (k+1)!, Horner form; z^6 / 7! is below 1e-15 for |z| <= 0.01."""
    re, im = jnp.ones_like(x), jnp.zeros_like(y)
    for k in range(6, 1, -1):
        re, im = 1 + (re * x - im * y) / k, (re * y + im * x) / k
    return re, im
