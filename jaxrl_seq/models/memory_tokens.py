"""Recurrent memory tokens: attention within segments, and a few vectors that carry what mattered across them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal
from jax import lax

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import FEED_FORWARDS, FeedForwardKind, Linear, RMSNorm
from jaxrl_seq.models.registry import (
    operand_dtype,
    register_model,
    require_choice,
    require_multiple,
    require_positive,
)
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import alibi_slopes, float_type, last_reset_index

Array = jax.Array


class MemoryCarry(NamedTuple):
    """The running segment of L steps and the memory that it began with."""

    memory: Array  # [B, M, D]
    keys: Array  # [B, N, L, H]
    values: Array  # [B, N, L, H]
    start: Array  # [B] int32, slot of the segment at which the episode began; -1: in an earlier segment
    clock: Array  # [] int32, steps taken; the segment's slot is clock mod L


class MemoryAttention(SequenceModel):
    """A layer of attention over the running segment and M memory tokens, which the segment's end rewrites.

    After the Recurrent Memory Transformer (Bulatov et al. 2022, arXiv:2207.06881) and RATE (Cherepanov et al. 2023,
    arXiv:2306.09459), with a memory of its own for every layer: at the end of a segment of L steps the tokens attend
    to themselves and to the segment, and are replaced by norm(token + what they read). An episode that begins inside a
    segment sees the learned initial tokens instead. Positions are ALiBi slopes over the distance.
    Carry: `MemoryCarry`, 4 (M D + 2 L D + 1) bytes an environment.
    """

    features: int
    heads: int = 4
    segment: int = 32
    memory: int = 4
    dtype: Any = None

    def setup(self) -> None:
        self.qkv = Linear(3 * self.features, use_bias=False, dtype=self.dtype)
        self.out = Linear(self.features, use_bias=False, dtype=self.dtype)
        self.norm = RMSNorm(self.features)
        self.initial = self.param("initial", normal(1.0), (self.memory, self.features), jnp.float32)

    def _split(self, x: Array) -> tuple[Array, Array, Array]:
        """x[B, S, D] -> q, k, v [B, N, S, H]."""
        y = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)
        q, k, v = (y[:, :, i].swapaxes(1, 2) for i in range(3))
        return q, k, v

    def _tokens(self, memory: Array, fresh: Array) -> Array:
        """memory[B, M, D], or the initial tokens where the episode is younger than the segment: fresh[B]."""
        initial = jnp.broadcast_to(self.initial.astype(memory.dtype), memory.shape)
        return jnp.where(fresh[:, None, None], initial, memory)

    def _attend(self, q: Array, old: Array, keys: Array, values: Array, start: Array, slot: Array) -> Array:
        """q[B, N, C, H] at `slot`[C] of the segment, in episodes that begin at start[B, C] -> [B, C, D].

        old[B, M, D]: tokens of the episode that runs since an earlier segment. keys, values [B, N, L, H].
        """
        batch, _, count, size = q.shape
        _, k_old, v_old = self._split(old)
        _, *new = self._split(self.initial[None].astype(old.dtype))
        k_new, v_new = (jnp.broadcast_to(x, k_old.shape) for x in new)
        index = jnp.arange(self.segment, dtype=jnp.int32)
        fresh = (start >= 0)[..., None]
        tokens = jnp.broadcast_to(fresh, (batch, count, self.memory))
        mask = jnp.concatenate([~tokens, tokens, (index >= start[..., None]) & (index <= slot[:, None])], axis=-1)
        k, v = jnp.concatenate([k_old, k_new, keys], axis=2), jnp.concatenate([v_old, v_new, values], axis=2)
        scores = jnp.einsum("bnch,bnsh->bncs", q * size**-0.5, k, preferred_element_type=float_type(q))
        slopes = jnp.asarray(alibi_slopes(self.heads), scores.dtype)[:, None, None]
        distance = jnp.pad(slot[:, None] - index, ((0, 0), (2 * self.memory, 0))).astype(scores.dtype)
        scores = jnp.where(mask[:, None], scores - slopes * distance, 0.5 * jnp.finfo(scores.dtype).min)
        y = jnp.einsum("bncs,bnsh->bcnh", nn.softmax(scores).astype(v.dtype), v, preferred_element_type=float_type(q))
        return self.out(y.reshape(batch, count, self.features))

    def _at_end(self, memory: Array, start: Array) -> tuple[Array, Array, Array, Array]:
        """Tokens[B, M, D] that rewrite themselves after a whole segment whose last episode began at start[B], and
        what `_attend` must know of them: q[B, N, M, H], start[B, M], slot[M]."""
        tokens = self._tokens(memory, start >= 0)
        start = jnp.broadcast_to(start[:, None], tokens.shape[:2])
        return tokens, self._split(tokens)[0], start, jnp.full((self.memory,), self.segment - 1, jnp.int32)

    def _rewrite(self, memory: Array, keys: Array, values: Array, start: Array) -> Array:
        """The memory after a whole segment whose last episode began at start[B]."""
        tokens, q, start, slot = self._at_end(memory, start)
        return self.norm(tokens + self._attend(q, memory, keys, values, start, slot))

    def __call__(self, carry: MemoryCarry, x: Array, reset: Array) -> tuple[MemoryCarry, Array]:
        require_width(self, x, self.features)
        steps, length = x.shape[0], self.segment
        offset = jnp.remainder(carry.clock, length)
        count = -(-(steps - 1) // length) + 2  # segments that the chunk may touch, and one that may be begun
        carry = self._without_unseen(carry, reset[0])
        q, k, v = self._split(x.swapaxes(0, 1))
        last = last_reset_index(reset).T
        start = jnp.where(last >= 0, last + offset, carry.start[:, None])  # [B, T] in slots since the first segment

        def line(old: Array, new: Array, axis: int) -> Array:
            """The chunk behind the slots already taken, cut in segments [S, ..., L, ...]."""
            shape = list(new.shape)
            shape[axis] = count * length
            whole = lax.dynamic_update_slice_in_dim(jnp.zeros(shape, new.dtype), old.astype(new.dtype), 0, axis)
            whole = lax.dynamic_update_slice_in_dim(whole, new, offset, axis)
            parts = whole.reshape(*shape[:axis], count, length, *shape[axis + 1 :])
            return jnp.moveaxis(parts, axis, 0)

        parts = (
            line(jnp.zeros_like(carry.keys), q, 2),
            line(carry.keys, k, 2),
            line(carry.values, v, 2),
            line(jnp.broadcast_to(carry.start[:, None], (x.shape[1], length)), start, 1),
            jnp.arange(count, dtype=jnp.int32),
        )

        def segment(state: Any, part: Any) -> Any:
            memory, kept = state
            q, k, v, start, number = part
            begun = _in_segment(start, number, length)
            tokens, q_tokens, start_tokens, slot_tokens = self._at_end(memory, begun[:, -1])
            # steps and tokens ask together: half as many products to compile as apart
            q = jnp.concatenate([q, q_tokens.astype(q.dtype)], axis=2)
            begun = jnp.concatenate([begun, start_tokens], axis=1)
            slot = jnp.concatenate([jnp.arange(length, dtype=jnp.int32), slot_tokens])
            y, read = jnp.split(self._attend(q, memory, k, v, begun, slot), [length], axis=1)
            whole = (number + 1) * length <= offset + steps
            running = number == (offset + steps) // length
            kept = jax.tree.map(lambda new, old: jnp.where(running, new, old), (k, v), kept)
            return (jnp.where(whole, self.norm(tokens + read), memory), kept), y

        if self.is_initializing():
            # no parameter may be made inside the scan
            self._rewrite(carry.memory, carry.keys, carry.values, carry.start)
        empty = (jnp.zeros_like(parts[1][0]), jnp.zeros_like(parts[2][0]))
        memory = carry.memory.astype(float_type(x))
        (memory, (keys, values)), y = lax.scan(segment, (memory, empty), parts)
        y = y.swapaxes(0, 1).reshape(x.shape[1], count * length, -1)
        y = lax.dynamic_slice_in_dim(y, offset, steps, 1).swapaxes(0, 1)
        begun = _in_segment(start[:, -1], (offset + steps) // length, length)
        after = (memory.astype(carry.memory.dtype), keys.astype(carry.keys.dtype), values.astype(carry.values.dtype))
        return self._tidy(MemoryCarry(*after, begun, carry.clock + steps)), y

    def step(self, carry: MemoryCarry, x: Array, reset: Array) -> tuple[MemoryCarry, Array]:
        slot = jnp.remainder(carry.clock, self.segment)
        carry = self._without_unseen(carry, reset)
        start = jnp.where(reset, slot, carry.start)
        q, k, v = self._split(x[:, None])
        keys = lax.dynamic_update_slice_in_dim(carry.keys, k.astype(carry.keys.dtype), slot, 2)
        values = lax.dynamic_update_slice_in_dim(carry.values, v.astype(carry.values.dtype), slot, 2)
        y = self._attend(q, carry.memory, keys, values, start[:, None], slot[None])[:, 0]
        ends = slot == self.segment - 1
        # a real branch, also under a vmap over seeds, since the clock is shared
        memory = lax.cond(
            ends,
            lambda: self._rewrite(carry.memory, keys, values, start).astype(carry.memory.dtype),
            lambda: carry.memory,
        )
        return self._tidy(MemoryCarry(memory, keys, values, jnp.where(ends, -1, start), carry.clock + 1)), y

    def _without_unseen(self, carry: MemoryCarry, reset: Array) -> MemoryCarry:
        """Zeros where a reset[B] at the first step hides what was carried: it may be nan."""

        def clear(x: Array) -> Array:
            return jnp.where(reset.reshape(-1, *[1] * (x.ndim - 1)), jnp.zeros_like(x), x)

        return carry._replace(memory=clear(carry.memory), keys=clear(carry.keys), values=clear(carry.values))

    def _tidy(self, carry: MemoryCarry) -> MemoryCarry:
        """Zeros wherever the running episode has nothing, so that equal pasts leave equal carries."""
        index = jnp.arange(self.segment, dtype=jnp.int32)
        used = (index >= carry.start[:, None]) & (index < jnp.remainder(carry.clock, self.segment))
        keys, values = (jnp.where(used[:, None, :, None], x, jnp.zeros_like(x)) for x in (carry.keys, carry.values))
        memory = jnp.where((carry.start >= 0)[:, None, None], jnp.zeros_like(carry.memory), carry.memory)
        return carry._replace(memory=memory, keys=keys, values=values)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> MemoryCarry:
        head_dim = self.features // self.heads
        segment = jnp.zeros((*batch, self.heads, self.segment, head_dim), self.dtype or jnp.float32)
        memory = jnp.zeros((*batch, self.memory, self.features), jnp.float32)
        return MemoryCarry(memory, segment, segment, jnp.zeros(batch, jnp.int32), jnp.zeros((), jnp.int32))


def _in_segment(start: Array, number: Array, length: int) -> Array:
    """Slots counted from the first segment -> slots of segment `number`; -1 if the episode began in an earlier one."""
    return jnp.where(start < 0, -1, jnp.maximum(start - number * length, -1))


@register_model("rmt")
@dataclass(frozen=True)
class RecurrentMemoryConfig:
    """Attention within segments and memory tokens across them: unbounded reach at the price of a short window."""

    width: int = 64
    """Width of the residual stream, and output features; a multiple of heads."""
    layers: int = 2
    """Attention layers with memory, each followed by a feed-forward net."""
    heads: int = 4
    """Attention heads."""
    segment: int = 32
    """Steps of a segment; a power of two, so that segments stay aligned when the clock wraps."""
    memory: int = 4
    """Memory tokens a layer."""
    ffn: FeedForwardKind | Literal["none"] = "gelu"
    """Feed-forward net after each attention layer."""
    expand: int = 2
    """Hidden units of the feed-forward net, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands and of cached keys and values."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, heads=self.heads, expand=self.expand)
        require_positive(segment=self.segment, memory=self.memory)
        require_multiple("width", self.width, "heads", self.heads)
        require_choice("ffn", self.ffn, (*FEED_FORWARDS, "none"))
        if self.segment & (self.segment - 1):
            below = 1 << (self.segment.bit_length() - 1)
            raise ValueError(f"segment={self.segment} must be a power of two; nearest: {below} or {2 * below}")
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, attention with memory, residual, norm, net, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = MemoryAttention(self.width, self.heads, self.segment, self.memory, dtype)
        mixers: list[SequenceModel] = [layer.clone() for _ in range(self.layers)]
        return stack_of(mixers, features=self.width, ffn=self.ffn, expand=self.expand, dtype=dtype)
