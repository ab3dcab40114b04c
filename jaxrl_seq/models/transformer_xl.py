"""Transformer-XL and GTrXL: relative attention over a cache, in its first block and in the one made for RL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxrl_seq.models.attention import TransformerConfig
from jaxrl_seq.models.blocks import BlockKind
from jaxrl_seq.models.registry import register_model
from jaxrl_seq.models.stack import SequenceStack


@register_model("transformer_xl")
@dataclass(frozen=True)
class TransformerXLConfig:
    """Relative positions, post-norm blocks (Dai et al. 2019): the baseline that gates were invented for."""

    block: ClassVar[BlockKind] = "post_norm"

    width: int = 64
    """Width of the residual stream, and output features; a multiple of heads."""
    layers: int = 2
    """Attention layers, each followed by a ReLU net."""
    heads: int = 4
    """Attention heads, each with its own keys and values."""
    window: int = 128
    """Steps a layer sees, itself included; depth extends the reach to about layers * window."""
    expand: int = 4
    """Hidden units of the feed-forward net, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands and of cached keys and values."""

    def __post_init__(self) -> None:
        self._transformer()  # checks the numbers

    def _transformer(self) -> TransformerConfig:
        return TransformerConfig(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.heads,
            window=self.window,
            ffn="relu",
            expand=self.expand,
            positions="relative",
            block=self.block,
            dtype=self.dtype,
        )

    def build(self) -> SequenceStack:
        """The stack of relative attention and ReLU nets, in blocks of this config's kind."""
        return self._transformer().build()


@register_model("gtrxl")
@dataclass(frozen=True)
class GTrXLConfig(TransformerXLConfig):
    """Gated Transformer-XL (Parisotto et al. 2019): norms off the main path and GRU gates make it trainable by RL."""

    block: ClassVar[BlockKind] = "gru_gated"
