"""Softmax attention over a sliding window: the transformer that fits inside a rollout loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import BLOCKS, FEED_FORWARDS, BlockKind, FeedForwardKind, Linear, RMSNorm
from jaxrl_seq.models.registry import (
    operand_dtype,
    register_model,
    require_choice,
    require_multiple,
    require_positive,
)
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import (
    Relative,
    Weighing,
    WindowCache,
    alibi_slopes,
    cache_after,
    cache_write,
    cached_attention,
    empty_cache,
    episode_position,
    extend_cache,
    float_type,
    geometric_angles,
    integer_angles,
    integer_wavelengths,
    key_start,
    rotate,
    sinusoids,
    windowed_attention,
)

Array = jax.Array
Positions = Literal["resonance", "rope", "relative", "alibi", "none"]
POSITIONS: tuple[str, ...] = get_args(Positions)
ROTARY = ("resonance", "rope")
CLIPPED = (-0.03, 1.03)  # the range of Bondarenko et al. 2023


class SlidingWindowAttention(SequenceModel):
    """Causal attention to the latest W steps of the episode, with grouped key heads.

    positions: "resonance" (rotary, integer wavelengths, exact at any age), "rope" (rotary, real frequencies, counted
    from the reset), "relative" (Transformer-XL: learned from sinusoids of the distance, with content and position
    biases, Dai et al. 2019, arXiv:1901.02860), "alibi" (a slope a head over the distance), "none".
    sink: a learned logit a head that takes weight and gives nothing. clipped, gated: softmax stretched and cut so
    that exact zeros are reachable, and a sigmoid gate a head (Bondarenko et al. 2023, arXiv:2306.12929).
    qk_norm: queries and keys normalised a head (Henry et al. 2020, arXiv:2010.04245).
    Carry: `WindowCache` with keys [B, K, H, W] and values [B, K, W, H] in the operand type.
    """

    features: int
    heads: int = 4
    kv_heads: int = 1
    window: int = 128
    positions: str = "resonance"
    dtype: Any = None
    sink: bool = False
    clipped: bool = False
    gated: bool = False
    qk_norm: bool = False

    def setup(self) -> None:
        head_dim = self.features // self.heads
        # one product makes queries, keys and values
        self.qkv = Linear((self.heads + 2 * self.kv_heads) * head_dim, use_bias=False, dtype=self.dtype)
        self.out = Linear(self.features, use_bias=False, dtype=self.dtype)
        zeros = nn.initializers.zeros
        if self.positions == "relative":
            self.distance = Linear(self.features, use_bias=False, dtype=self.dtype)
            self.content_bias = self.param("content_bias", zeros, (self.heads, head_dim), jnp.float32)
            self.position_bias = self.param("position_bias", zeros, (self.heads, head_dim), jnp.float32)
        if self.sink:
            self.sink_logit = self.param("sink_logit", zeros, (self.heads,), jnp.float32)
        if self.gated:
            self.gate = Linear(self.heads, dtype=self.dtype)
        if self.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(head_dim), RMSNorm(head_dim)

    def _project(self, x: Array, angles: Array | None) -> tuple[Array, Array, Array]:
        """x[..., D] -> q[..., N, H], k[..., K, H], v[..., K, H], q and k turned by angles[..., 1, H/2]."""
        head_dim = self.features // self.heads
        y = self.qkv(x).reshape(*x.shape[:-1], -1, head_dim)
        q, k, v = jnp.split(y, [self.heads, self.heads + self.kv_heads], axis=-2)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is None:
            return q, k, v
        turned = rotate(jnp.concatenate([q, k], axis=-2), angles)
        return turned[..., : self.heads, :], turned[..., self.heads :, :], v

    def _angles(self, clock: Array, position: Array, dtype: Any) -> Array | None:
        """Angles [..., 1, H/2] from clock [] or [T, 1], or from positions [B] or [T, B]."""
        head_dim = self.features // self.heads
        if self.positions not in ROTARY:
            return None
        if self.positions == "rope":
            return geometric_angles(position, head_dim, dtype=dtype)[..., None, :]
        return integer_angles(clock, integer_wavelengths(head_dim), dtype)[..., None, :]

    def _relative(self, q: Array) -> tuple[Array, Relative | None]:
        """q[B, N, ..., H] with the content bias, and the term of the scores that depends on the distance."""
        if self.positions == "alibi":
            slopes = jnp.asarray(alibi_slopes(self.heads), q.dtype)
            distances = jnp.arange(self.window, dtype=q.dtype)
            return q, Relative(jnp.ones_like(q[..., :1]), -slopes[:, None, None] * distances[:, None])
        if self.positions != "relative":
            return q, None
        waves = jnp.asarray(sinusoids(self.window, self.features), q.dtype)
        keys = self.distance(waves).reshape(self.window, self.heads, -1).swapaxes(0, 1)

        def biased(bias: Array) -> Array:
            return q + bias.reshape(self.heads, *[1] * (q.ndim - 3), -1)

        return biased(self.content_bias), Relative(biased(self.position_bias) * q.shape[-1] ** -0.5, keys)

    def _weighing(self) -> Weighing:
        return Weighing(self.sink_logit if self.sink else None, CLIPPED if self.clipped else (0.0, 1.0))

    def _finish(self, x: Array, y: Array) -> Array:
        """Heads y[..., N, H] of input x[..., D] -> [..., D]."""
        if self.gated:
            y = y * nn.sigmoid(self.gate(x))[..., None]
        return self.out(y.reshape(x.shape))

    def __call__(self, carry: WindowCache, x: Array, reset: Array) -> tuple[WindowCache, Array]:
        require_width(self, x, self.features)
        position = episode_position(reset, carry.age)
        clock = carry.clock + jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
        q, k, v = self._project(x, self._angles(clock, position, float_type(x)))
        q, k, v = (y.transpose(1, 2, 0, 3) for y in (q, k, v))
        q, relative = self._relative(q)
        keys, values = extend_cache(carry, k, v)
        start = key_start(position, self.window)
        y = windowed_attention(q, keys, values, start, relative=relative, weighing=self._weighing())
        return cache_after(carry, keys, values, position), self._finish(x, y.transpose(2, 0, 1, 3))

    def step(self, carry: WindowCache, x: Array, reset: Array) -> tuple[WindowCache, Array]:
        position = episode_position(reset[None], carry.age)[0]
        q, k, v = self._project(x, self._angles(carry.clock, position, float_type(x)))
        q, relative = self._relative(q)
        carry, visible = cache_write(carry, k, v, reset)
        return carry, self._finish(x, cached_attention(q, carry, visible, relative=relative, weighing=self._weighing()))

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> WindowCache:
        head_dim = self.features // self.heads
        return empty_cache(batch, self.kv_heads, self.window, head_dim, self.dtype or jnp.float32)


@register_model("transformer")
@dataclass(frozen=True)
class TransformerConfig:
    """Sliding-window transformer with a key-value ring: exact recall inside the window, of every layer."""

    width: int = 64
    """Width of the residual stream, and output features; a multiple of heads."""
    layers: int = 2
    """Attention layers, each followed by a feed-forward net."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 1
    """Key and value heads, shared by heads / kv_heads queries each; 1 keeps the cache small."""
    window: int = 128
    """Steps a layer sees, itself included; depth extends the reach to about layers * window."""
    ffn: FeedForwardKind | Literal["none"] = "gelu"
    """Feed-forward net after each attention layer."""
    expand: int = 2
    """Hidden units of the feed-forward net, in multiples of width."""
    positions: Positions = "resonance"
    """Rotary with integer wavelengths or with real frequencies, relative (Transformer-XL), ALiBi, or none."""
    sink: bool = False
    """A learned logit a head that takes weight, so that a head may attend to nothing."""
    clipped: bool = False
    """Clipped softmax: weights reach exactly zero."""
    gated: bool = False
    """A sigmoid gate a head, made of the layer's input."""
    qk_norm: bool = False
    """Queries and keys normalised a head: scores cannot run away."""
    block: BlockKind = "pre_norm"
    """How layers join the residual stream."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands and of cached keys and values."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, kv_heads=self.kv_heads)
        require_positive(window=self.window, expand=self.expand)
        require_choice("positions", self.positions, POSITIONS)
        require_choice("ffn", self.ffn, (*FEED_FORWARDS, "none"))
        require_multiple("heads", self.heads, "kv_heads", self.kv_heads)
        require_choice("block", self.block, BLOCKS)
        rotary = self.positions in ROTARY
        unit = 2 * self.heads if rotary else self.heads
        require_multiple("width", self.width, "2 * heads" if rotary else "heads", unit)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, attention, residual, norm, feed-forward, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = SlidingWindowAttention(
            self.width,
            self.heads,
            self.kv_heads,
            self.window,
            self.positions,
            dtype,
            self.sink,
            self.clipped,
            self.gated,
            self.qk_norm,
        )
        mixers: list[SequenceModel] = [layer.clone() for _ in range(self.layers)]
        options = {"ffn": self.ffn, "expand": self.expand, "dtype": dtype, "block": self.block}
        return stack_of(mixers, features=self.width, **options)
