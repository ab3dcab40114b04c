"""LSTM: the recurrent network with a protected cell state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import lecun_normal

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.gru import orthogonal_gates
from jaxrl_seq.models.registry import operand_dtype, register_model, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.models.timescales import chrono_bias, require_horizon
from jaxrl_seq.ops import LSTMState, LSTMWeights, lstm, lstm_step

Array = jax.Array


class LSTM(SequenceModel):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) of width `features`.

    Carry: `LSTMState` (c, h)[B, F] float32.
    """

    features: int
    dtype: Any = None
    horizon: int = 0

    def setup(self) -> None:
        size = self.features
        bias = chrono_bias(self.horizon, (-1, 1, 0, 0)) if self.horizon else _remember
        self.w_input = self.param("w_input", lecun_normal(), (size, 4 * size), jnp.float32)
        self.bias = self.param("bias", bias, (4 * size,), jnp.float32)
        self.w_hidden = self.param("w_hidden", orthogonal_gates, (size, 4 * size), jnp.float32)

    def _weights(self) -> LSTMWeights:
        return LSTMWeights(self.w_input, self.bias, self.w_hidden)

    def __call__(self, carry: LSTMState, x: Array, reset: Array) -> tuple[LSTMState, Array]:
        require_width(self, x, self.features)
        return lstm(self._weights(), carry, x, reset, dtype=self.dtype)

    def step(self, carry: LSTMState, x: Array, reset: Array) -> tuple[LSTMState, Array]:
        carry = lstm_step(self._weights(), carry, x, reset, dtype=self.dtype)
        return carry, carry.h

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> LSTMState:
        shape = (*batch, self.features)
        return LSTMState(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def _remember(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """Zeros, but 1 for the forget gate: the cell starts out keeping what it has."""
    size = shape[0] // 4
    return jnp.zeros(shape, dtype).at[size : 2 * size].set(1)


@register_model("lstm")
@dataclass(frozen=True)
class LSTMConfig:
    """Long short-term memory: as the GRU, with a second state that only gates touch; the classic for recurrent PPO."""

    width: int = 64
    """Units a layer, and output features."""
    layers: int = 1
    """LSTM layers, each with a residual connection."""
    horizon: int = 0
    """Steps that units remember at first, spread from 1 to this many (chrono initialisation, Tallec & Ollivier 2018):
    set it to the longest delay of the task; 0 leaves gates as they are, with 1 for the forget gate."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers)
        require_horizon(self.horizon)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, LSTM, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layers: list[SequenceModel] = [LSTM(self.width, dtype, self.horizon) for _ in range(self.layers)]
        return stack_of(layers, features=self.width, dtype=dtype)
