"""Evaluation: every target, in the same episodes, in one compiled call."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxrl_seq.envs import Env, VecEnv
from jaxrl_seq.envs.core.vector import Outcome
from jaxrl_seq.offline.policy import Policy
from jaxrl_seq.online.evaluate import Episodes, Recording, film_episodes, play_episodes
from jaxrl_seq.online.rollout import Acting
from jaxrl_seq.types import Array, PyTree


def evaluate_policy(
    policy: Policy, env: Env, key: Array, env_params: PyTree, *, num_envs: int, groups: int, episodes: int
) -> Episodes:
    """`episodes` episodes in each of G groups of B = `num_envs` environments, [G, B, E]. The key is consumed.

    The policy has a row for each, G B in all, group after group, such as the targets that it is asked for. All groups
    meet the same environments with the same chance (common random numbers), so that differences are the targets' own.
    """
    vec = VecEnv(env, num_envs, "sync" if env.fixed_length else "select")
    reset_key, key = jax.random.split(key)
    fresh = vec.reset(reset_key, env_params)
    opened = jax.tree.map(lambda x: jnp.concatenate([x] * groups), fresh)
    start = Acting(env=opened, carry=policy.init(opened.inputs))

    def cut(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x.reshape(groups, num_envs, *x.shape[1:]), tree)

    def step(acting: Acting, key: Array) -> tuple[Acting, Outcome]:
        act_key, env_key = jax.random.split(key)
        memory, action = policy.act(act_key, acting.carry, acting.env.inputs)
        stepped = jax.vmap(vec.step, in_axes=(None, 0, 0, None))(env_key, cut(acting.env), cut(action), env_params)
        overflow, stepped = stepped[1].overflow, (stepped[0], replace(stepped[1], overflow=()))
        state, outcome = jax.tree.map(lambda x: x.reshape(groups * num_envs, *x.shape[2:]), stepped)
        outcome = replace(outcome, overflow=jnp.sum(overflow))
        return Acting(env=state, carry=policy.observe(memory, action, outcome)), outcome

    return cut(play_episodes(env, start, step, key, episodes=episodes))


def film_policy(
    policy: Policy, env: Env, key: Array, env_params: PyTree, *, num_envs: int, max_steps: int
) -> Recording:
    """The first episode of `num_envs` environments. The key is consumed."""
    vec = VecEnv(env, num_envs, "none")
    reset_key, key = jax.random.split(key)
    state = vec.reset(reset_key, env_params)

    def step(acting: Acting, key: Array) -> tuple[Acting, Outcome]:
        act_key, env_key = jax.random.split(key)
        memory, action = policy.act(act_key, acting.carry, acting.env.inputs)
        state, outcome = vec.step(env_key, acting.env, action, env_params)
        return Acting(env=state, carry=policy.observe(memory, action, outcome)), outcome

    start = Acting(env=state, carry=policy.init(state.inputs))
    return film_episodes(env, start, step, key, max_steps=max_steps)


def target_curve(episodes: Episodes, shares: tuple[float, ...], targets: Array) -> dict[str, Array]:
    """Float32 scalars of episodes [G, B, E] that asked for `targets` [G]: `target_at_50` and `return_at_50` for the
    share 0.5, and so on, and `target_error`, the mean distance of the two over shares of 1 at most."""
    achieved = jax.vmap(lambda group: group.means()["return_mean"])(episodes)
    names = [f"at_{round(100 * share)}" for share in shares]
    asked = {f"target_{name}": targets[i] for i, name in enumerate(names)}
    came = {f"return_{name}": achieved[i] for i, name in enumerate(names)}
    inside = jnp.array([share <= 1 for share in shares])
    return asked | came | {"target_error": jnp.mean(jnp.abs(achieved - targets), where=inside)}
