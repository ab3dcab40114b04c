"""Checks of an environment inside `VecEnv`, under each reset policy, and of its tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs.checking.probe import LONGEST, Probe, first_difference
from jaxrl_seq.envs.checking.report import EnvCheckError
from jaxrl_seq.envs.checking.transforms import ROUNDING
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.vector import Outcome, VecEnv, VecState

NUM = 3
POLICIES = ("sync", "select", "pool")
TASKS = 64


def resets(probe: Probe) -> str:
    """Where an episode ended, VecEnv goes on with exactly the reset of the documented key, under every policy; what it
    reports belongs to the episode that ended, and nothing of that leaks into the new one."""
    if probe.env.horizon > LONGEST:
        return f"episodes of {probe.env.horizon} steps are too long to be played to their end"
    before, key, actions = _before_an_end(probe)
    opening_key = probe.some_key(42)
    # one program for all policies: most of the time of this check is compilation
    raw, outcomes, fresh = jax.jit(_step_under_every_policy, static_argnums=0)(
        probe.env, before, key, actions, opening_key, probe.params
    )
    raw, outcomes, fresh = jax.device_get((raw, outcomes, fresh))
    state, timestep = raw
    for policy, (after, outcome) in outcomes.items():
        _outcome_is_the_ended_episodes(policy, outcome, timestep)
        _new_episodes_are_resets(policy, after, (state, timestep), fresh["pool" if policy == "pool" else "key"])
    return ""


def _step_under_every_policy(
    env: Env, before: VecState, key: Any, actions: Any, opening_key: Any, params: Any
) -> tuple[Any, dict[str, tuple[VecState, Outcome]], dict[str, Any]]:
    """(the plain step, policy -> VecEnv's step, the resets that the policies promise, by plain calls)."""
    raw = jax.vmap(env.step, in_axes=(0, 0, 0, None))(jax.random.split(key, NUM), before.env, actions, params)
    outcomes = {}
    for policy in POLICIES:
        venv = VecEnv(env, NUM, policy, pool_size=NUM)
        pool = venv.reset(opening_key, params).pool if policy == "pool" else None
        outcomes[policy] = venv.step(key, replace(before, pool=pool), actions, params)
    reset = jax.vmap(env.reset, in_axes=(0, None))
    fresh = {
        "key": reset(jax.random.split(jax.random.fold_in(key, NUM), NUM), params),
        "pool": reset(jax.random.split(jax.random.split(opening_key)[1], NUM), params),
    }
    return raw, outcomes, fresh


def _new_episodes_are_resets(policy: str, after: VecState, raw: tuple[Any, Any], fresh: Any) -> None:
    done = raw[1].done
    for i in range(NUM):
        # tickets are handed out in order; the other policies reset every lane by its own key
        ticket = int(done[:i].sum()) if policy == "pool" else i
        state, timestep = _row(fresh, ticket) if done[i] else _row(raw, i)
        found = _row((after.env, after.inputs.obs, after.inputs.first), i)
        difference = first_difference(found, (state, timestep.obs, timestep.first), ROUNDING)
        if difference:
            raise EnvCheckError(
                f"VecEnv(reset_policy={policy!r}), environment {i} ({'reset' if done[i] else 'going on'}): "
                f"{difference}, expected the second. Make reset and step functions of their arguments only."
            )
    if np.any(after.inputs.first != done):
        raise EnvCheckError(
            f"VecEnv(reset_policy={policy!r}): first is {after.inputs.first} after ends {done}; expected the same. "
            "Build the TimeSteps with `opening` and `transition`."
        )


def tasks(probe: Probe) -> str:
    """Tasks are drawn by the key, `reset` is `reset_to` of a drawn task, and `tasks` lists every one once."""
    env = probe.env
    if not env.has("sample_task"):
        return "no tasks"
    keys = jax.random.split(probe.some_key(50), TASKS)
    drawn = jax.jit(jax.vmap(env.sample_task, in_axes=(0, None)))(keys, probe.params)
    if len(_distinct(drawn)) < 2:
        raise EnvCheckError(f"sample_task gives the same task for {TASKS} keys; expected draws. Use the key.")

    @jax.jit
    @jax.vmap
    def opened(key: Any) -> Any:
        task_key, opening_key = jax.random.split(key)
        task = env.sample_task(task_key, probe.params)
        return env.reset(key, probe.params), env.reset_to(opening_key, task, probe.params)

    reset, reset_to = opened(keys[:8])
    difference = first_difference(reset, reset_to, ROUNDING)
    if difference:
        raise EnvCheckError(f"reset and reset_to(sample_task) differ: {difference}. Inherit reset from TaskEnv.")
    if env.has("tasks"):
        listed = _distinct(env.tasks(probe.params))
        number = jax.tree.leaves(env.tasks(probe.params))[0].shape[0]
        if len(listed) != number or not _distinct(drawn) <= listed:
            raise EnvCheckError(
                f"tasks() lists {number} of which {len(listed)} differ, and misses {len(_distinct(drawn) - listed)} "
                "that are drawn; expected each once and all."
            )
    return ""


def _before_an_end(probe: Probe) -> tuple[VecState, Any, Any]:
    """The state, key and actions of the first step of random play that ends an episode."""
    venv = VecEnv(probe.env, NUM, "none")

    def inputs(key: Any, t: Any) -> tuple[Any, Any]:
        act_key, step_key = jax.random.split(jax.random.fold_in(key, t))
        return jax.vmap(probe.env.action_space().sample)(jax.random.split(act_key, NUM)), step_key

    @jax.jit
    def play(reset_key: Any, key: Any) -> tuple[VecState, Any]:
        def step(carry: Any) -> Any:
            state, t, _ = carry
            actions, step_key = inputs(key, t)
            following, outcome = venv.step(step_key, state, actions, probe.params)
            over = outcome.done.any()
            kept = jax.tree.map(lambda a, b: jnp.where(over, a, b), state, following)
            return kept, jnp.where(over, t, t + 1), over

        def going_on(carry: Any) -> Any:
            return ~carry[2] & (carry[1] < probe.env.horizon)

        state = venv.reset(reset_key, probe.params)
        return jax.lax.while_loop(going_on, step, (state, jnp.int32(0), jnp.zeros((), bool)))[:2]

    key = probe.some_key(41)
    before, t = play(probe.some_key(40), key)
    return before, *jax.jit(inputs)(key, t)[::-1]


def _outcome_is_the_ended_episodes(policy: str, outcome: Outcome, timestep: Any) -> None:
    found = (outcome.reward, outcome.terminated, outcome.truncated, outcome.final.obs, outcome.info)
    expected = (timestep.reward, timestep.terminated, timestep.truncated, timestep.obs, timestep.info)
    difference = first_difference(found, expected, ROUNDING)
    if difference:
        raise EnvCheckError(
            f"VecEnv(reset_policy={policy!r}): the outcome is not the step's own: {difference}. "
            "Leave resetting to VecEnv."
        )


def _row(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def _distinct(stacked: Any) -> set[bytes]:
    """The different rows of a tree of arrays [G, ...], as bytes."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(stacked)]
    return {b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))}
