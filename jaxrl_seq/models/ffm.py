"""FFM: many fixed rates of forgetting times many frequencies, made for reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import linear_recurrence, linear_recurrence_step
from jaxrl_seq.ops.linear_recurrence import IMPLS, Impl

Array = jax.Array
Pair = tuple[Array, Array]


class FFM(SequenceModel):
    """Fast and forgetful memory (Morad et al. 2023, arXiv:2310.04128).

    Each of M traces, a gated number of x[t], decays at its own rate exp(-alpha) and turns at C frequencies (contexts):
    S[t] = exp(-alpha + i omega) S[t-1] + trace[t]. Read out linearly, normalised, under a gate against a skip of x[t].
    Carry: (re, im)[B, M * C] float32.
    """

    features: int
    traces: int = 32
    contexts: int = 4
    max_period: float = 1024.0
    dtype: Any = None
    impl: Impl = "auto"

    def setup(self) -> None:
        self.log_rate = self.param("log_rate", _init_rates, (self.traces,), jnp.float32)
        self.frequency = self.param("frequency", _init_frequencies(self.max_period), (self.contexts,), jnp.float32)
        # one product makes trace and its gate, output gate and skip
        self.input = Linear(2 * self.traces + 2 * self.features, dtype=self.dtype)
        self.mix = Linear(self.features, dtype=self.dtype)

    def _decay(self) -> Pair:
        """exp(-alpha + i omega) as (re, im)[M * C]."""
        size = jnp.exp(-jnp.exp(self.log_rate))[:, None]
        re, im = size * jnp.cos(self.frequency), size * jnp.sin(self.frequency)
        return re.reshape(-1), im.reshape(-1)

    def _enter(self, x: Array) -> tuple[Pair, Array, Array]:
        """x[..., F] -> drive (re, im)[..., M * C], output gate[..., F], skip[..., F]."""
        at = np.cumsum([self.traces, self.traces, self.features])
        trace, trace_gate, gate, skip = jnp.split(self.input(x), at, axis=-1)
        drive = jnp.repeat(trace * nn.sigmoid(trace_gate), self.contexts, axis=-1)
        return (drive, jnp.zeros_like(drive)), nn.sigmoid(gate), skip

    def _read(self, state: Pair, gate: Array, skip: Array) -> Array:
        z = self.mix(jnp.concatenate(state, axis=-1))
        return gate * jax.nn.standardize(z, epsilon=1e-5) + (1 - gate) * skip

    def __call__(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        require_width(self, x, self.features)
        drive, gate, skip = self._enter(x)
        state = linear_recurrence(self._decay(), drive, carry, reset, impl=self.impl)
        return (state[0][-1], state[1][-1]), self._read(state, gate, skip)

    def step(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        drive, gate, skip = self._enter(x)
        state = linear_recurrence_step(self._decay(), drive, carry, reset)
        return state, self._read(state, gate, skip)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Pair:
        shape = (*batch, self.traces * self.contexts)
        return jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32)


def _init_rates(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """Forgetting per step from almost none to e^-0.5, evenly spaced; as logarithms, so it never turns negative."""
    return jnp.log(jnp.linspace(1e-6, 0.5, shape[0], dtype=dtype))


def _init_frequencies(max_period: float):
    """Periods of one step (no turn at all) to `max_period` steps, evenly spaced."""

    def init(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
        return 2 * np.pi / jnp.linspace(1, max_period, shape[0], dtype=dtype)

    return init


@register_model("ffm")
@dataclass(frozen=True)
class FFMConfig:
    """Fast and forgetful memory: few parameters and strong built-in forgetting, a good first try on POPGym."""

    width: int = 64
    """Width of the residual stream, and output features."""
    layers: int = 1
    """FFM layers."""
    traces: int = 32
    """Numbers of each step that are remembered, each with its own rate of forgetting."""
    contexts: int = 4
    """Frequencies that each trace is seen at."""
    max_period: float = 1024.0
    """Longest initial period in steps; about the longest episode."""
    impl: Impl = "auto"
    """How the recurrence runs in training: as measured, sequential, in log-depth, or in chunks side by side."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and decays stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, traces=self.traces, contexts=self.contexts)
        if self.max_period < 1:
            raise ValueError(f"max_period={self.max_period} must be at least 1 step")
        require_choice("impl", self.impl, IMPLS)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, FFM, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = FFM(self.width, self.traces, self.contexts, self.max_period, dtype, self.impl)
        return stack_of([layer.clone() for _ in range(self.layers)], features=self.width, dtype=dtype)
