"""What one environment step hands to the agent and the learner."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
PyTree = Any


@struct.dataclass
class TimeStep:
    """One environment's outcome of a reset or a step (no batch axis; VecEnv adds `[B]`).

    A dataclass, so that a new field never breaks an existing caller. `terminated` (the task ended) and
    `truncated` (a time limit cut it) are never merged, because only the first makes the future worth zero.
    """

    obs: PyTree
    """What the agent sees: arrays of fixed structure, shape and dtype."""
    reward: Array
    """float32 []: reward of the action just taken; 0 at a reset."""
    terminated: Array
    """bool []: the episode ended because the task did; no value lies beyond."""
    truncated: Array
    """bool []: the episode was cut by a time limit; its value is bootstrapped from this `obs`."""
    first: Array
    """bool []: this `obs` opens an episode (set by reset, cleared by step)."""
    action_mask: Array | None = None
    """bool [A]: legal actions, or None where all are."""
    cost: Array | None = None
    """float32 [C]: constraint signals, or None."""
    info: dict[str, Array] = struct.field(default_factory=dict)
    """Extra scalars with the same keys in reset and step. `success` (bool) is averaged over episode ends."""

    @property
    def done(self) -> Array:
        """bool []: the episode is over, for either reason."""
        return self.terminated | self.truncated


def opening(obs: PyTree, **fields: Any) -> TimeStep:
    """The TimeStep of a reset: `first` is set, everything else is zero. `fields` adds mask, cost or info."""
    no = jnp.zeros((), bool)
    return TimeStep(obs=obs, reward=jnp.zeros((), jnp.float32), terminated=no, truncated=no, first=~no, **fields)


def transition(obs: PyTree, reward: Any, terminated: Any = False, truncated: Any = False, **fields: Any) -> TimeStep:
    """The TimeStep of a step, with flags and reward cast to their declared dtypes.

    A step that does both is a termination: nothing is left to bootstrap.
    """
    terminated = jnp.asarray(terminated, bool)
    return TimeStep(
        obs=obs,
        reward=jnp.asarray(reward, jnp.float32),
        terminated=terminated,
        truncated=jnp.asarray(truncated, bool) & ~terminated,
        first=jnp.zeros((), bool),
        **fields,
    )
