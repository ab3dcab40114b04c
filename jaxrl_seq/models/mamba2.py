"""Mamba-2: a selective state space computed as linear attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal, ones, zeros

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import Linear, RMSNorm
from jaxrl_seq.models.registry import operand_dtype, register_model, require_multiple, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.models.timescales import spread
from jaxrl_seq.ops import causal_conv1d, causal_conv1d_step, chunked_linear_attention, linear_attention_step

Array = jax.Array


class Mamba2State(NamedTuple):
    """Carry of one layer."""

    memory: Array  # [B, N, K, H]
    history: Array  # [B, kernel - 1, E + 2K] latest inputs of the convolution


class Mamba2(SequenceModel):
    """State space duality layer (Dao & Gu 2024, arXiv:2405.21060): N heads of H numbers, E = N * H = expand * D.

    One product makes gate z[E], u[E], b[K], c[K] and the step sizes dt[N]; a causal convolution and silu follow for
    u, b and c. Head n keeps S = exp(-dt a) S + dt b u^T and gives S^T c + skip u; b and c are the same in all heads.
    Carry: `Mamba2State` (memory[B, N, K, H], history[B, kernel - 1, E + 2K]) float32.
    """

    features: int
    expand: int = 2
    head_dim: int = 32
    state: int = 16
    kernel: int = 4
    dtype: Any = None

    @property
    def inner(self) -> int:
        return self.expand * self.features

    @property
    def heads(self) -> int:
        return self.inner // self.head_dim

    def setup(self) -> None:
        mixed = self.inner + 2 * self.state
        self.project = Linear(self.inner + mixed + self.heads, use_bias=False, dtype=self.dtype)
        self.taps = self.param("taps", normal(self.kernel**-0.5), (self.kernel, mixed), jnp.float32)
        self.taps_bias = self.param("taps_bias", zeros, (mixed,), jnp.float32)
        self.dt_bias = self.param("dt_bias", init_dt, (self.heads,), jnp.float32)
        self.log_rate = self.param("log_rate", init_log_rate, (self.heads,), jnp.float32)
        self.skip = self.param("skip", ones, (self.heads,), jnp.float32)
        self.norm = RMSNorm(self.inner)
        self.out = Linear(self.features, use_bias=False, dtype=self.dtype)

    def _project(self, x: Array) -> tuple[Array, Array, Array]:
        """x[..., D] -> gate[..., E], inputs of the convolution [..., E + 2K], dt[..., N]."""
        z, mixed, dt = jnp.split(self.project(x), [self.inner, 2 * (self.inner + self.state)], axis=-1)
        return z, mixed, nn.softplus(dt + self.dt_bias)

    def _inputs(self, mixed: Array, dt: Array) -> tuple[Array, tuple[Array, Array, Array, Array]]:
        """Convolved inputs [..., E + 2K], dt[..., N] -> u[..., N, H], and what goes into the memory."""
        u, b, c = jnp.split(nn.silu(mixed + self.taps_bias), [self.inner, self.inner + self.state], axis=-1)
        u = u.reshape(*u.shape[:-1], self.heads, self.head_dim)
        return u, (c[..., None, :], b[..., None, :], dt[..., None] * u, -dt * jnp.exp(self.log_rate))

    def _read(self, y: Array, u: Array, z: Array) -> Array:
        y = (y + self.skip[:, None] * u).reshape(z.shape)
        return self.out(self.norm(y * nn.silu(z)))

    def __call__(self, carry: Mamba2State, x: Array, reset: Array) -> tuple[Mamba2State, Array]:
        require_width(self, x, self.features)
        z, mixed, dt = self._project(x)
        mixed, history = causal_conv1d(mixed, self.taps, carry.history, reset)
        u, inputs = self._inputs(mixed, dt)
        y, memory = chunked_linear_attention(*inputs, carry.memory, reset)
        return Mamba2State(memory, history), self._read(y, u, z)

    def step(self, carry: Mamba2State, x: Array, reset: Array) -> tuple[Mamba2State, Array]:
        z, mixed, dt = self._project(x)
        mixed, history = causal_conv1d_step(mixed, self.taps, carry.history, reset)
        u, inputs = self._inputs(mixed, dt)
        y, memory = linear_attention_step(*inputs, carry.memory, reset)
        return Mamba2State(memory, history), self._read(y, u, z)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Mamba2State:
        memory = jnp.zeros((*batch, self.heads, self.state, self.head_dim), jnp.float32)
        return Mamba2State(memory, jnp.zeros((*batch, self.kernel - 1, self.inner + 2 * self.state), jnp.float32))


def init_dt(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """Steps log-uniform in [0.001, 0.1] when nothing is added to the bias: the softplus backwards. They rise from head
    to head, and so do the rates: the first remembers longest."""
    dt = jnp.exp(math.log(0.001) + math.log(100.0) * spread(key, shape, dtype))
    return dt + jnp.log(-jnp.expm1(-dt))


def init_log_rate(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """Rates uniform in [1, 16], in logs, so that used as exp they stay positive."""
    return jnp.log(1.0 + 15.0 * spread(key, shape, dtype))


@register_model("mamba2")
@dataclass(frozen=True)
class Mamba2Config:
    """Mamba-2: large matrix states that choose what to keep, the strongest state space on language."""

    width: int = 64
    """Width of the residual stream, and output features."""
    layers: int = 2
    """Mamba-2 layers; they contain their own gates, no feed-forward nets follow."""
    expand: int = 2
    """Inner width, in multiples of width."""
    head_dim: int = 32
    """Numbers a head; divides expand * width."""
    state: int = 16
    """State numbers for each inner number: more of them recall more, and cost as much more when acting."""
    kernel: int = 4
    """Steps the convolution sees, the present one included."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the operands of projections; states and the products with them stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, expand=self.expand, head_dim=self.head_dim)
        require_positive(state=self.state, kernel=self.kernel)
        require_multiple("expand * width", self.expand * self.width, "head_dim", self.head_dim)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, Mamba-2, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = Mamba2(self.width, self.expand, self.head_dim, self.state, self.kernel, dtype)
        return stack_of([layer.clone() for _ in range(self.layers)], features=self.width, dtype=dtype)
