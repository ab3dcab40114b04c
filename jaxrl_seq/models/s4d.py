"""S4D: a diagonal state space of its own for every channel, trained as a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import normal

from jaxrl_seq.models.base import SequenceModel, require_width
from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.registry import (
    operand_dtype,
    register_model,
    require_choice,
    require_multiple,
    require_positive,
)
from jaxrl_seq.models.s5 import init_log_decay, init_log_dt
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops import DISCRETIZATIONS, discretize, multiply, state_space, state_space_step
from jaxrl_seq.ops.state_space import SPACE_IMPLS, SpaceImpl

Array = jax.Array
Pair = tuple[Array, Array]


class S4D(SequenceModel):
    """Diagonal S4 (Gu et al. 2022, arXiv:2206.11893) with the S4D-Lin spectrum: real part -1/2, frequencies pi n.

    Each of D channels has `state` numbers, P = state / 2 complex ones, and a time step of its own; B is one, since only
    its product with C counts. After the convolution a gelu and a GLU mix the channels.
    Carry: (re, im)[B, D, P] float32.
    """

    features: int
    state: int = 32
    discretization: str = "zoh"
    dt_min: float = 0.001
    dt_max: float = 0.1
    dtype: Any = None
    impl: SpaceImpl = "convolution"

    def setup(self) -> None:
        shape = (self.features, self.state // 2)
        self.log_decay = self.param("log_decay", init_log_decay, shape, jnp.float32)
        self.frequency = self.param("frequency", _init_frequency, shape, jnp.float32)
        self.log_dt = self.param("log_dt", init_log_dt(self.dt_min, self.dt_max), (self.features, 1), jnp.float32)
        self.c = self.param("c", normal(0.5**0.5), (2, *shape), jnp.float32)
        self.skip = self.param("skip", normal(1.0), (self.features,), jnp.float32)
        self.mix = Linear(2 * self.features, dtype=self.dtype)

    def _discrete(self) -> tuple[Pair, Pair]:
        """Decay and output weights, both (re, im)[D, P]; the input gain is in the latter."""
        dt = jnp.exp(self.log_dt)
        decay, gain = discretize(self.discretization, -jnp.exp(self.log_decay), self.frequency, dt)
        return decay, multiply(gain, (self.c[0], self.c[1]))

    def _read(self, y: Array, x: Array) -> Array:
        value, gate = jnp.split(self.mix(nn.gelu(y + self.skip * x)), 2, axis=-1)
        return value * nn.sigmoid(gate)

    def __call__(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        require_width(self, x, self.features)
        carry, y = state_space(*self._discrete(), x, carry, reset, impl=self.impl)
        return carry, self._read(y, x)

    def step(self, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
        carry, y = state_space_step(*self._discrete(), x, carry, reset)
        return carry, self._read(y, x)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Pair:
        shape = (*batch, self.features, self.state // 2)
        return jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32)


def _init_frequency(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    return jnp.broadcast_to(np.pi * jnp.arange(shape[1], dtype=dtype), shape)


@register_model("s4d")
@dataclass(frozen=True)
class S4DConfig:
    """Diagonal S4: many more states than S5 at the same width, so longer memories and dearer acting."""

    width: int = 64
    """Width of the residual stream, and output features."""
    layers: int = 1
    """S4D layers."""
    state: int = 32
    """Real state numbers of each channel (half as many complex ones); even."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """Zero-order hold or bilinear (Tustin)."""
    dt_min: float = 0.001
    """Smallest initial time step; about 1/dt_min steps of memory."""
    dt_max: float = 0.1
    """Largest initial time step."""
    impl: SpaceImpl = "convolution"
    """How training runs: lags within chunks and states between them, or every state stored."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and decays stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, state=self.state, dt_min=self.dt_min)
        require_multiple("state", self.state, "numbers in a pair", 2)
        require_choice("discretization", self.discretization, DISCRETIZATIONS)
        if self.dt_max < self.dt_min:
            raise ValueError(f"dt_max={self.dt_max} must be at least dt_min={self.dt_min}")
        require_choice("impl", self.impl, SPACE_IMPLS)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, S4D with GLU, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = S4D(self.width, self.state, self.discretization, self.dt_min, self.dt_max, dtype, self.impl)
        return stack_of([layer.clone() for _ in range(self.layers)], features=self.width, dtype=dtype)
