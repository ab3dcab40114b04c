"""mLSTM: the parallel half of xLSTM, a matrix memory with exponential input gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import normal

from jaxrl_seq.models.blocks import Linear
from jaxrl_seq.models.linear_attention import MatrixMemory, MatrixMemoryConfig, split_heads
from jaxrl_seq.models.registry import register_model
from jaxrl_seq.models.stack import SequenceStack
from jaxrl_seq.ops import MLSTMState, empty_mlstm, mlstm, mlstm_step

Array = jax.Array


class MLSTM(MatrixMemory):
    """Matrix LSTM (Beck et al. 2024, arXiv:2405.04517): each head decides how much to keep and how hard to write.

    Carry: `MLSTMState` (memory[B, N, H, H + 1], scale[B, N]) float32.
    """

    def setup(self) -> None:
        super().setup()
        self.gates = Linear(2 * self.heads, use_bias=False, dtype=self.dtype, kernel_init=normal(0.02))
        self.gates_bias = self.param("gates_bias", _gate_bias, (2 * self.heads,), jnp.float32)

    def _inputs(self, x: Array) -> tuple[tuple[Array, ...], Array]:
        q, k, v, gate = split_heads(self.project(x), self.heads, 4)
        enter, forget = jnp.split(self.gates(x) + self.gates_bias, 2, axis=-1)
        k = k / np.sqrt(k.shape[-1]).astype(k.dtype)
        return (q, k, v, nn.log_sigmoid(forget), enter), gate.reshape(x.shape)

    def _attend(self, inputs: tuple[Array, ...], state: MLSTMState, reset: Array) -> tuple[Array, MLSTMState]:
        q, k, v, log_forget, log_input = inputs
        return mlstm(q, k, v, log_forget, log_input, state, reset)

    def _attend_step(self, inputs: tuple[Array, ...], state: MLSTMState, reset: Array) -> tuple[Array, MLSTMState]:
        q, k, v, log_forget, log_input = inputs
        return mlstm_step(q, k, v, log_forget, log_input, state, reset)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> MLSTMState:
        head_dim = self.features // self.heads
        return empty_mlstm(batch, self.heads, head_dim, head_dim)


def _gate_bias(key: Array, shape: tuple[int], dtype: Any = jnp.float32) -> Array:
    """-5 for the input gates, 3 to 6 over the heads to forget: memories of about 20 to 400 steps.

    With faint writes the normaliser starts at its floor of 1 (Beck et al. 2025, arXiv:2503.13427, who take -10). With
    writes of weight 1 it is often the sum of keys of either sign that happen to cancel, and gradients are large.
    """
    heads = shape[0] // 2
    return jnp.concatenate([jnp.full(heads, -5, dtype), jnp.linspace(3, 6, heads, dtype=dtype)])


@register_model("mlstm")
@dataclass(frozen=True)
class MLSTMConfig(MatrixMemoryConfig):
    """xLSTM's parallel block: a gated matrix memory whose important inputs can outweigh all that came before."""

    def build(self) -> SequenceStack:
        """The stack: norm, mLSTM, residual, norm, feed-forward, residual, a layer; output normalised."""
        return self._stack(MLSTM)
