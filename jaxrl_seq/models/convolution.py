"""Mixers that look back by a fixed causal filter: ConvFormer and gMLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal, ones, variance_scaling

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import FEED_FORWARDS, FeedForwardKind, Linear, RMSNorm
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import causal_conv1d, causal_conv1d_step, steps_since_reset

Array = jax.Array


# fan-in is the number of steps: each channel has a filter of its own
WEIGHTS_INIT = variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=0)


class ConvolutionCarry(NamedTuple):
    history: Array  # [B, K-1, D], the last inputs
    turn: Array  # [B] int32, whose turn it is among the filters


class CausalConvolution(SequenceModel):
    """A learned filter of K steps for each channel, as in Decision ConvFormer (Kim et al. 2023, arXiv:2310.03022).

    Of several filters the first acts on the first step since a reset, the second on the next, and so on in turns: as
    many as there are tokens to a step of an environment give each kind of token a filter of its own.
    Carry: the last K - 1 inputs and whose turn it is, 4 ((K - 1) D + 1) bytes an environment.
    """

    features: int
    kernel: int = 6
    filters: int = 1

    def setup(self) -> None:
        shape = (self.filters, self.kernel, self.features)
        self.weights = self.param("weights", WEIGHTS_INIT, shape, jnp.float32)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)

    def _chosen(self, y: list[Array], turn: Array) -> Array:
        """Of what each filter gives, [..., D], that whose turn[...] it is."""
        return jnp.select([turn[..., None] == i for i in range(self.filters)], y) + self.bias

    def __call__(self, carry: ConvolutionCarry, x: Array, reset: Array) -> tuple[ConvolutionCarry, Array]:
        require_width(self, x, self.features)
        turn = steps_since_reset(reset, carry.turn) % self.filters
        y, (history, *_) = zip(*(causal_conv1d(x, w, carry.history, reset) for w in self.weights), strict=True)
        return ConvolutionCarry(history, (turn[-1] + 1) % self.filters), self._chosen(list(y), turn)

    def step(self, carry: ConvolutionCarry, x: Array, reset: Array) -> tuple[ConvolutionCarry, Array]:
        turn = jnp.where(reset, 0, carry.turn)
        y, (history, *_) = zip(*(causal_conv1d_step(x, w, carry.history, reset) for w in self.weights), strict=True)
        return ConvolutionCarry(history, (turn + 1) % self.filters), self._chosen(list(y), turn)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> ConvolutionCarry:
        history = jnp.zeros((*batch, self.kernel - 1, self.features), jnp.float32)
        return ConvolutionCarry(history, jnp.zeros(batch, jnp.int32))


class SpatialGatingUnit(SequenceModel):
    """gMLP (Liu et al. 2021, arXiv:2105.08050) with a causal Toeplitz gate over the last K steps.

    gelu(x W) is split in two halves u, v; y = (u * (filter(norm(v)) + 1)) W'. One filter serves all channels and starts
    near zero, so the layer starts as a feed-forward net. Carry: the last K - 1 normalised v, [B, K-1, E] float32.
    """

    features: int
    hidden: int
    kernel: int = 32
    dtype: Any = None

    def setup(self) -> None:
        self.widen = Linear(2 * self.hidden, dtype=self.dtype)
        self.norm = RMSNorm(self.hidden)
        self.weights = self.param("weights", normal(1e-3), (self.kernel, 1), jnp.float32)
        self.bias = self.param("bias", ones, (), jnp.float32)
        self.narrow = Linear(self.features, dtype=self.dtype)

    def _halves(self, x: Array) -> tuple[Array, Array]:
        u, v = jnp.split(nn.gelu(self.widen(x)), 2, axis=-1)
        return u, self.norm(v)

    def __call__(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        require_width(self, x, self.features)
        u, v = self._halves(x)
        gate, carry = causal_conv1d(v, self.weights, carry, reset)
        return carry, self.narrow(u * (gate + self.bias))

    def step(self, carry: Array, x: Array, reset: Array) -> tuple[Array, Array]:
        u, v = self._halves(x)
        gate, carry = causal_conv1d_step(v, self.weights, carry, reset)
        return carry, self.narrow(u * (gate + self.bias))

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch, self.kernel - 1, self.hidden), jnp.float32)


@register_model("convformer")
@dataclass(frozen=True)
class ConvFormerConfig:
    """Short causal filters and feed-forward nets: very cheap, remembers `layers * (kernel - 1)` steps."""

    width: int = 64
    """Width of the residual stream, and output features."""
    layers: int = 2
    """Filters, each followed by a feed-forward net."""
    kernel: int = 6
    """Steps a filter sees, the present one included."""
    filters: int = 1
    """Filters that take turns: as many as tokens a step, for one to each kind (3 in Decision ConvFormer)."""
    ffn: FeedForwardKind | Literal["none"] = "gelu"
    """Feed-forward net after each filter."""
    expand: int = 4
    """Hidden units of the feed-forward net, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, kernel=self.kernel, expand=self.expand)
        require_positive(filters=self.filters)
        require_choice("ffn", self.ffn, (*FEED_FORWARDS, "none"))
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, filter, residual, norm, feed-forward, residual, a layer; output normalised."""
        layer = CausalConvolution(self.width, self.kernel, self.filters)
        mixers: list[SequenceModel] = [layer.clone() for _ in range(self.layers)]
        dtype = operand_dtype(self.dtype)
        return stack_of(mixers, features=self.width, ffn=self.ffn, expand=self.expand, dtype=dtype)


@register_model("gmlp")
@dataclass(frozen=True)
class GMLPConfig:
    """Gated net whose gate looks back by one learned filter over a window: no attention, no recurrence."""

    width: int = 64
    """Width of the residual stream, and output features."""
    layers: int = 2
    """Layers."""
    kernel: int = 32
    """Steps a gate sees, the present one included."""
    expand: int = 2
    """Gated units, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, kernel=self.kernel, expand=self.expand)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, gated unit, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = SpatialGatingUnit(self.width, self.expand * self.width, self.kernel, dtype)
        return stack_of([layer.clone() for _ in range(self.layers)], features=self.width, dtype=dtype)
