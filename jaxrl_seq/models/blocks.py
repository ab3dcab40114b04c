"""Parts that stacks are made of: linear layers, feed-forward nets, residual blocks. Pointwise in T and B."""

from __future__ import annotations

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import lecun_normal
from jax import lax

from jaxrl_seq.models.base import Carry, SequenceModel
from jaxrl_seq.ops import matmul

Array = jax.Array
ACTIVATIONS = {
    "gelu": nn.gelu,
    "relu": nn.relu,
    "relu2": lambda x: jnp.square(nn.relu(x)),
    "silu": nn.silu,
    "tanh": jnp.tanh,
}
FeedForwardKind = Literal["gelu", "relu", "relu2", "silu", "tanh", "glu", "moe"]
FEED_FORWARDS: tuple[str, ...] = get_args(FeedForwardKind)
"""Activations of a two-layer net ("relu2": squared, Primer, So et al. 2021, arXiv:2109.08668), "glu": gated
(Shazeer 2020, arXiv:2002.05202), "moe": a mixture of experts."""


class Linear(nn.Module):
    """x[..., D] @ kernel + bias with operands in `dtype` and a float32 result."""

    features: int
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Any = lecun_normal()
    bias_init: Any = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = matmul(x, kernel, self.dtype)
        if not self.use_bias:
            return y
        return y + self.param("bias", self.bias_init, (self.features,), jnp.float32)


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
    """Two-layer net: Linear, activation or gate, Linear. kind: one of FEED_FORWARDS except "moe"."""

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


class MixtureOfExperts(nn.Module):
    """The best `top_k` of `experts` gelu nets for each step, weighted by the router's softmax over those.

    Shazeer et al. 2017 (arXiv:1701.06538), without capacity limits: what one environment is given never depends on the
    others in the batch. All experts are computed, in two products over `experts * hidden` units: for a handful of small
    experts that is faster than sorting steps by expert.
    """

    features: int
    hidden: int
    experts: int = 4
    top_k: int = 2
    dtype: Any = None

    def setup(self) -> None:
        self.router = Linear(self.experts, use_bias=False)
        self.widen = Linear(self.experts * self.hidden, dtype=self.dtype)
        self.narrow = Linear(self.features, dtype=self.dtype)

    def weights(self, x: Array) -> Array:
        """x[..., D] -> [..., experts], `top_k` of them above zero, adding up to one."""
        logits = self.router(x)
        chosen, index = lax.top_k(logits, self.top_k)
        taken = jax.nn.one_hot(index, self.experts, dtype=logits.dtype)
        return (nn.softmax(chosen)[..., None] * taken).sum(-2)

    def __call__(self, x: Array) -> Array:
        hidden = nn.gelu(self.widen(x)).reshape(*x.shape[:-1], self.experts, self.hidden)
        return self.narrow((hidden * self.weights(x)[..., None]).reshape(*x.shape[:-1], -1))


def feed_forward(kind: str, features: int, hidden: int, dtype: Any = None) -> nn.Module:
    """The net of that kind with `hidden` units (each expert has as many)."""
    if kind == "moe":
        return MixtureOfExperts(features, hidden, dtype=dtype)
    return FeedForward(features, hidden, kind, dtype)


class GRUGate(nn.Module):
    """A GRU cell as a residual connection: g(x, y) of stream x and branch y (Parisotto et al. 2019, arXiv:1910.06764).

    The update gate starts with bias -`shut`, nearly the identity on x: a policy is reactive before it remembers.
    """

    features: int
    shut: float = 2.0
    dtype: Any = None

    def setup(self) -> None:
        self.from_y = Linear(3 * self.features, use_bias=False, dtype=self.dtype)
        self.from_x = Linear(2 * self.features, use_bias=False, dtype=self.dtype)
        self.candidate = Linear(self.features, use_bias=False, dtype=self.dtype)
        self.bias = self.param("bias", nn.initializers.constant(self.shut), (self.features,), jnp.float32)

    def __call__(self, x: Array, y: Array) -> Array:
        y_r, y_z, y_h = jnp.split(self.from_y(y), 3, axis=-1)
        x_r, x_z = jnp.split(self.from_x(x), 2, axis=-1)
        r, z = nn.sigmoid(y_r + x_r), nn.sigmoid(y_z + x_z - self.bias)
        return x + z * (jnp.tanh(y_h + self.candidate(r * x)) - x)


BlockKind = Literal["pre_norm", "post_norm", "gru_gated"]
BLOCKS: tuple[str, ...] = get_args(BlockKind)


class Residual(nn.Module):
    """How a branch joins the stream. Not a layer by itself: blocks ask for the branch's input and hand back its output.

    pre_norm: x + branch(norm(x)). post_norm: norm(x + branch(x)), the first transformers. gru_gated: identity-map
    reordering with a gate, gate(x, relu(branch(norm(x)))), GTrXL.
    """

    features: int
    kind: str = "pre_norm"
    dtype: Any = None

    def setup(self) -> None:
        self.norm = RMSNorm(self.features)
        if self.kind == "gru_gated":
            self.gate = GRUGate(self.features, dtype=self.dtype)

    def enter(self, x: Array) -> Array:
        return x if self.kind == "post_norm" else self.norm(x)

    def join(self, x: Array, y: Array) -> Array:
        if self.kind == "gru_gated":
            return self.gate(x, nn.relu(y))
        return self.norm(x + y) if self.kind == "post_norm" else x + y


class MixerBlock(SequenceModel):
    """A mixer on the residual stream, x + mixer(norm(x)) or another kind of `Residual`; the carry is the mixer's."""

    features: int
    mixer: SequenceModel
    kind: str = "pre_norm"
    dtype: Any = None

    def setup(self) -> None:
        self.residual = Residual(self.features, self.kind, self.dtype)

    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, y = self.mixer(carry, self.residual.enter(x), reset)
        return carry, self.residual.join(x, y)

    def step(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        carry, y = self.mixer.step(carry, self.residual.enter(x), reset)
        return carry, self.residual.join(x, y)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Carry:
        return self.mixer.initialize_carry(batch)


class FeedForwardBlock(SequenceModel):
    """A feed-forward net on the residual stream: no memory, both views are the same code."""

    features: int
    net: nn.Module
    kind: str = "pre_norm"
    dtype: Any = None

    @property
    def has_memory(self) -> bool:
        return False

    def setup(self) -> None:
        self.residual = Residual(self.features, self.kind, self.dtype)

    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        return carry, self.residual.join(x, self.net(self.residual.enter(x)))

    def step(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        return self(carry, x, reset)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Carry:
        return ()
