"""A memoryless net: the control that shows what memory is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxrl_seq.models.blocks import FEED_FORWARDS, FeedForwardBlock, FeedForwardKind, feed_forward
from jaxrl_seq.models.registry import operand_dtype, register_model, require_choice, require_positive
from jaxrl_seq.models.stack import SequenceStack


@register_model("mlp")
@dataclass(frozen=True)
class MLPConfig:
    """Residual feed-forward net that sees one step at a time; its carry is `()`."""

    width: int = 64
    """Output features."""
    layers: int = 2
    """Residual feed-forward blocks."""
    ffn: FeedForwardKind = "gelu"
    """Activation, "glu" for a gated net, "moe" for the best two of four experts."""
    expand: int = 2
    """Hidden units of a block, in multiples of width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, expand=self.expand)
        require_choice("ffn", self.ffn, FEED_FORWARDS)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack of feed-forward blocks; output normalised."""
        dtype = operand_dtype(self.dtype)
        hidden = self.expand * self.width
        nets = [feed_forward(self.ffn, self.width, hidden, dtype) for _ in range(self.layers)]
        return SequenceStack(self.width, tuple(FeedForwardBlock(self.width, net) for net in nets), dtype)
