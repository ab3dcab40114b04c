"""What state spaces with one complex diagonal state a layer share: S5 and LRU."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.ops import linear_recurrence, linear_recurrence_step, matmul
from jaxrl_seq.ops.linear_recurrence import Impl

Array = jax.Array
Pair = tuple[Array, Array]


class DiagonalStateSpace(SequenceModel):
    """h[t] = a h[t-1] + B x[t] with P = state / 2 complex numbers, then y = 2 Re(C h[t]) + D x[t] and a half-GLU.

    Numbers are pairs (re, im); of each conjugate couple one is kept. Half-GLU: gelu, then a sigmoid gate made of it.
    A subclass makes w_out[2, P, D], skip[D] and gate in `setup` and defines `_discrete`.
    Carry: (re[B, P], im[B, P]) float32.
    """

    features: int
    state: int = 64
    dtype: Any = None
    impl: Impl = "auto"

    def _discrete(self) -> tuple[Pair, Pair]:
        """Decay (re, im)[P] and input matrix (re, im)[D, P] for one step."""
        raise TypeError(f"{type(self).__name__} must define _discrete()")

    def _drive(self, w: Pair, x: Array) -> Pair:
        return matmul(x, w[0], self.dtype), matmul(x, w[1], self.dtype)

    def _read(self, h: Pair, x: Array) -> Array:
        y = matmul(h[0], 2 * self.w_out[0], self.dtype) - matmul(h[1], 2 * self.w_out[1], self.dtype)
        y = nn.gelu(y + self.skip * x)
        return y * nn.sigmoid(self.gate(y))

    def __call__(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        require_width(self, x, self.features)
        decay, w = self._discrete()
        h = linear_recurrence(decay, self._drive(w, x), carry, reset, impl=self.impl)
        return (h[0][-1], h[1][-1]), self._read(h, x)

    def step(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        decay, w = self._discrete()
        h = linear_recurrence_step(decay, self._drive(w, x), carry, reset)
        return h, self._read(h, x)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Pair:
        shape = (*batch, self.state // 2)
        return jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32)
