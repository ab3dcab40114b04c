"""Linear attention: memories that are a matrix for each head, written with keys and read with queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import ones, zeros

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import FEED_FORWARDS, FeedForwardKind, Linear, RMSNorm
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_multiple, require_positive
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import (
    chunked_linear_attention,
    gated_linear_attention,
    gated_linear_attention_step,
    linear_attention_step,
)

Array = jax.Array
FeatureMapKind = Literal["elu1", "relu", "dpfp", "rebased"]
FEATURE_MAPS: tuple[str, ...] = get_args(FeatureMapKind)
"""elu(x) + 1 (Katharopoulos et al. 2020), relu(x), products of rectified neighbours (Schlag et al. 2021,
arXiv:2102.11174), a learned parabola of the normalised x (Aksenov et al. 2024, arXiv:2402.10644)."""
GateKind = Literal["channel", "head"]
GATES: tuple[str, ...] = get_args(GateKind)

EPSILON = 1e-3
"""Added to mean squares. What is read may be next to nothing, and without a floor its rounding errors would show."""
FLOOR = 0.03
"""Added to the sum of attention weights, for the same reason: weights of one step are about the size of a head."""
LOW_RANK = 16


class MatrixMemory(SequenceModel):
    """Base of mixers with N heads of H = D / N numbers each and a state matrix [H, H] for each head.

    Queries, keys, values and an output gate come from one product; what is read is normalised head by head, gated and
    projected. A subclass says what it adds to (q, k, v) in `_inputs`, and what keeps the state in `_attend` and
    `_attend_step`. Carry: S[B, N, H, H] float32, 4 D H bytes an environment.
    """

    features: int
    heads: int = 4
    dtype: Any = None

    def setup(self) -> None:
        self.project = Linear(4 * self.features, use_bias=False, dtype=self.dtype)
        self.norm = RMSNorm(self.features // self.heads, EPSILON)
        self.out = Linear(self.features, use_bias=False, dtype=self.dtype)

    def _inputs(self, x: Array) -> tuple[tuple[Array, ...], Array]:
        """x[..., D] -> what goes into the memory, (q, k, v [..., N, H], decay and others), and the output gate."""
        raise TypeError(f"{type(self).__name__} must define _inputs(x)")

    def _attend(self, inputs: tuple[Array, ...], state: Any, reset: Array) -> tuple[Array, Any]:
        q, k, v, log_decay = inputs
        return chunked_linear_attention(q, k, v, log_decay, state, reset)

    def _attend_step(self, inputs: tuple[Array, ...], state: Any, reset: Array) -> tuple[Array, Any]:
        q, k, v, log_decay = inputs
        return linear_attention_step(q, k, v, log_decay, state, reset)

    def _read(self, y: Array, gate: Array) -> Array:
        """y[..., N, H], gate[..., D] -> [..., D]."""
        return self.out(self.norm(y).reshape(gate.shape) * nn.silu(gate))

    def __call__(self, carry: Any, x: Array, reset: Array) -> tuple[Any, Array]:
        require_width(self, x, self.features)
        inputs, gate = self._inputs(x)
        y, carry = self._attend(inputs, carry, reset)
        return carry, self._read(y, gate)

    def step(self, carry: Any, x: Array, reset: Array) -> tuple[Any, Array]:
        inputs, gate = self._inputs(x)
        y, carry = self._attend_step(inputs, carry, reset)
        return carry, self._read(y, gate)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Any:
        head_dim = self.features // self.heads
        return jnp.zeros((*batch, self.heads, head_dim, head_dim), jnp.float32)


def split_heads(x: Array, heads: int, parts: int) -> list[Array]:
    """x[..., parts * N * H] -> `parts` arrays [..., N, H]."""
    return [part.reshape(*part.shape[:-1], heads, -1) for part in jnp.split(x, parts, axis=-1)]


class FeatureMap(nn.Module):
    """x[..., H] -> numbers at or above zero, [..., H] or for "dpfp" [..., 2H]. kind: one of FEATURE_MAPS."""

    kind: str
    size: int

    def setup(self) -> None:
        if self.kind == "rebased":
            self.scale = self.param("scale", ones, (self.size,), jnp.float32)
            self.shift = self.param("shift", zeros, (self.size,), jnp.float32)

    def __call__(self, x: Array) -> Array:
        if self.kind == "elu1":
            return nn.elu(x) + 1
        if self.kind == "relu":
            return nn.relu(x)
        if self.kind == "dpfp":
            both = nn.relu(jnp.concatenate([x, -x], axis=-1))
            return both * jnp.roll(both, 1, axis=-1)
        centred = x - x.mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
        return jnp.square(normal * self.scale + self.shift)


class LinearAttention(MatrixMemory):
    """Attention with phi(q).phi(k) in place of exp(q.k) (Katharopoulos et al. 2020, arXiv:2006.16236).

    y = S^T phi(q) / (z.phi(q) + floor). The normaliser z is one more column of S.
    Carry: S[B, N, M, H + 1] float32 for M features a head.
    """

    feature_map: str = "elu1"

    def setup(self) -> None:
        self.project = Linear(3 * self.features, use_bias=False, dtype=self.dtype)
        size = self.features // self.heads
        self.query_features, self.key_features = (FeatureMap(self.feature_map, size) for _ in range(2))
        self.out = Linear(self.features, dtype=self.dtype)

    def _inputs(self, x: Array) -> tuple[tuple[Array, ...], Array]:
        q, k, v = split_heads(self.project(x), self.heads, 3)
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        return (self.query_features(q), self.key_features(k), v, jnp.zeros(1, v.dtype)), x

    def _read(self, y: Array, gate: Array) -> Array:
        y = y[..., :-1] / (y[..., -1:] + FLOOR)
        return self.out(y.reshape(gate.shape))

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Array:
        size = self.features // self.heads
        mapped = 2 * size if self.feature_map == "dpfp" else size
        return jnp.zeros((*batch, self.heads, mapped, size + 1), jnp.float32)


class Retention(MatrixMemory):
    """RetNet's retention (Sun et al. 2023, arXiv:2307.08621): head i forgets by the factor 1 - 2^-(5 + i) a step.

    No rotations, and no running rescale: the norm behind it does that, and it would depend on how time is chunked.
    """

    def _inputs(self, x: Array) -> tuple[tuple[Array, ...], Array]:
        q, k, v, gate = split_heads(self.project(x), self.heads, 4)
        log_decay = np.log1p(-(2.0 ** -(5.0 + np.arange(self.heads))))
        q = q / np.sqrt(q.shape[-1]).astype(q.dtype)
        return (q, k, v, jnp.asarray(log_decay, q.dtype)), gate.reshape(x.shape)


class GatedLinearAttention(MatrixMemory):
    """Linear attention whose inputs decide what is forgotten (Yang et al. 2023, arXiv:2312.06635).

    gates: one decay for each channel of the keys, or for each head, which is several times faster. Decays are
    sigmoid(gate)^(1/16); they start with memories of about 20 to 900 steps.
    """

    gates: str = "channel"

    def setup(self) -> None:
        super().setup()
        count = self.features if self.gates == "channel" else self.heads
        self.decay_in = Linear(LOW_RANK, use_bias=False, dtype=self.dtype)
        self.decay_out = Linear(count, use_bias=False, dtype=self.dtype)
        self.decay_bias = self.param("decay_bias", _remember, (count,), jnp.float32)

    def _inputs(self, x: Array) -> tuple[tuple[Array, ...], Array]:
        q, k, v, gate = split_heads(self.project(x), self.heads, 4)
        log_decay = nn.log_sigmoid(self.decay_out(self.decay_in(x)) + self.decay_bias) / 16
        if self.gates == "channel":
            log_decay = log_decay.reshape(k.shape)
        q = q / np.sqrt(q.shape[-1]).astype(q.dtype)
        return (q, k, v, log_decay), gate.reshape(x.shape)

    def _attend(self, inputs: tuple[Array, ...], state: Array, reset: Array) -> tuple[Array, Array]:
        if self.gates == "head":
            return super()._attend(inputs, state, reset)
        q, k, v, log_decay = inputs
        return gated_linear_attention(q, k, v, log_decay, state, reset)

    def _attend_step(self, inputs: tuple[Array, ...], state: Array, reset: Array) -> tuple[Array, Array]:
        if self.gates == "head":
            return super()._attend_step(inputs, state, reset)
        q, k, v, log_decay = inputs
        return gated_linear_attention_step(q, k, v, log_decay, state, reset)


def _remember(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    return jnp.linspace(0, 4, shape[0], dtype=dtype)


@dataclass(frozen=True)
class MatrixMemoryConfig:
    """What the configs of all matrix memories have in common."""

    width: int = 64
    """Width of the residual stream, and output features; a multiple of heads."""
    layers: int = 2
    """Memory layers, each followed by a feed-forward net."""
    heads: int = 4
    """Matrices a layer, of (width / heads)^2 numbers each: fewer heads hold more and act slower."""
    ffn: FeedForwardKind | Literal["none"] = "gelu"
    """Feed-forward net after each memory."""
    expand: int = 2
    """Hidden units of the feed-forward net, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the operands of projections; states and the products with them stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, expand=self.expand)
        require_multiple("width", self.width, "heads", self.heads)
        require_choice("ffn", self.ffn, (*FEED_FORWARDS, "none"))
        operand_dtype(self.dtype)

    def _stack(self, mixer: type[MatrixMemory], **options: Any) -> SequenceStack:
        """The stack: norm, memory, residual, norm, feed-forward, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = mixer(self.width, self.heads, dtype, **options)
        mixers: list[SequenceModel] = [layer.clone() for _ in range(self.layers)]
        return stack_of(mixers, features=self.width, ffn=self.ffn, expand=self.expand, dtype=dtype)


@register_model("linear_attention")
@dataclass(frozen=True)
class LinearAttentionConfig(MatrixMemoryConfig):
    """Linear transformer: averages over the whole episode, weighted by content; never forgets."""

    feature_map: FeatureMapKind = "elu1"
    """What makes queries and keys positive: "rebased" recalls best, "dpfp" doubles the state."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("feature_map", self.feature_map, FEATURE_MAPS)

    def build(self) -> SequenceStack:
        """The stack: norm, linear attention, residual, norm, feed-forward, residual, a layer; output normalised."""
        return self._stack(LinearAttention, feature_map=self.feature_map)


@register_model("retnet")
@dataclass(frozen=True)
class RetNetConfig(MatrixMemoryConfig):
    """RetNet: linear attention with a fixed decay for each head, memories of about 32, 64, 128, ... steps."""

    def build(self) -> SequenceStack:
        """The stack: norm, retention, residual, norm, feed-forward, residual, a layer; output normalised."""
        return self._stack(Retention)


@register_model("gated_linear_attention")
@dataclass(frozen=True)
class GatedLinearAttentionConfig(MatrixMemoryConfig):
    """Linear attention that learns what to forget and when."""

    gates: GateKind = "channel"
    """One learned decay for each key channel, or for each head (faster)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("gates", self.gates, GATES)

    def build(self) -> SequenceStack:
        """The stack: norm, memory, residual, norm, feed-forward, residual, a layer; output normalised."""
        return self._stack(GatedLinearAttention, gates=self.gates)
