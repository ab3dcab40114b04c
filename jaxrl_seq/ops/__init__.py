"""Sequence mathematics: pure functions, arrays in, arrays out, no parameters and no flax."""

from jaxrl_seq.ops.attention import (
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
from jaxrl_seq.ops.discretization import DISCRETIZATIONS, HippoN, bilinear, discretize, hippo_n, zoh
from jaxrl_seq.ops.gru import GRUWeights, gru, gru_step
from jaxrl_seq.ops.linear_recurrence import linear_recurrence, linear_recurrence_step, multiply
from jaxrl_seq.ops.precision import as_float, float_type, matmul
from jaxrl_seq.ops.rotary import geometric_angles, integer_angles, integer_wavelengths, rotate
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

__all__ = [
    "DISCRETIZATIONS",
    "GRUWeights",
    "HippoN",
    "WindowCache",
    "as_float",
    "bilinear",
    "cache_after",
    "cache_write",
    "cached_attention",
    "carry_axes",
    "discretize",
    "empty_cache",
    "episode_position",
    "extend_cache",
    "float_type",
    "geometric_angles",
    "gru",
    "gru_step",
    "hippo_n",
    "integer_angles",
    "integer_wavelengths",
    "is_clock",
    "key_start",
    "last_reset_index",
    "linear_recurrence",
    "linear_recurrence_step",
    "matmul",
    "multiply",
    "rotate",
    "segment_ids",
    "set_clocks",
    "steps_since_reset",
    "take_envs",
    "where_reset",
    "windowed_attention",
    "zoh",
]
