"""MinGRU and MinLSTM: gated recurrent networks whose gates see only the input, so that time runs in parallel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.models.timescales import chrono_bias, require_horizon
from jaxrl_seq.ops import linear_recurrence, linear_recurrence_step
from jaxrl_seq.ops.linear_recurrence import IMPLS, Impl

Array = jax.Array


class MinGRU(SequenceModel):
    """Minimal GRU (Feng et al. 2024, arXiv:2410.01201) of width `features`. Carry: h[B, F] float32.

    h[t] = (1 - z) h[t-1] + z v with z = sigmoid(u), where u and v are linear in x[t]. In linear space: the decay 1 - z
    lies between 0 and 1, so nothing overflows and v may have any sign.
    """

    features: int
    dtype: Any = None
    impl: Impl = "auto"
    horizon: int = 0

    def setup(self) -> None:
        self.gates = self._linear(-1, 0)

    def _linear(self, *signs: int) -> Linear:
        """One product for all gates and the new value; signs as in `chrono_bias`."""
        return Linear(len(signs) * self.features, dtype=self.dtype, bias_init=chrono_bias(self.horizon, signs))

    def _update(self, x: Array) -> tuple[Array, Array]:
        """x[..., F] -> logit of z and new value v, each [..., F]."""
        logit, value = jnp.split(self.gates(x), 2, axis=-1)
        return logit, value

    def _coefficients(self, x: Array) -> tuple[Array, Array]:
        logit, value = self._update(x)
        return nn.sigmoid(-logit), nn.sigmoid(logit) * value

    def __call__(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        require_width(self, x, self.features)
        h = linear_recurrence(*self._coefficients(x), carry, reset, impl=self.impl)
        return h[-1], h

    def step(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        h = linear_recurrence_step(*self._coefficients(x), carry, reset)
        return h, h

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch, self.features), jnp.float32)


class MinLSTM(MinGRU):
    """Minimal LSTM (Feng et al. 2024, arXiv:2410.01201): z = i / (f + i) of two gates. Carry: h[B, F] float32."""

    def setup(self) -> None:
        self.gates = self._linear(1, -1, 0)

    def _update(self, x: Array) -> tuple[Array, Array]:
        forget, enter, value = jnp.split(self.gates(x), 3, axis=-1)
        # logit of i / (f + i) without the quotient, which is 0 / 0 when both gates are shut
        return nn.log_sigmoid(enter) - nn.log_sigmoid(forget), value


@dataclass(frozen=True)
class _MinConfig:
    width: int = 64
    """Units a layer, and output features."""
    layers: int = 1
    """Layers, each with a residual connection; gates see the past only through the layers below."""
    horizon: int = 0
    """Steps that units remember at first, spread from 1 to this many (chrono initialisation, Tallec & Ollivier 2018):
    set it to the longest delay of the task; 0 leaves gates even."""
    impl: Impl = "auto"
    """How the recurrence runs in training: as measured, sequential, in log-depth, or in chunks side by side."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and gates stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers)
        require_horizon(self.horizon)
        require_choice("impl", self.impl, IMPLS)
        operand_dtype(self.dtype)

    def _stack(self, mixer: type[MinGRU]) -> SequenceStack:
        dtype = operand_dtype(self.dtype)
        layers: list[SequenceModel] = [mixer(self.width, dtype, self.impl, self.horizon) for _ in range(self.layers)]
        return stack_of(layers, features=self.width, dtype=dtype)


@register_model("min_gru")
@dataclass(frozen=True)
class MinGRUConfig(_MinConfig):
    """Minimal GRU: parallel in time, the fewest parameters of all memories here; stack two layers or more."""

    def build(self) -> SequenceStack:
        """The stack: norm, MinGRU, residual, a layer; output normalised."""
        return self._stack(MinGRU)


@register_model("min_lstm")
@dataclass(frozen=True)
class MinLSTMConfig(_MinConfig):
    """Minimal LSTM: parallel in time, as MinGRU with separate gates to forget and to enter."""

    def build(self) -> SequenceStack:
        """The stack: norm, MinLSTM, residual, a layer; output normalised."""
        return self._stack(MinLSTM)
