"""Returns and advantages of one sequence [T]; batch them with `jax.vmap`."""

import jax
import jax.numpy as jnp

from jaxrl_seq.types import Array


def next_values(value: Array, truncated: Array, final_value: Array, last_value: Array) -> Array:
    """The value of where each action led, before any reset, [T].

    `value[t+1]` inside an episode, `final_value[t]` where a time limit cut it, `last_value` [] at the rollout's end.
    """
    following = jnp.concatenate([value[1:], last_value[None]])
    return jnp.where(truncated, final_value, following)


def generalized_advantage(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    gamma: Array | float,
    lam: Array | float,
) -> Array:
    """Generalised advantage estimates [T] (Schulman et al. 2016, eq. 16).

    delta_t = r_t + gamma (1 - terminated_t) next_value_t - value_t; the sum over later deltas stops where an episode
    ends for either reason. `reward[t]`, `terminated[t]` and `truncated[t]` are outcomes of the action taken at t.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = gamma * lam * jnp.where(terminated | truncated, 0.0, 1.0)

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, decay = step
        advantage = delta + decay * later
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros((), delta.dtype), (delta, decay), reverse=True)[1]
