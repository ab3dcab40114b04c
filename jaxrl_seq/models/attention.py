"""Softmax attention over a sliding window: the transformer that fits inside a rollout loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import FEED_FORWARDS, Linear
from jaxrl_seq.models.registry import (
    operand_dtype,
    register_model,
    require_choice,
    require_multiple,
    require_positive,
)
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import (
    WindowCache,
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
    windowed_attention,
)

Array = jax.Array
POSITIONS = ("resonance", "rope", "none")


class SlidingWindowAttention(SequenceModel):
    """Causal attention to the latest W steps of the episode, grouped key heads, rotary positions.

    Carry: `WindowCache` with keys and values [B, K, W, H] in the operand type. `positions`: "resonance" (integer
    wavelengths, exact at any age), "rope" (real frequencies, counted from the reset), "none".
    """

    features: int
    heads: int = 4
    kv_heads: int = 1
    window: int = 128
    positions: str = "resonance"
    dtype: Any = None

    def setup(self) -> None:
        head_dim = self.features // self.heads
        # one product makes queries, keys and values
        self.qkv = Linear((self.heads + 2 * self.kv_heads) * head_dim, use_bias=False, dtype=self.dtype)
        self.out = Linear(self.features, use_bias=False, dtype=self.dtype)

    def _project(self, x: Array, angles: Array | None) -> tuple[Array, Array, Array]:
        """x[..., D] -> q[..., N, H], k[..., K, H], v[..., K, H], q and k turned by angles[..., 1, H/2]."""
        head_dim = self.features // self.heads
        y = self.qkv(x).reshape(*x.shape[:-1], -1, head_dim)
        turned, v = y[..., : self.heads + self.kv_heads, :], y[..., self.heads + self.kv_heads :, :]
        if angles is not None:
            turned = rotate(turned, angles)
        return turned[..., : self.heads, :], turned[..., self.heads :, :], v

    def _angles(self, clock: Array, position: Array, dtype: Any) -> Array | None:
        """Angles [..., 1, H/2] from clock [] or [T, 1], or from positions [B] or [T, B]."""
        head_dim = self.features // self.heads
        if self.positions == "none":
            return None
        if self.positions == "rope":
            return geometric_angles(position, head_dim, dtype=dtype)[..., None, :]
        return integer_angles(clock, integer_wavelengths(head_dim), dtype)[..., None, :]

    def __call__(self, carry: WindowCache, x: Array, reset: Array) -> tuple[WindowCache, Array]:
        require_width(self, x, self.features)
        position = episode_position(reset, carry.age)
        clock = carry.clock + jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
        q, k, v = self._project(x, self._angles(clock, position, float_type(x)))
        q, k, v = (y.transpose(1, 2, 0, 3) for y in (q, k, v))
        keys, values = extend_cache(carry, k, v)
        y = windowed_attention(q, keys, values, key_start(position, self.window))
        y = y.transpose(2, 0, 1, 3).reshape(x.shape)
        return cache_after(carry, keys, values, position), self.out(y)

    def step(self, carry: WindowCache, x: Array, reset: Array) -> tuple[WindowCache, Array]:
        position = episode_position(reset[None], carry.age)[0]
        q, k, v = self._project(x, self._angles(carry.clock, position, float_type(x)))
        carry, visible = cache_write(carry, k, v, reset)
        y = cached_attention(q, carry, visible)
        return carry, self.out(y.reshape(x.shape))

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
    ffn: Literal["gelu", "relu", "silu", "tanh", "glu", "none"] = "gelu"
    """Feed-forward net after each attention layer."""
    expand: int = 2
    """Hidden units of the feed-forward net, in multiples of width."""
    positions: Literal["resonance", "rope", "none"] = "resonance"
    """Rotary positions with integer wavelengths, with real frequencies, or none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands and of cached keys and values."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, kv_heads=self.kv_heads)
        require_positive(window=self.window, expand=self.expand)
        require_choice("positions", self.positions, POSITIONS)
        require_choice("ffn", self.ffn, FEED_FORWARDS)
        require_multiple("heads", self.heads, "kv_heads", self.kv_heads)
        rotary = self.positions != "none"
        unit = 2 * self.heads if rotary else self.heads
        require_multiple("width", self.width, "2 * heads" if rotary else "heads", unit)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, attention, residual, norm, feed-forward, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = SlidingWindowAttention(self.width, self.heads, self.kv_heads, self.window, self.positions, dtype)
        mixers: list[SequenceModel] = [layer.clone() for _ in range(self.layers)]
        return stack_of(mixers, features=self.width, ffn=self.ffn, expand=self.expand, dtype=dtype)
