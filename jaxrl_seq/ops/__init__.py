"""Sequence mathematics: pure functions, arrays in, arrays out, no parameters and no flax."""

from jaxrl_seq.ops.attention import (
    SOFTMAX,
    Relative,
    Weighing,
    WindowCache,
    cache_after,
    cache_write,
    cached_attention,
    empty_cache,
    episode_position,
    extend_cache,
    key_start,
    windowed_attention,
)
from jaxrl_seq.ops.convolution import causal_conv1d, causal_conv1d_step
from jaxrl_seq.ops.delta_rule import gated_delta_rule, gated_delta_rule_step
from jaxrl_seq.ops.discretization import DISCRETIZATIONS, HippoN, bilinear, discretize, hippo_n, zoh
from jaxrl_seq.ops.gated_linear_attention import gated_linear_attention, gated_linear_attention_step
from jaxrl_seq.ops.gru import GRUWeights, gru, gru_step
from jaxrl_seq.ops.linear_attention import chunked_linear_attention, linear_attention_step
from jaxrl_seq.ops.linear_recurrence import linear_recurrence, linear_recurrence_step, multiply
from jaxrl_seq.ops.lstm import LSTMState, LSTMWeights, lstm, lstm_step
from jaxrl_seq.ops.mlstm import MLSTMState, empty_mlstm, mlstm, mlstm_step
from jaxrl_seq.ops.precision import as_float, float_type, matmul
from jaxrl_seq.ops.rotary import (
    alibi_slopes,
    geometric_angles,
    integer_angles,
    integer_wavelengths,
    rotate,
    sinusoids,
)
from jaxrl_seq.ops.segments import (
    carry_axes,
    is_clock,
    last_reset_index,
    segment_ids,
    set_clocks,
    steps_since_reset,
    take_envs,
    where_reset,
)
from jaxrl_seq.ops.slstm import SLSTMState, SLSTMWeights, block_diagonal, empty_slstm, slstm, slstm_step
from jaxrl_seq.ops.state_space import state_space, state_space_step

__all__ = [
    "DISCRETIZATIONS",
    "SOFTMAX",
    "GRUWeights",
    "HippoN",
    "LSTMState",
    "LSTMWeights",
    "Relative",
    "MLSTMState",
    "SLSTMState",
    "SLSTMWeights",
    "Weighing",
    "WindowCache",
    "alibi_slopes",
    "as_float",
    "bilinear",
    "block_diagonal",
    "cache_after",
    "cache_write",
    "cached_attention",
    "carry_axes",
    "causal_conv1d",
    "causal_conv1d_step",
    "chunked_linear_attention",
    "discretize",
    "empty_cache",
    "empty_mlstm",
    "empty_slstm",
    "episode_position",
    "extend_cache",
    "float_type",
    "gated_delta_rule",
    "gated_delta_rule_step",
    "gated_linear_attention",
    "gated_linear_attention_step",
    "geometric_angles",
    "gru",
    "gru_step",
    "hippo_n",
    "integer_angles",
    "integer_wavelengths",
    "is_clock",
    "key_start",
    "last_reset_index",
    "linear_attention_step",
    "linear_recurrence",
    "linear_recurrence_step",
    "lstm",
    "lstm_step",
    "matmul",
    "mlstm",
    "mlstm_step",
    "multiply",
    "rotate",
    "segment_ids",
    "set_clocks",
    "sinusoids",
    "slstm",
    "slstm_step",
    "state_space",
    "state_space_step",
    "steps_since_reset",
    "take_envs",
    "where_reset",
    "windowed_attention",
    "zoh",
]
