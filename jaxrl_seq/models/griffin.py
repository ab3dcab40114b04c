"""Griffin: gated linear recurrences for the long past, local attention for the exact recent one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import lecun_normal, normal, zeros

from jaxrl_seq.models.attention import SlidingWindowAttention
from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import FEED_FORWARDS, FeedForwardKind, Linear
from jaxrl_seq.models.registry import (
    operand_dtype,
    register_model,
    require_choice,
    require_multiple,
    require_positive,
)
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import (
    block_diagonal,
    causal_conv1d,
    causal_conv1d_step,
    linear_recurrence,
    linear_recurrence_step,
    matmul,
)
from jaxrl_seq.ops.linear_recurrence import IMPLS, Impl

Array = jax.Array
PATTERN = ("recurrent", "recurrent", "attention")
SHARPNESS = 8.0
"""c of the paper: the recurrence gate moves the decay between a^0 and a^c."""


class RGLRUState(NamedTuple):
    """Carry of one recurrent layer."""

    h: Array  # [B, F]
    history: Array  # [B, K - 1, F] latest inputs of the convolution


class RGLRU(SequenceModel):
    """Recurrent block of Griffin (De et al. 2024, arXiv:2402.19427).

    Two branches of x: a gelu gate, and a causal convolution over K steps followed by the real-gated linear recurrence
        h[t] = a h[t-1] + sqrt(1 - a^2) i u[t],    a = exp(-c softplus(lam) r)
    with gates r and i that are block-diagonal in u (one block a head). At a reset sqrt(1 - a^2) is 1: there is no past
    to make room for. Carry: `RGLRUState` (h[B, F], history[B, K - 1, F]) float32.
    """

    features: int
    heads: int = 4
    kernel: int = 4
    dtype: Any = None
    impl: Impl = "auto"

    def setup(self) -> None:
        size, head_dim = self.features, self.features // self.heads
        self.branches = Linear(2 * size, dtype=self.dtype)
        self.taps = self.param("taps", normal(self.kernel**-0.5), (self.kernel, size), jnp.float32)
        self.taps_bias = self.param("taps_bias", zeros, (size,), jnp.float32)
        self.w_gates = self.param("w_gates", _per_head, (2, self.heads, head_dim, head_dim), jnp.float32)
        self.gates_bias = self.param("gates_bias", zeros, (2 * size,), jnp.float32)
        self.lam = self.param("lam", _init_lam, (size,), jnp.float32)
        self.out = Linear(size, dtype=self.dtype)

    def _branch(self, x: Array) -> tuple[Array, Array]:
        """x[..., F] -> gate[..., F], input of the convolution [..., F]."""
        gate, u = jnp.split(self.branches(x), 2, axis=-1)
        return nn.gelu(gate), u

    def _coefficients(self, u: Array, reset: Array) -> tuple[Array, Array]:
        """u[..., F], reset[...] -> decay and drive, each [..., F]."""
        gates = nn.sigmoid(matmul(u, block_diagonal(self.w_gates), self.dtype) + self.gates_bias)
        r, i = jnp.split(gates, 2, axis=-1)
        log_a = -SHARPNESS * nn.softplus(self.lam) * r
        # a floor, since the slope of the root is infinite at zero
        room = jnp.sqrt(jnp.maximum(-jnp.expm1(2 * log_a), 1e-12))
        return jnp.exp(log_a), jnp.where(reset[..., None], 1, room) * i * u

    def __call__(self, carry: RGLRUState, x: Array, reset: Array) -> tuple[RGLRUState, Array]:
        require_width(self, x, self.features)
        gate, u = self._branch(x)
        u, history = causal_conv1d(u, self.taps, carry.history, reset)
        h = linear_recurrence(*self._coefficients(u + self.taps_bias, reset), carry.h, reset, impl=self.impl)
        return RGLRUState(h[-1], history), self.out(gate * h)

    def step(self, carry: RGLRUState, x: Array, reset: Array) -> tuple[RGLRUState, Array]:
        gate, u = self._branch(x)
        u, history = causal_conv1d_step(u, self.taps, carry.history, reset)
        h = linear_recurrence_step(*self._coefficients(u + self.taps_bias, reset), carry.h, reset)
        return RGLRUState(h, history), self.out(gate * h)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> RGLRUState:
        history = jnp.zeros((*batch, self.kernel - 1, self.features), jnp.float32)
        return RGLRUState(jnp.zeros((*batch, self.features), jnp.float32), history)


_per_head = lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0, 1))


def _init_lam(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """a^c = exp(-c softplus(lam)) uniform between 0.9 and 0.999."""
    strongest = jax.random.uniform(key, shape, dtype, 0.9, 0.999)
    return jnp.log(jnp.expm1(-jnp.log(strongest) / SHARPNESS))


@register_model("griffin")
@dataclass(frozen=True)
class GriffinConfig:
    """Two gated linear recurrences to each local attention: long memory and exact recent recall at a bounded cost."""

    width: int = 64
    """Width of the residual stream, and output features; a multiple of 2 * heads."""
    layers: int = 3
    """Layers, each followed by a feed-forward net; every third is attention."""
    heads: int = 4
    """Query heads of attention (one key head), and blocks of the recurrence's gates."""
    window: int = 128
    """Steps that attention sees."""
    kernel: int = 4
    """Steps of the convolution before each recurrence."""
    ffn: FeedForwardKind | Literal["none"] = "glu"
    """Feed-forward net after each layer."""
    expand: int = 3
    """Hidden units of the feed-forward net, in multiples of width."""
    impl: Impl = "auto"
    """How the recurrence runs in training: as measured, sequential, in log-depth, or in chunks side by side."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands and of cached keys and values."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, window=self.window)
        require_positive(kernel=self.kernel, expand=self.expand)
        require_multiple("width", self.width, "2 * heads", 2 * self.heads)
        require_choice("ffn", self.ffn, (*FEED_FORWARDS, "none"))
        require_choice("impl", self.impl, IMPLS)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, recurrence or attention, residual, norm, feed-forward, residual, a layer; normalised."""
        dtype = operand_dtype(self.dtype)
        kinds = {
            "recurrent": RGLRU(self.width, self.heads, self.kernel, dtype, self.impl),
            "attention": SlidingWindowAttention(self.width, self.heads, 1, self.window, dtype=dtype),
        }
        mixers: list[SequenceModel] = [kinds[PATTERN[n % len(PATTERN)]].clone() for n in range(self.layers)]
        return stack_of(mixers, features=self.width, ffn=self.ffn, expand=self.expand, dtype=dtype)
