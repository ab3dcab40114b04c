"""GaLiTe and AGaLiTe: linear attention with gates on keys and values, and the same with its state approximated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import Initializer

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_multiple, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import (
    float_type,
    gated_linear_attention,
    gated_linear_attention_step,
    linear_recurrence,
    linear_recurrence_step,
    steps_since_reset,
)
from jaxrl_seq.ops.linear_recurrence import IMPLS, Impl

Array = jax.Array
State = tuple[Array, Array, Array]  # keys [B, R+1, N, M], values [B, R, N, H], phase int32[B]

LARGEST_GATE = 1 - 1e-6
EPSILON = 1e-2  # the rounding errors of a nearly silent query are divided by this


def flat(a: Array) -> Array:
    """[..., eta, H] -> [..., M], as carries and scans hold keys. A step leaves them apart: a third less time on CPU."""
    return a.reshape(*a.shape[:-2], -1)


class GatedLinearTransformerAttention(SequenceModel):
    """The products that GaLiTe and AGaLiTe share (Pramanik et al. 2023, arXiv:2310.15719).

    Keys, queries and key gates are outer products of a width-eta and a width-H vector, M = eta * H numbers a head.
    """

    features: int
    heads: int = 4
    eta: int = 4
    dtype: Any = None

    def setup(self) -> None:
        self.project = Linear(5 * self.features, dtype=self.dtype, bias_init=_gate_bias(self.heads))
        self.expand = Linear(3 * self.heads * self.eta, dtype=self.dtype)
        self.out = Linear(self.features, dtype=self.dtype)

    def _inputs(self, x: Array) -> tuple[Array, Array, Array, Array, Array]:
        """x[..., D] -> queries, keys, key gates [..., N, eta, H], values, value gates [..., N, H]."""
        k, q, v, beta, gamma = jnp.split(self.project(x).reshape(*x.shape[:-1], self.heads, -1), 5, axis=-1)
        k_wide, q_wide, gamma_wide = jnp.split(self.expand(x).reshape(*x.shape[:-1], self.heads, -1), 3, axis=-1)

        def outer(a: Array, b: Array) -> Array:
            return b[..., None] * a[..., None, :]

        queries = outer(nn.relu(q), nn.relu(q_wide))
        keys = outer(nn.relu(k), nn.relu(k_wide))
        # below 1, so that the decay 1 - gate has a logarithm
        gates = jnp.minimum(outer(nn.sigmoid(gamma), nn.sigmoid(gamma_wide)), LARGEST_GATE)
        return queries, keys, gates, v, jnp.minimum(nn.sigmoid(beta), LARGEST_GATE)

    def _finish(self, read: Array, match: Array) -> Array:
        """Read values [..., N, H] and their weights' sum [..., N] -> y[..., D]."""
        y = read / (match[..., None] + EPSILON)
        return self.out(y.reshape(*y.shape[:-2], self.features))


def _gate_bias(heads: int) -> Initializer:
    """Value gates start at 1/2 to 1/55 over the channels of a head: values are kept for 2 to 55 steps.

    The published layer starts all at 1/2; so begun, GaLiTe answers a cue of 64 steps ago less often (0.82, not 1.00).
    """

    def init(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
        bias = np.zeros((heads, 5, shape[0] // (5 * heads)))
        bias[:, 3] = -np.linspace(0, 4, bias.shape[-1])
        return jnp.asarray(bias.reshape(shape), dtype)

    return init


class GaLiTe(GatedLinearTransformerAttention):
    """Gated linear transformer layer with its whole matrix state (Pramanik et al. 2023, arXiv:2310.15719).

        S = (1 - gamma)(1 - beta)^T * S + (gamma * k)(beta * v)^T,   s = (1 - gamma) * s + gamma * k
        y = S^T q / (s . q + eps)

    Carry: S, and s as a last column of it, [B, N, M, H+1] float32.
    """

    def _driven(self, x: Array) -> tuple[tuple[Array, Array, Array, Array], Array]:
        """(q, k, v, log_decay) and value_log_decay of the op; a column of ones that nothing decays is for s."""
        queries, keys, gamma, values, beta = self._inputs(x)
        queries, keys, gamma = flat(queries), flat(keys), flat(gamma)
        ones = jnp.ones_like(values[..., :1])
        values = jnp.concatenate([beta * values, ones], axis=-1)
        log_decay = jnp.concatenate([jnp.log1p(-beta), jnp.zeros_like(ones)], axis=-1)
        return (queries, gamma * keys, values, jnp.log1p(-gamma)), log_decay

    def __call__(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        require_width(self, x, self.features)
        arguments, value_decay = self._driven(x)
        y, carry = gated_linear_attention(*arguments, carry, reset, value_log_decay=value_decay)
        return carry, self._finish(y[..., :-1], y[..., -1])

    def step(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        arguments, value_decay = self._driven(x)
        y, carry = gated_linear_attention_step(*arguments, carry, reset, value_log_decay=value_decay)
        return carry, self._finish(y[..., :-1], y[..., -1])

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Array:
        head_dim = self.features // self.heads
        return jnp.zeros((*batch, self.heads, self.eta * head_dim, head_dim + 1), jnp.float32)


class AGaLiTe(GatedLinearTransformerAttention):
    """GaLiTe with its matrix state kept as R oscillating vectors of keys and of values.

        k~[n] = (1 - gamma) * k~[n] + c_n(t) gamma * k,   v~[n] = (1 - beta) * v~[n] + c_n(t) beta * v
        s = (1 - gamma) * s + gamma * k,                   y = sum_n v~[n] (k~[n] . q) / (s . q + eps)

    with the waves c_n(t) = sqrt(2/R) cos(pi (n + 1/2) (t + 1/2) / R), t counted from the reset: an orthonormal basis of
    R steps (the cosine transform of type IV), so up to R steps the layer is exactly GaLiTe, and beyond them an
    approximation. They repeat after 4 R steps, so the phase is an exact integer at any age. (The grid over [-pi, pi]
    of the published code has every wave twice.)
    Carry: k~ and, behind them, s [B, R+1, N, M]; v~ [B, R, N, H]; the phase [B] int32. 4 (R M + M + R H) N bytes + 4.
    """

    frequencies: int = 2
    impl: Impl = "auto"

    def _waves(self, phase: Array, dtype: Any) -> Array:
        """phase[...] int32 -> c_n and a one [..., R+1, 1, 1]; from a table, since only 4 R phases exist."""
        count = self.frequencies
        turns = np.outer(np.arange(4 * count) + 0.5, np.arange(count) + 0.5) / count
        waves = np.pad(np.sqrt(2 / count) * np.cos(np.pi * turns), ((0, 0), (0, 1)), constant_values=1)
        return jnp.asarray(waves, dtype)[phase][..., None, None]

    def _driven(self, phase: Array, x: Array) -> tuple[Array, tuple[Array, Array], tuple[Array, Array]]:
        """Queries, and (decay, input) of the keys with s, their last wave, [..., R+1, N, eta, H], and of the values."""
        queries, keys, gamma, values, beta = self._inputs(x)
        waves = self._waves(phase, float_type(keys))
        keys = waves[..., None] * (gamma * keys)[..., None, :, :, :]
        values = waves[..., :-1, :, :] * (beta * values)[..., None, :, :]
        return queries, (1 - gamma, keys), (1 - beta, values)

    def _read(self, match: Array, values: Array) -> Array:
        """What queries find in the keys and in s [..., R+1, N], and the values [..., R, N, H] -> y[..., D]."""
        return self._finish((values * match[..., :-1, :, None]).sum(-3), match[..., -1, :])

    def __call__(self, carry: State, x: Array, reset: Array) -> tuple[State, Array]:
        require_width(self, x, self.features)
        keys, values, phase = carry
        period = 4 * self.frequencies
        phases = steps_since_reset(reset, phase) % period
        queries, (key_decay, key_input), value_drive = self._driven(phases, x)
        keys = self._scan(flat(key_decay), flat(key_input), keys, reset)
        values = self._scan(*value_drive, values, reset)
        match = (keys * flat(queries)[:, :, None]).sum(-1)
        return (keys[-1], values[-1], (phases[-1] + 1) % period), self._read(match, values)

    def _scan(self, decay: Array, b: Array, h: Array, reset: Array) -> Array:
        """decay[T, B, ...] shared by the R waves of b[T, B, R, ...] and h[B, R, ...]."""

        def one(b: Array, h: Array) -> Array:
            return linear_recurrence(decay, b, h, reset, impl=self.impl)

        return jax.vmap(one, in_axes=(2, 1), out_axes=2)(b, h)

    def step(self, carry: State, x: Array, reset: Array) -> tuple[State, Array]:
        keys, values, phase = carry
        phase = jnp.where(reset, 0, phase)
        queries, (key_decay, key_input), (value_decay, value_input) = self._driven(phase, x)
        keys = linear_recurrence_step(key_decay[:, None], key_input, keys.reshape(key_input.shape), reset)
        values = linear_recurrence_step(value_decay[:, None], value_input, values, reset)
        match = (keys * queries[:, None]).sum((-2, -1))
        return (flat(keys), values, (phase + 1) % (4 * self.frequencies)), self._read(match, values)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> State:
        head_dim = self.features // self.heads
        keys = jnp.zeros((*batch, self.frequencies + 1, self.heads, self.eta * head_dim), jnp.float32)
        values = jnp.zeros((*batch, self.frequencies, self.heads, head_dim), jnp.float32)
        return keys, values, jnp.zeros(batch, jnp.int32)


@register_model("galite")
@dataclass(frozen=True)
class GaLiTeConfig:
    """Recurrent linear transformer with gates on keys and values and a whole matrix state."""

    width: int = 64
    """Width of the residual stream, and output features; a multiple of heads."""
    layers: int = 2
    """Attention layers, each followed by a ReLU net."""
    heads: int = 4
    """Attention heads."""
    eta: int = 4
    """Width of the second factor of keys and queries; the state grows with it."""
    expand: int = 4
    """Hidden units of the feed-forward net, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and gates stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, eta=self.eta, expand=self.expand)
        require_multiple("width", self.width, "heads", self.heads)
        operand_dtype(self.dtype)

    def _layer(self, dtype: Any) -> SequenceModel:
        return GaLiTe(self.width, self.heads, self.eta, dtype)

    def build(self) -> SequenceStack:
        """The stack: identity-map reordering with GRU gates around attention and a ReLU net (as GTrXL)."""
        dtype = operand_dtype(self.dtype)
        mixers = [self._layer(dtype) for _ in range(self.layers)]
        options: dict[str, Any] = {"ffn": "relu", "expand": self.expand, "block": "gru_gated"}
        return stack_of(mixers, features=self.width, dtype=dtype, **options)


@register_model("agalite")
@dataclass(frozen=True)
class AGaLiTeConfig(GaLiTeConfig):
    """Recurrent linear transformer with GRU gates: acts like a transformer at the price of a small fixed state."""

    frequencies: int = 2
    """Oscillating copies of the state; more of them approximate the full matrix state better."""
    impl: Impl = "auto"
    """How the recurrences run in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(frequencies=self.frequencies)
        require_choice("impl", self.impl, IMPLS)

    def _layer(self, dtype: Any) -> SequenceModel:
        return AGaLiTe(self.width, self.heads, self.eta, dtype, self.frequencies, self.impl)
