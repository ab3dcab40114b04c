"""S5: a diagonal state space with HiPPO initialisation, the headline linear-time memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import lecun_normal, normal

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
from jaxrl_seq.ops import DISCRETIZATIONS, discretize, hippo_n
from jaxrl_seq.ops.linear_recurrence import IMPLS, Impl

Array = jax.Array


class S5(DiagonalStateSpace):
    """Simplified state space layer (Smith et al. 2023, arXiv:2208.04933), resettable as in Lu et al. 2023.

    `state` real numbers of state N are kept as P = N/2 complex ones, pairs (re, im); of each conjugate couple one is
    stored, so y = 2 Re(C h) + D x. A half-GLU (gelu, then a sigmoid gate) follows.
    Carry: (re[B, P], im[B, P]) float32.
    """

    blocks: int = 1
    discretization: str = "zoh"
    dt_min: float = 0.001
    dt_max: float = 0.1

    def setup(self) -> None:
        half, width = self.state // 2, self.features
        self.log_decay = self.param("log_decay", init_log_decay, (half,), jnp.float32)
        self.frequency = self.param("frequency", _init_frequency(self.state, self.blocks), (half,), jnp.float32)
        self.log_dt = self.param("log_dt", init_log_dt(self.dt_min, self.dt_max), (half,), jnp.float32)
        self.w_in = self.param("w_in", _init_input(self.state, self.blocks), (2, width, half), jnp.float32)
        self.w_out = self.param("w_out", _init_output(self.state, self.blocks), (2, half, width), jnp.float32)
        self.skip = self.param("skip", normal(1.0), (width,), jnp.float32)
        self.gate = Linear(width, dtype=self.dtype)

    def _discrete(self) -> tuple[Pair, Pair]:
        decay, gain = discretize(self.discretization, -jnp.exp(self.log_decay), self.frequency, jnp.exp(self.log_dt))
        re, im = self.w_in[0], self.w_in[1]
        return decay, (re * gain[0] - im * gain[1], re * gain[1] + im * gain[0])


def init_log_decay(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """HiPPO-N has real part -1/2 everywhere; stored as log(1/2) and used as -exp, so it never turns positive."""
    return jnp.full(shape, np.log(0.5), dtype)


def _init_frequency(state: int, blocks: int):
    def init(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
        return jnp.asarray(np.tile(hippo_n(state // blocks).im, blocks), dtype)

    return init


def init_log_dt(dt_min: float, dt_max: float):
    def init(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, np.log(dt_min), np.log(dt_max))

    return init


def _basis(state: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (re, im)[N, P] of the block-diagonal HiPPO matrix."""
    one = hippo_n(state // blocks)
    eye = np.eye(blocks)
    return np.kron(eye, one.basis_re), np.kron(eye, one.basis_im)


def _init_input(state: int, blocks: int):
    """Random real B[D, N] seen from the eigenbasis: B conj(V)."""

    def init(key: Array, shape: tuple[int, int, int], dtype: Any = jnp.float32) -> Array:
        re, im = _basis(state, blocks)
        b = lecun_normal()(key, (shape[1], state), dtype)
        return jnp.stack([b @ re.astype(dtype), -(b @ im.astype(dtype))])

    return init


def _init_output(state: int, blocks: int):
    """Random real C[N, D] seen from the eigenbasis: V^T C."""

    def init(key: Array, shape: tuple[int, int, int], dtype: Any = jnp.float32) -> Array:
        re, im = _basis(state, blocks)
        c = lecun_normal()(key, (state, shape[2]), dtype)
        return jnp.stack([re.T.astype(dtype) @ c, im.T.astype(dtype) @ c])

    return init


@register_model("s5")
@dataclass(frozen=True)
class S5Config:
    """S5 state-space layers: parallel in time when training, one multiply-add a layer when acting."""

    width: int = 64
    """Width of the residual stream, and output features."""
    layers: int = 1
    """S5 layers."""
    state: int = 64
    """Real state numbers a layer and environment (half as many complex ones); even."""
    blocks: int = 1
    """HiPPO blocks the state is split in at initialisation; more blocks mean lower top frequencies."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """Zero-order hold or bilinear (Tustin)."""
    dt_min: float = 0.001
    """Smallest initial time step; about 1/dt_min steps of memory."""
    dt_max: float = 0.1
    """Largest initial time step."""
    impl: Impl = "auto"
    """How the recurrence runs in training: as measured, sequential, in log-depth, or in chunks side by side."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix-product operands; states and decays stay float32."""

    def __post_init__(self) -> None:
        require_positive(width=self.width, layers=self.layers, state=self.state, blocks=self.blocks)
        require_positive(dt_min=self.dt_min)
        require_multiple("state", self.state, "2 * blocks", 2 * self.blocks)
        require_choice("discretization", self.discretization, DISCRETIZATIONS)
        if self.dt_max < self.dt_min:
            raise ValueError(f"dt_max={self.dt_max} must be at least dt_min={self.dt_min}")
        require_choice("impl", self.impl, IMPLS)
        operand_dtype(self.dtype)

    def build(self) -> SequenceStack:
        """The stack: norm, S5 with half-GLU, residual, a layer; output normalised."""
        dtype = operand_dtype(self.dtype)
        layer = S5(
            self.width,
            self.state,
            dtype,
            self.impl,
            blocks=self.blocks,
            discretization=self.discretization,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
        )
        return stack_of([layer.clone() for _ in range(self.layers)], features=self.width, dtype=dtype)
