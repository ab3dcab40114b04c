"""Parts that stacks are made of: linear layers, feed-forward nets, residual blocks. Pointwise in T and B."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import lecun_normal
from jax import lax

from jaxrl_seq.models.base import Carry, SequenceModel
from jaxrl_seq.ops import matmul

Array = jax.Array
ACTIVATIONS = {"gelu": nn.gelu, "relu": nn.relu, "silu": nn.silu, "tanh": jnp.tanh}
FEED_FORWARDS = ("gelu", "relu", "silu", "tanh", "glu", "none")


class Linear(nn.Module):
    """x[..., D] @ kernel + bias with operands in `dtype` and a float32 result."""

    features: int
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Any = lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = matmul(x, kernel, self.dtype)
        if not self.use_bias:
            return y
        return y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis of width `features` (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    features: int
    epsilon: float = 1e-6

    def setup(self) -> None:
        self.scale = self.param("scale", nn.initializers.ones, (self.features,), jnp.float32)

    def __call__(self, x: Array) -> Array:
        power = jnp.mean(x * x, axis=-1, keepdims=True)
        return x * (lax.rsqrt(power + self.epsilon) * self.scale)


class FeedForward(nn.Module):
    """Two-layer net: Linear, activation, Linear; kind "glu" gates with silu (Shazeer 2020, arXiv:2002.05202)."""

    features: int
    hidden: int
    kind: str = "gelu"
    dtype: Any = None

    def setup(self) -> None:
        gated = self.kind == "glu"
        self.widen = Linear((2 if gated else 1) * self.hidden, dtype=self.dtype)
        self.narrow = Linear(self.features, dtype=self.dtype)

    def __call__(self, x: Array) -> Array:
        x = self.widen(x)
        if self.kind == "glu":
            value, gate = jnp.split(x, 2, axis=-1)
            return self.narrow(value * nn.silu(gate))
        return self.narrow(ACTIVATIONS[self.kind](x))


class MixerBlock(SequenceModel):
    """x + mixer(norm(x)): the carry is the mixer's."""

    features: int
    mixer: SequenceModel

    def setup(self) -> None:
        self.norm = RMSNorm(self.features)

    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, y = self.mixer(carry, self.norm(x), reset)
        return carry, x + y

    def step(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, y = self.mixer.step(carry, self.norm(x), reset)
        return carry, x + y

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Carry:
        return self.mixer.initialize_carry(batch)


class FeedForwardBlock(SequenceModel):
    """x + net(norm(x)): no memory, both views are the same code."""

    features: int
    net: nn.Module

    @property
    def has_memory(self) -> bool:
        return False

    def setup(self) -> None:
        self.norm = RMSNorm(self.features)

    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        return carry, x + self.net(self.norm(x))

    def step(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        return self(carry, x, reset)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Carry:
        return ()
