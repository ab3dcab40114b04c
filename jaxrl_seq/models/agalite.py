"""AGaLiTe: gated linear attention whose matrix state is kept as a few oscillating vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_multiple, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import float_type, linear_recurrence, linear_recurrence_step, steps_since_reset
from jaxrl_seq.ops.linear_recurrence import IMPLS, Impl

Array = jax.Array
State = tuple[Array, Array, Array]  # keys [B, R+1, N, M], values [B, R, N, H], phase int32[B]

EPSILON = 1e-3  # below it rounding of a nearly silent query would show in the quotient


class AGaLiTe(SequenceModel):
    """Approximate gated linear transformer layer (Pramanik et al. 2023, arXiv:2310.15719).

    Keys, queries and key gates are outer products of a width-H and a width-eta vector, M = eta * H numbers a head:

        k~[n] = (1 - gamma) * k~[n] + c_n(t) gamma * k,   v~[n] = (1 - beta) * v~[n] + c_n(t) beta * v
        s = (1 - gamma) * s + gamma * k,                   y = sum_n v~[n] (k~[n] . q) / (s . q + eps)

    with the waves c_n(t) = sqrt(2/R) cos(pi (n + 1/2) (t + 1/2) / R), t counted from the reset: an orthonormal basis of
    R steps (the cosine transform of type IV), so up to R steps the layer is exactly GaLiTe, and beyond them an
    approximation. They repeat after 4 R steps, so the phase is an exact integer at any age. (The grid over [-pi, pi]
    of the published code has every wave twice.)
    Carry: k~ and, behind them, s [B, R+1, N, M]; v~ [B, R, N, H]; the phase [B] int32. 4 (R M + M + R H) N bytes + 4.
    """

    features: int
    heads: int = 4
    eta: int = 4
    frequencies: int = 2
    dtype: Any = None
    impl: Impl = "auto"

    def setup(self) -> None:
        self.project = Linear(5 * self.features, dtype=self.dtype)
        self.expand = Linear(3 * self.heads * self.eta, dtype=self.dtype)
        self.out = Linear(self.features, dtype=self.dtype)

    def _inputs(self, x: Array) -> tuple[Array, Array, Array, Array, Array]:
        """x[..., D] -> queries, keys, key gates [..., N, M], values, value gates [..., N, H]."""
        k, q, v, beta, gamma = jnp.split(self.project(x).reshape(*x.shape[:-1], self.heads, -1), 5, axis=-1)
        k_wide, q_wide, gamma_wide = jnp.split(self.expand(x).reshape(*x.shape[:-1], self.heads, -1), 3, axis=-1)

        def outer(a: Array, b: Array) -> Array:
            return (b[..., None] * a[..., None, :]).reshape(*a.shape[:-1], -1)

        queries = outer(nn.relu(q), nn.relu(q_wide))
        keys = outer(nn.relu(k), nn.relu(k_wide))
        return queries, keys, outer(nn.sigmoid(gamma), nn.sigmoid(gamma_wide)), v, nn.sigmoid(beta)

    def _waves(self, phase: Array, dtype: Any) -> Array:
        """phase[...] int32 -> c_n [..., R, 1, 1]; from a table, since only 4 R phases exist."""
        count = self.frequencies
        turns = np.outer(np.arange(4 * count) + 0.5, np.arange(count) + 0.5) / count
        return jnp.asarray(np.sqrt(2 / count) * np.cos(np.pi * turns), dtype)[phase][..., None, None]

    def _driven(self, phase: Array, x: Array) -> tuple[Array, tuple[Array, Array], tuple[Array, Array]]:
        """Queries, and (decay, input) of the keys with s behind them, and of the values."""
        queries, keys, gamma, values, beta = self._inputs(x)
        waves = self._waves(phase, float_type(keys))
        keys, values = (gamma * keys)[..., None, :, :], (beta * values)[..., None, :, :]
        keys = jnp.concatenate([waves * keys, keys], axis=-3)
        return queries, (1 - gamma, keys), (1 - beta, waves * values)

    def _read(self, keys: Array, values: Array, queries: Array) -> Array:
        match = (keys * queries[..., None, :, :]).sum(-1)
        y = (values * match[..., :-1, :, None]).sum(-3)
        y = y / (match[..., -1, :, None] + EPSILON)
        return self.out(y.reshape(*y.shape[:-2], self.features))

    def __call__(self, carry: State, x: Array, reset: Array) -> tuple[State, Array]:
        require_width(self, x, self.features)
        keys, values, phase = carry
        period = 4 * self.frequencies
        phases = steps_since_reset(reset, phase) % period
        queries, key_drive, value_drive = self._driven(phases, x)
        keys, values = self._scan(*key_drive, keys, reset), self._scan(*value_drive, values, reset)
        return (keys[-1], values[-1], (phases[-1] + 1) % period), self._read(keys, values, queries)

    def _scan(self, decay: Array, b: Array, h: Array, reset: Array) -> Array:
        """decay[T, B, ...] shared by the R waves of b[T, B, R, ...] and h[B, R, ...]."""

        def one(b: Array, h: Array) -> Array:
            return linear_recurrence(decay, b, h, reset, impl=self.impl)

        return jax.vmap(one, in_axes=(2, 1), out_axes=2)(b, h)

    def step(self, carry: State, x: Array, reset: Array) -> tuple[State, Array]:
        keys, values, phase = carry
        phase = jnp.where(reset, 0, phase)
        queries, (key_decay, key_input), (value_decay, value_input) = self._driven(phase, x)
        keys = linear_recurrence_step(key_decay[:, None], key_input, keys, reset)
        values = linear_recurrence_step(value_decay[:, None], value_input, values, reset)
        return (keys, values, (phase + 1) % (4 * self.frequencies)), self._read(keys, values, queries)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> State:
        head_dim = self.features // self.heads
        keys = jnp.zeros((*batch, self.frequencies + 1, self.heads, self.eta * head_dim), jnp.float32)
        values = jnp.zeros((*batch, self.frequencies, self.heads, head_dim), jnp.float32)
        return keys, values, jnp.zeros(batch, jnp.int32)


@register_model("agalite")
@dataclass(frozen=True)
class AGaLiTeConfig:
    """Recurrent linear transformer with GRU gates: acts like a transformer at the price of a small fixed state."""

    width: int = 64
    """Width of the residual stream, and output features; a multiple of heads."""
    layers: int = 2
    """Attention layers, each followed by a feed-forward net."""
    heads: int = 4
    """Attention heads."""
    eta: int = 4
    """Width of the second factor of keys and queries; the state grows with it."""
    frequencies: int = 2
    """Oscillating copies of the state; more of them approximate the full matrix state better."""
    expand: int = 4
    """Hidden units of the feed-forward net, in multiples of width."""
    impl: Impl = "auto"
    """How the recurrences run in training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and gates stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, eta=self.eta)
        require_positive(frequencies=self.frequencies, expand=self.expand)
        require_multiple("width", self.width, "heads", self.heads)
        require_choice("impl", self.impl, IMPLS)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: identity-map reordering with GRU gates around attention and a ReLU net (as GTrXL)."""
        dtype = operand_dtype(self.dtype)
        layer = AGaLiTe(self.width, self.heads, self.eta, self.frequencies, dtype, self.impl)
        mixers: list[SequenceModel] = [layer.clone() for _ in range(self.layers)]
        return stack_of(mixers, features=self.width, ffn="relu", expand=self.expand, dtype=dtype, block="gru_gated")
