"""DeltaNet: linear attention that overwrites what a key recalled, with and without forgetting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal
from jax import lax

from jaxrl_seq.models.base import require_width
from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.linear_attention import EPSILON, MatrixMemory, MatrixMemoryConfig, split_heads
from jaxrl_seq.models.mamba2 import init_dt, init_log_rate
from jaxrl_seq.models.registry import register_model, require_positive
from jaxrl_seq.models.stack import SequenceStack
from jaxrl_seq.ops import causal_conv1d, causal_conv1d_step, gated_delta_rule, gated_delta_rule_step

Array = jax.Array


class DeltaState(NamedTuple):
    """Carry of one layer."""

    memory: Array  # [B, N, H, H]
    history: Array  # [B, kernel - 1, 3D] latest inputs of the convolution


class DeltaNet(MatrixMemory):
    """Delta rule layer (Schlag et al. 2021, arXiv:2102.11174; in parallel: Yang et al. 2024, arXiv:2406.06484).

    Queries, keys and values pass a causal convolution over `kernel` steps (1: none) and silu; queries and keys get
    length one; each head writes with a strength beta in (0, 1) of the input. gated: each head also forgets, by
    exp(-dt a) as in Mamba-2 (Yang et al. 2024, arXiv:2412.06464).
    Carry: `DeltaState` (memory[B, N, H, H], history[B, kernel - 1, 3D]) float32.
    """

    kernel: int = 4
    gated: bool = False

    def setup(self) -> None:
        super().setup()
        self.taps = self.param("taps", normal(self.kernel**-0.5), (self.kernel, 3 * self.features), jnp.float32)
        self.strength = Linear(self.heads, dtype=self.dtype)
        if self.gated:
            self.dt = Linear(self.heads, use_bias=False, dtype=self.dtype)
            self.dt_bias = self.param("dt_bias", init_dt, (self.heads,), jnp.float32)
            self.log_rate = self.param("log_rate", init_log_rate, (self.heads,), jnp.float32)

    def _project(self, x: Array) -> tuple[Array, Array]:
        """x[..., D] -> inputs of the convolution [..., 3D], output gate[..., D]."""
        mixed, gate = jnp.split(self.project(x), [3 * self.features], axis=-1)
        return mixed, gate

    def _arguments(self, mixed: Array, x: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Convolved inputs [..., 3D], x[..., D] -> q, k, v [..., N, H], log_decay [..., N] or [1], beta[..., N]."""
        q, k, v = split_heads(nn.silu(mixed), self.heads, 3)
        log_decay = jnp.zeros(1, x.dtype)
        if self.gated:
            log_decay = -jnp.exp(self.log_rate) * nn.softplus(self.dt(x) + self.dt_bias)
        return _unit(q), _unit(k), v, log_decay, nn.sigmoid(self.strength(x))

    def __call__(self, carry: DeltaState, x: Array, reset: Array) -> tuple[DeltaState, Array]:
        require_width(self, x, self.features)
        mixed, gate = self._project(x)
        mixed, history = causal_conv1d(mixed, self.taps, carry.history, reset)
        y, memory = gated_delta_rule(*self._arguments(mixed, x), carry.memory, reset)
        return DeltaState(memory, history), self._read(y, gate)

    def step(self, carry: DeltaState, x: Array, reset: Array) -> tuple[DeltaState, Array]:
        mixed, gate = self._project(x)
        mixed, history = causal_conv1d_step(mixed, self.taps, carry.history, reset)
        y, memory = gated_delta_rule_step(*self._arguments(mixed, x), carry.memory, reset)
        return DeltaState(memory, history), self._read(y, gate)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> DeltaState:
        history = jnp.zeros((*batch, self.kernel - 1, 3 * self.features), jnp.float32)
        return DeltaState(super().initialize_carry(batch), history)


def _unit(x: Array) -> Array:
    """x / |x| over the last axis, but for an x next to nothing."""
    return x * lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + EPSILON)


@dataclass(frozen=True)
class _DeltaConfig(MatrixMemoryConfig):
    kernel: int = 4
    """Steps the convolution before queries, keys and values sees; 1 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(kernel=self.kernel)


@register_model("delta_net")
@dataclass(frozen=True)
class DeltaNetConfig(_DeltaConfig):
    """DeltaNet: stores by key and overwrites by key, the best linear memory for recall; does not forget."""

    def build(self) -> SequenceStack:
        """The stack: norm, delta rule, residual, norm, feed-forward, residual, a layer; output normalised."""
        return self._stack(DeltaNet, kernel=self.kernel)


@register_model("gated_delta_net")
@dataclass(frozen=True)
class GatedDeltaNetConfig(_DeltaConfig):
    """DeltaNet that can also clear its memory at once: recall by key over long, changing episodes."""

    def build(self) -> SequenceStack:
        """The stack: norm, delta rule, residual, norm, feed-forward, residual, a layer; output normalised."""
        return self._stack(DeltaNet, kernel=self.kernel, gated=True)
