"""GRU: the reference recurrent network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import lecun_normal, orthogonal, zeros

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.registry import operand_dtype, register_model, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.models.timescales import chrono_bias, require_horizon
from jaxrl_seq.ops import GRUWeights, gru, gru_step

Array = jax.Array


class GRU(SequenceModel):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078) of width `features`. Carry: h[B, F] float32."""

    features: int
    dtype: Any = None
    horizon: int = 0

    def setup(self) -> None:
        size = self.features
        self.w_input = self.param("w_input", lecun_normal(), (size, 3 * size), jnp.float32)
        self.bias = self.param("bias", chrono_bias(self.horizon, (0, 1, 0)), (3 * size,), jnp.float32)
        self.w_hidden = self.param("w_hidden", orthogonal_gates, (size, 3 * size), jnp.float32)
        self.bias_n = self.param("bias_n", zeros, (size,), jnp.float32)

    def _weights(self) -> GRUWeights:
        return GRUWeights(self.w_input, self.bias, self.w_hidden, self.bias_n)

    def __call__(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        require_width(self, x, self.features)
        h = gru(self._weights(), carry, x, reset, dtype=self.dtype)
        return h[-1], h

    def step(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        h = gru_step(self._weights(), carry, x, reset, dtype=self.dtype)
        return h, h

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch, self.features), jnp.float32)


def orthogonal_gates(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    """One orthogonal [F, F] matrix a gate, side by side."""
    size = shape[0]
    gates = [orthogonal()(k, (size, size), dtype) for k in jax.random.split(key, shape[1] // size)]
    return jnp.concatenate(gates, axis=1)


@register_model("gru")
@dataclass(frozen=True)
class GRUConfig:
    """Gated recurrent unit: sequential in time, small state, the usual baseline."""

    width: int = 64
    """Units a layer, and output features."""
    layers: int = 1
    """GRU layers, each with a residual connection."""
    horizon: int = 0
    """Steps that units remember at first, spread from 1 to this many (chrono initialisation, Tallec & Ollivier 2018):
    set it to the longest delay of the task; 0 leaves gates even."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers)
        require_horizon(self.horizon)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, GRU, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layers: list[SequenceModel] = [GRU(self.width, dtype, self.horizon) for _ in range(self.layers)]
        return stack_of(layers, features=self.width, dtype=dtype)
