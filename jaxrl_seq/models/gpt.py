"""Full-context transformer for offline sequence modelling, acting from a cache or by reading its context anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_seq.models.attention import TransformerConfig
from jaxrl_seq.models.base import Carry, SequenceModel, require_width
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_positive
from jaxrl_seq.models.stack import SequenceStack
from jaxrl_seq.ops import episode_position, float_type

Array = jax.Array
Inference = Literal["cache", "window"]
INFERENCES: tuple[str, ...] = get_args(Inference)


class ContextWindow(SequenceModel):
    """y[t] of any model run afresh on the latest K inputs of the episode: the protocol of the Decision Transformer.

    A cache of K steps sees further back, since deeper layers remember what their inputs saw; reading K raw inputs
    anew does not. It costs a pass over K steps for every step, in training too: O(T K) steps, T B sequences wide.
    Carry: the last K - 1 inputs [B, K-1, D] float32 and the position of the next one in its episode, int32[B].
    """

    features: int
    model: SequenceModel
    context: int

    def __call__(self, carry: tuple[Array, Array], x: Array, reset: Array) -> tuple[Carry, Array]:
        require_width(self, x, self.features)
        history, age = carry
        steps, batch = reset.shape
        position = episode_position(reset, age)
        line = jnp.concatenate([history.swapaxes(0, 1).astype(x.dtype), x])
        windows = jnp.stack([line[k : k + steps] for k in range(self.context)])  # [K, T, B, D]
        first = self.context - 1 - jnp.minimum(position, self.context - 1)  # of the episode, in each window
        index = jnp.arange(self.context, dtype=jnp.int32)[:, None, None]
        windows = jnp.where((index >= first)[..., None], windows, jnp.zeros_like(windows))
        flat = (self.context, steps * batch)
        fresh = _as_wide_as(x, self.model.initialize_carry((steps * batch,)))
        _, y = self.model(fresh, windows.reshape(*flat, -1), (index <= first).reshape(flat))
        kept = line[steps:].swapaxes(0, 1).astype(history.dtype)
        return (kept, position[-1] + 1), y[-1].reshape(steps, batch, -1)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> tuple[Array, Array]:
        inputs = jnp.zeros((*batch, self.context - 1, self.features), jnp.float32)
        return inputs, jnp.zeros(batch, jnp.int32)


def _as_wide_as(x: Array, carry: Carry) -> Carry:
    """States in float64 where x is (the checkers use that); caches in bfloat16 stay."""
    return jax.tree.map(lambda leaf: leaf.astype(float_type(x)) if leaf.dtype == jnp.float32 else leaf, carry)


@register_model("gpt")
@dataclass(frozen=True)
class GPTConfig:
    """Causal transformer over a fixed context (Radford et al. 2019), the backbone of Decision Transformers."""

    width: int = 64
    """Width of the residual stream, and output features; a multiple of 2 * heads."""
    layers: int = 3
    """Attention layers, each followed by a feed-forward net."""
    heads: int = 4
    """Attention heads, each with its own keys and values."""
    context: int = 64
    """Steps it reads."""
    inference: Inference = "cache"
    """Keep keys and values, or read the last `context` inputs anew at every step (slow, and the published protocol)."""
    expand: int = 4
    """Hidden units of the feed-forward net, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands and of cached keys and values."""

    def __post_init__(self) -> None:
        require_positive(context=self.context)
        require_choice("inference", self.inference, INFERENCES)
        self._transformer()  # checks the other numbers

    def _transformer(self) -> TransformerConfig:
        return TransformerConfig(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.heads,
            window=self.context,
            ffn="gelu",
            expand=self.expand,
            dtype=self.dtype,
        )

    def build(self) -> SequenceStack:
        """The stack of the transformer's blocks, or one block that reads its context anew through that stack."""
        transformer = self._transformer().build()
        if self.inference == "cache":
            return transformer
        block: Any = ContextWindow(self.width, transformer, self.context)
        return SequenceStack(self.width, (block,), operand_dtype(self.dtype))
