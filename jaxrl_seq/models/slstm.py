"""sLSTM: the recurrent half of xLSTM, an LSTM that can overwrite what it stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import lecun_normal, zeros

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import FEED_FORWARDS, FeedForwardKind, RMSNorm
from jaxrl_seq.models.registry import (
    operand_dtype,
    register_model,
    require_choice,
    require_multiple,
    require_positive,
)
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import SLSTMState, SLSTMWeights, empty_slstm, slstm, slstm_step

Array = jax.Array


class SLSTM(SequenceModel):
    """Scalar LSTM with exponential gates (Beck et al. 2024, arXiv:2405.04517), normalised head by head.

    Units see each other's past within their head only. Carry: `SLSTMState` (c, n, h, m)[B, F] float32.
    """

    features: int
    heads: int = 4
    dtype: Any = None

    def setup(self) -> None:
        width, head_dim = self.features, self.features // self.heads
        self.w_input = self.param("w_input", lecun_normal(), (width, 4 * width), jnp.float32)
        self.bias = self.param("bias", _remember, (4 * width,), jnp.float32)
        self.w_hidden = self.param("w_hidden", zeros, (4, self.heads, head_dim, head_dim), jnp.float32)
        self.norm = RMSNorm(head_dim)

    def _weights(self) -> SLSTMWeights:
        return SLSTMWeights(self.w_input, self.bias, self.w_hidden)

    def _read(self, h: Array) -> Array:
        heads = h.reshape(*h.shape[:-1], self.heads, -1)
        return self.norm(heads).reshape(h.shape)

    def __call__(self, carry: SLSTMState, x: Array, reset: Array) -> tuple[SLSTMState, Array]:
        require_width(self, x, self.features)
        carry, h = slstm(self._weights(), carry, x, reset, dtype=self.dtype)
        return carry, self._read(h)

    def step(self, carry: SLSTMState, x: Array, reset: Array) -> tuple[SLSTMState, Array]:
        carry = slstm_step(self._weights(), carry, x, reset, dtype=self.dtype)
        return carry, self._read(carry.h)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> SLSTMState:
        return empty_slstm(batch, self.features)


def _remember(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """Zeros, but 3 to 6 over the units for the forget gate: memories of about 20 to 400 steps."""
    size = shape[0] // 4
    return jnp.zeros(shape, dtype).at[size : 2 * size].set(jnp.linspace(3, 6, size, dtype=dtype))


@register_model("slstm")
@dataclass(frozen=True)
class SLSTMConfig:
    """xLSTM's recurrent block: sequential as the LSTM, but its exponential gates let it revise what it stored."""

    width: int = 64
    """Units a layer, and output features; a multiple of heads."""
    layers: int = 1
    """sLSTM layers, each followed by a feed-forward net."""
    heads: int = 4
    """Groups of units that see each other's past."""
    ffn: FeedForwardKind | Literal["none"] = "glu"
    """Feed-forward net after each layer."""
    expand: int = 2
    """Hidden units of the feed-forward net, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and gates stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, expand=self.expand)
        require_multiple("width", self.width, "heads", self.heads)
        require_choice("ffn", self.ffn, (*FEED_FORWARDS, "none"))
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, sLSTM, residual, norm, feed-forward, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        mixers: list[SequenceModel] = [SLSTM(self.width, self.heads, dtype) for _ in range(self.layers)]
        return stack_of(mixers, features=self.width, ffn=self.ffn, expand=self.expand, dtype=dtype)
