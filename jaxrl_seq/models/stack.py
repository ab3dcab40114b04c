"""Blocks on top of one another: the shape of every model in the registry."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxrl_seq.models.base import Carry, SequenceModel, require_inputs
from jaxrl_seq.models.blocks import BlockKind, FeedForwardBlock, Linear, MixerBlock, RMSNorm, feed_forward
from jaxrl_seq.ops import float_type

Array = jax.Array


class SequenceStack(SequenceModel):
    """Project the input to `features` unless it has that width, run the blocks in order, normalise.

    Carry: a tuple with the carry of each block that has memory; `()` for a memoryless stack.
    Any input width D works and need not be known before the first call.
    """

    features: int
    blocks: tuple[SequenceModel, ...]
    dtype: Any = None
    label: str = "custom"
    """What reports call the model; `make_model` puts the registered name here."""

    @property
    def has_memory(self) -> bool:
        return any(block.has_memory for block in self.blocks)

    def setup(self) -> None:
        self.embed = Linear(self.features, dtype=self.dtype)
        self.norm = RMSNorm(self.features)

    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        require_inputs(self, carry, x, reset, "T, B")
        return self._run(carry, x, reset, "__call__")

    def step(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        require_inputs(self, carry, x, reset, "B")
        return self._run(carry, x, reset, "step")

    def _run(self, carry: Carry, x: Array, reset: Array, view: str) -> tuple[Carry, Array]:
        x = x.astype(float_type(self.norm.scale))  # the parameters decide, whatever type observations come in
        if x.shape[-1] != self.features:
            x = self.embed(x)
        old, new = iter(carry), []
        for block in self.blocks:
            memory = next(old) if block.has_memory else ()
            memory, x = getattr(block, view)(memory, x, reset)
            new += [memory] if block.has_memory else []
        return tuple(new), self.norm(x)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Carry:
        return tuple(block.initialize_carry(batch) for block in self.blocks if block.has_memory)


def stack_of(
    mixers: list[SequenceModel],
    *,
    features: int,
    ffn: str = "none",
    expand: int = 2,
    dtype: Any = None,
    block: BlockKind = "pre_norm",
) -> SequenceStack:
    """Residual stack: each mixer, followed by a feed-forward net of `expand * features` unless ffn="none"."""
    blocks: list[SequenceModel] = []
    for mixer in mixers:
        blocks.append(MixerBlock(features, mixer, block, dtype))
        if ffn != "none":
            net = feed_forward(ffn, features, expand * features, dtype)
            blocks.append(FeedForwardBlock(features, net, block, dtype))
    return SequenceStack(features, tuple(blocks), dtype)
