"""Many environments at once, and the one place where episodes are reset."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.envs.core.batching import apply_if_any, where_rows
from jaxrl_seq.envs.core.checking import check_actions, check_structure
from jaxrl_seq.envs.core.protocol import Env, stacked_params
from jaxrl_seq.envs.core.timestep import TimeStep

Array = jax.Array
PyTree = Any
ResetPolicy = Literal["auto", "sync", "select", "pool", "none"]


@struct.dataclass
class Inputs:
    """All that an agent may look at before it acts, `[B, ...]` each (`[T, B, ...]` in a trajectory)."""

    obs: PyTree
    prev_action: Array
    """The action before this observation; zero where `first`."""
    prev_reward: Array
    """float32: the reward that action brought; zero where `first`."""
    first: Array
    """bool: this observation opens an episode, so memory is forgotten before it is read."""
    action_mask: Array | None = None


@struct.dataclass
class Pool:
    """Reset states made ahead of need and handed out by ticket."""

    state: PyTree  # [M, ...]
    timestep: TimeStep  # [M, ...]
    used: Array  # int32 []: tickets handed out since the last refill


@struct.dataclass
class VecState:
    """B environments between two steps."""

    env: PyTree
    inputs: Inputs
    """What the agent acts on next."""
    episode_return: Array  # float32 [B], of the running episode
    episode_length: Array  # int32 [B]
    pool: Pool | None = None


@struct.dataclass
class Outcome:
    """What the last actions brought, `[B]` each. A new episode, if one began, is in `VecState.inputs`."""

    reward: Array
    terminated: Array
    truncated: Array
    final: Inputs
    """The observation the actions led to, before any reset: where a truncated episode is bootstrapped."""
    episode_return: Array
    """float32: return of the episode so far, this reward included; final where done."""
    episode_length: Array
    """int32: its steps so far."""
    info: dict[str, Array]
    cost: Array | None
    overflow: Array
    """int32 []: resets in this step that reused a pooled state because the pool had run dry."""

    @property
    def done(self) -> Array:
        return self.terminated | self.truncated


def episode_sums(outcome: Outcome) -> dict[str, Array]:
    """Sums over the episodes that ended in this step, float32 [] each: divide by `episodes` on the host.

    Sums and counts, because a mean over "no episode ended yet" is not a number.
    """
    done = outcome.done

    def total(x: Array) -> Array:
        return jnp.sum(jnp.where(done, x, 0).astype(jnp.float32))

    sums = {
        "episodes": total(jnp.ones_like(outcome.reward)),
        "return_sum": total(outcome.episode_return),
        "length_sum": total(outcome.episode_length),
    }
    if "success" in outcome.info:
        sums["success_sum"] = total(outcome.info["success"])
    return sums


@dataclass(frozen=True)
class VecEnv:
    """`num_envs` copies of `env`, stepped together; finished episodes are replaced by new ones at once.

    Reset policies (all exact: each new episode comes from a key of its own):

    * `"sync"`: one real branch, taken when any episode ended. Free for fixed-length episodes, which end together.
    * `"select"`: a reset at every step, kept where needed. For cheap resets.
    * `"pool"`: `pool_size` resets made ahead by `refill` (the learner calls it before each rollout) and handed out by
      ticket. For expensive resets. A pool run dry starts over, which `Outcome.overflow` counts.
    * `"none"`: never; evaluation and adapters use it.
    * `"auto"`: sync for fixed-length episodes; otherwise select if a reset costs under 0.3 of a step, else pool.

    Keys: `reset(key)` opens environment i with `split(key, B)[i]` (with "pool" the second half of
    `split(key)` makes the pool and the first half the environments); `refill(key)` makes its M resets from
    `split(key, M)`.

    Environment parameters may carry a leading `[num_envs]` axis on any leaf: one value per environment.
    """

    env: Env
    num_envs: int
    reset_policy: ResetPolicy = "auto"
    pool_size: int | None = None
    """Resets made ahead for "pool"; default 2 * num_envs."""

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {self.num_envs}.")
        known = ("auto", "sync", "select", "pool", "none")
        if self.reset_policy not in known:
            raise ValueError(f"Unknown reset policy {self.reset_policy!r}; known: {', '.join(known)}.")
        if self.reset_policy == "auto":
            object.__setattr__(self, "reset_policy", _best_policy(self.env))

    def reset(self, key: Array, params: PyTree) -> VecState:
        """All environments at the start of an episode. The key is consumed."""
        check_structure(self.env, self._one(params))
        pool = None
        if self.reset_policy == "pool":
            key, pool_key = jax.random.split(key)
            pool = self._fill(pool_key, params)
        state, timestep = self._reset_all(key, params)
        action = jax.eval_shape(self._sample_actions, key)  # its shape only: the key is spent
        return VecState(
            env=state,
            inputs=Inputs(
                obs=timestep.obs,
                prev_action=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), action),
                prev_reward=timestep.reward,
                first=timestep.first,
                action_mask=timestep.action_mask,
            ),
            episode_return=jnp.zeros(self.num_envs, jnp.float32),
            episode_length=jnp.zeros(self.num_envs, jnp.int32),
            pool=pool,
        )

    def refill(self, key: Array, state: VecState, params: PyTree) -> VecState:
        """Make a fresh pool ("pool" only; otherwise the state comes back as it is). The key is consumed."""
        return state if state.pool is None else replace(state, pool=self._fill(key, params))

    def step(self, key: Array, state: VecState, action: Array, params: PyTree) -> tuple[VecState, Outcome]:
        """Act in every environment (`action` [B, ...]), then reset those that finished. The key is consumed.

        Environment i steps with `split(key, B)[i]`; new episodes come from `split(fold_in(key, B), B)`.
        """
        check_actions(self.env, self.num_envs, action)
        keys = jax.random.split(key, self.num_envs)
        axes = stacked_params(self.env, params, self.num_envs)
        env_state, timestep = jax.vmap(self.env.step, in_axes=(0, 0, 0, axes))(keys, state.env, action, params)

        final = Inputs(timestep.obs, action, timestep.reward, timestep.first, timestep.action_mask)
        episode_return = state.episode_return + timestep.reward
        episode_length = state.episode_length + 1
        env_state, opened, pool, overflow = self._replace_finished(key, env_state, timestep, state.pool, params)
        new = opened.first
        outcome = Outcome(
            reward=timestep.reward,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            final=final,
            episode_return=episode_return,
            episode_length=episode_length,
            info=timestep.info,
            cost=timestep.cost,
            overflow=overflow,
        )
        inputs = Inputs(
            obs=opened.obs,
            prev_action=where_rows(new, jax.tree.map(jnp.zeros_like, action), action),
            prev_reward=jnp.where(new, 0.0, timestep.reward),
            first=new,
            action_mask=opened.action_mask,
        )
        state = VecState(
            env=env_state,
            inputs=inputs,
            episode_return=jnp.where(new, 0.0, episode_return),
            episode_length=jnp.where(new, 0, episode_length),
            pool=pool,
        )
        return state, outcome

    # --- resets ---------------------------------------------------------------------------------------------
    def _replace_finished(
        self, key: Array, env_state: PyTree, timestep: TimeStep, pool: Pool | None, params: PyTree
    ) -> tuple[PyTree, TimeStep, Pool | None, Array]:
        done, none_left = timestep.done, jnp.int32(0)
        old = (env_state, timestep)
        if self.reset_policy == "none":
            return *old, pool, none_left
        if self.reset_policy == "pool":
            assert pool is not None
            size = pool.timestep.first.shape[0]
            ticket = pool.used + jnp.cumsum(done, dtype=jnp.int32) - 1
            fresh = jax.tree.map(lambda x: x[ticket % size], (pool.state, pool.timestep))
            used = pool.used + jnp.sum(done, dtype=jnp.int32)
            overflow = jnp.maximum(used - jnp.maximum(pool.used, size), 0)
            return *where_rows(done, fresh, old), replace(pool, used=used), overflow
        if self.reset_policy == "select":
            return *where_rows(done, self._fresh(key, params), old), pool, none_left

        def reset_done(old: PyTree, key: Array, params: PyTree) -> PyTree:
            return where_rows(old[1].done, self._fresh(key, params), old)

        return *apply_if_any(jnp.any(done), reset_done, old, key, params), pool, none_left

    def _fresh(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        """Resets with a step's own key: folding in B gives a key that no environment stepped with."""
        return self._reset_all(jax.random.fold_in(key, self.num_envs), params)

    def _reset_all(self, key: Array, params: PyTree) -> tuple[PyTree, TimeStep]:
        axes = stacked_params(self.env, params, self.num_envs)
        return jax.vmap(self.env.reset, in_axes=(0, axes))(jax.random.split(key, self.num_envs), params)

    def _fill(self, key: Array, params: PyTree) -> Pool:
        if any(axis == 0 for axis in jax.tree.leaves(stacked_params(self.env, params, self.num_envs))):
            raise ValueError(
                f"{self.env.name}: a reset pool is shared by all environments, so params cannot differ "
                'per environment; use reset_policy="select" or "sync".'
            )
        size = self.pool_size or 2 * self.num_envs
        state, timestep = jax.vmap(self.env.reset, in_axes=(0, None))(jax.random.split(key, size), params)
        return Pool(state=state, timestep=timestep, used=jnp.int32(0))

    def _one(self, params: PyTree) -> PyTree:
        """The params of one environment, as shapes."""
        axes = stacked_params(self.env, params, self.num_envs)

        def first(x: Array, axis: int | None) -> Array:
            return x if axis is None else x[0]

        return jax.eval_shape(lambda p: jax.tree.map(first, p, axes, is_leaf=lambda x: x is None), params)

    def _sample_actions(self, key: Array) -> Array:
        return jax.vmap(self.env.action_space().sample)(jax.random.split(key, self.num_envs))


@functools.lru_cache(maxsize=256)
def _best_policy(env: Env) -> ResetPolicy:
    """The policy that "auto" stands for, decided by XLA's own count of operations."""
    if env.fixed_length:
        return "sync"
    key, params = jax.random.key(0), env.default_params()
    state, action = jax.eval_shape(env.reset, key, params)[0], jax.eval_shape(env.action_space().sample, key)

    def flops(fn: Any, *args: Any) -> float:
        cost = jax.jit(fn).lower(*args).cost_analysis() or {}
        return float(cost.get("flops", 0.0)) if isinstance(cost, dict) else 0.0

    reset, step = flops(env.reset, key, params), flops(env.step, key, state, action, params)
    return "select" if 0 < reset < 0.3 * step else "pool"
