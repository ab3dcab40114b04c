"""LRU: a diagonal linear recurrence whose decays start on a ring just inside the unit circle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.linen.initializers import normal

from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.diagonal import DiagonalStateSpace, Pair
from jaxrl_seq.models.registry import (
    operand_dtype,
    register_model,
    require_choice,
    require_multiple,
    require_positive,
)
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.ops.linear_recurrence import IMPLS, Impl

Array = jax.Array


class LRU(DiagonalStateSpace):
    """Linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349), a discrete state space without time step.

    Decay a = exp(-exp(nu) + i exp(theta)), always inside the unit circle; inputs are scaled by sqrt(1 - |a|^2), so that
    long and short memories have states of like size. Carry: (re[B, P], im[B, P]) float32, P = state / 2.
    """

    r_min: float = 0.9
    r_max: float = 0.999
    max_phase: float = 6.28

    def setup(self) -> None:
        half, width = self.state // 2, self.features
        self.nu = self.param("nu", _init_ring(self.r_min, self.r_max), (half,), jnp.float32)
        self.theta = self.param("theta", _init_phase(self.max_phase), (half,), jnp.float32)
        self.w_in = self.param("w_in", normal((2 * width) ** -0.5), (2, width, half), jnp.float32)
        self.w_out = self.param("w_out", normal(0.5 * half**-0.5), (2, half, width), jnp.float32)
        self.skip = self.param("skip", normal(1.0), (width,), jnp.float32)
        self.gate = Linear(width, dtype=self.dtype)

    def _discrete(self) -> tuple[Pair, Pair]:
        rate, phase = jnp.exp(self.nu), jnp.exp(self.theta)
        size = jnp.exp(-rate)
        gain = jnp.sqrt(-jnp.expm1(-2 * rate))  # of 1 - size^2 float32 keeps nothing when the memory is long
        return (size * jnp.cos(phase), size * jnp.sin(phase)), (gain * self.w_in[0], gain * self.w_in[1])


def _init_ring(r_min: float, r_max: float):
    """|a| uniform by area between two radii, as nu = log(-log |a|)."""

    def init(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
        square = jax.random.uniform(key, shape, dtype, r_min**2, r_max**2)
        return jnp.log(-0.5 * jnp.log(square))

    return init


def _init_phase(max_phase: float):
    """Angles uniform between 0 and max_phase, as their logarithm (0 itself left out)."""

    def init(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
        return jnp.log(jax.random.uniform(key, shape, dtype, 1e-3 * max_phase, max_phase))

    return init


@register_model("lru")
@dataclass(frozen=True)
class LRUConfig:
    """Linear recurrent unit: as cheap as S5, its span of memory set by two radii instead of by time steps."""

    width: int = 64
    """Width of the residual stream, and output features."""
    layers: int = 1
    """LRU layers."""
    state: int = 64
    """Real state numbers a layer and environment (half as many complex ones); even."""
    r_min: float = 0.9
    """Smallest initial |decay|, above 0; about 1 / (1 - r) steps of memory."""
    r_max: float = 0.999
    """Largest initial |decay|, below 1."""
    max_phase: float = 6.28
    """Largest initial angle a step, in radians; pi / 10 for very long memories."""
    impl: Impl = "auto"
    """How the recurrence runs in training: as measured, sequential, in log-depth, or in chunks side by side."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and decays stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, state=self.state, max_phase=self.max_phase)
        require_multiple("state", self.state, "numbers in a pair", 2)
        if not 0 < self.r_min < self.r_max < 1:
            raise ValueError(f"radii need 0 < r_min < r_max < 1, got r_min={self.r_min}, r_max={self.r_max}")
        require_choice("impl", self.impl, IMPLS)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, LRU with half-GLU, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = LRU(
            self.width, self.state, dtype, self.impl, r_min=self.r_min, r_max=self.r_max, max_phase=self.max_phase
        )
        return stack_of([layer.clone() for _ in range(self.layers)], features=self.width, dtype=dtype)
