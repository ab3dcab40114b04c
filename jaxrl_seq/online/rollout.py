"""T steps of B environments under one policy: the only place where acting, resets and memory meet."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.distributions import to_env
from jaxrl_seq.envs.core.batching import apply_if_any
from jaxrl_seq.envs.core.vector import Inputs, Outcome, VecEnv, VecState, episode_sums
from jaxrl_seq.types import Array, Metrics, PyTree


@struct.dataclass
class Trajectory:
    """One rollout, [T, B, ...] each unless said."""

    inputs: Inputs
    action: Array
    """As the policy made it (before scaling and clipping into a Box)."""
    log_prob: Array
    value: Array
    reward: Array
    terminated: Array
    truncated: Array
    final_value: Array
    """V of the observation that a truncated step led to, seen with the memory of that episode; 0 elsewhere."""
    last_value: Array
    """[B]: V of the observation after the last step."""
    carry: PyTree
    """The memory before the first step: the only one that is kept."""


@struct.dataclass
class Acting:
    """The part of a learner's state that moves while acting."""

    env: VecState
    carry: PyTree


def start_acting(env: VecEnv, agent: ActorCritic, key: Array, env_params: PyTree) -> Acting:
    """All environments freshly reset, all memories empty. The key is consumed."""
    return Acting(env=env.reset(key, env_params), carry=agent.initialize_carry((env.num_envs,)))


def rollout(
    env: VecEnv, agent: ActorCritic, params: PyTree, acting: Acting, key: Array, env_params: PyTree, num_steps: int
) -> tuple[Acting, tuple[Trajectory, Metrics]]:
    """Act for `num_steps` steps; returns where acting stands, the trajectory, and sums over finished episodes.

    The key is consumed.
    """
    keys = jax.random.split(key, (num_steps + 1, 2))
    acting = Acting(env=env.refill(keys[-1, 0], acting.env, env_params), carry=acting.carry)
    start = acting.carry

    def one_step(acting: Acting, keys: Array) -> tuple[Acting, tuple[dict[str, PyTree], Metrics]]:
        act_key, env_key = keys
        inputs = acting.env.inputs
        carry, decision = agent.recurrent(params, acting.carry, inputs, inputs.first)
        policy = agent.policy(decision, inputs)
        action = policy.sample(act_key)
        vec, outcome = env.step(env_key, acting.env, to_env(agent.action_space, action), env_params)
        seen = dict(
            inputs=inputs,
            action=action,
            log_prob=policy.log_prob(action),
            value=decision.value,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            final_value=final_values(env, agent, params, carry, outcome),
        )
        sums = episode_sums(outcome) | {"overflow": outcome.overflow.astype(jnp.float32)}
        return Acting(env=vec, carry=carry), (seen, sums)

    acting, (seen, sums) = jax.lax.scan(one_step, acting, keys[:-1])
    inputs = acting.env.inputs
    last = agent.recurrent(params, acting.carry, inputs, inputs.first)[1].value
    trajectory = Trajectory(**seen, last_value=last, carry=start)
    return acting, (trajectory, jax.tree.map(jnp.sum, sums))


def final_values(env: VecEnv, agent: ActorCritic, params: PyTree, carry: PyTree, outcome: Outcome) -> Array:
    """V(final observation) [B] where an episode was truncated, else 0.

    Read with the memory as it stood before the reset. The extra pass is a branch taken only when some episode was cut,
    and is not even compiled for environments whose clock is part of the task.
    """
    none = jnp.zeros_like(outcome.reward)
    if env.env.time_limit == "terminal":
        return none

    def evaluate(none: Array, params: PyTree, carry: PyTree, final: Inputs, truncated: Array) -> Array:
        value = agent.recurrent(params, carry, final, jnp.zeros_like(truncated))[1].value
        return jnp.where(truncated, value, none)

    return apply_if_any(jnp.any(outcome.truncated), evaluate, none, params, carry, outcome.final, outcome.truncated)
