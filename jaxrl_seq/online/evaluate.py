"""How good a policy is, over a fixed number of episodes in every environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.distributions import to_env
from jaxrl_seq.envs import Env
from jaxrl_seq.envs.core.vector import Outcome, VecEnv
from jaxrl_seq.online.rollout import Acting, start_acting
from jaxrl_seq.types import Array, Metrics, PyTree


@struct.dataclass
class Episodes:
    """E episodes in each of B environments, [B, E]; what was not `finished` by the step limit is zero."""

    returns: Array
    lengths: Array
    success: Array | None
    """float32, 0 or 1; None for an environment that does not report success."""
    finished: Array
    first_inner: Array | None = None
    """Return of the first episode inside a trial; None where episodes are no trials."""
    last_inner: Array | None = None
    """The same of the last one that ended inside it."""
    costs: Array | None = None
    """Sum of all costs of an episode; None for an environment without costs."""
    numbers: dict[str, Array] = struct.field(default_factory=dict)
    """Further results of the evaluation, float32 [] each, for the rows of a run."""

    def means(self) -> Metrics:
        """Float32 scalars: means over finished episodes (0 if there is none), and the share that is `unfinished`."""
        count = jnp.maximum(jnp.sum(self.finished), 1)
        return {
            "return_mean": jnp.sum(self.returns) / count,
            "length_mean": jnp.sum(self.lengths) / count,
            "unfinished": 1.0 - jnp.mean(self.finished),
        } | {
            name: jnp.sum(x) / count
            for name, x in (("success", self.success), ("cost_mean", self.costs))
            if x is not None
        }


@struct.dataclass
class _Progress:
    acting: Acting
    episodes: Episodes
    ended: Array  # int32 [B]: episodes finished so far
    inner: tuple[Array, Array] | None  # float32 [B] each: first and last return inside the running trial
    cost: Array | None  # float32 [B], of the running episode
    t: Array  # int32 []


def evaluate(
    env: VecEnv,
    agent: ActorCritic,
    params: PyTree,
    key: Array,
    env_params: PyTree,
    *,
    episodes: int = 1,
    greedy: bool = True,
    max_steps: int | None = None,
) -> Episodes:
    """Play `episodes` episodes in every environment, with the most likely or (`greedy=False`) with sampled actions.

    The same number per environment, because the first N to finish would favour short episodes. Stops after `max_steps`
    steps (default: episodes x horizon, which always suffices). Jittable, and can be vmapped over params. The key is
    consumed.
    """
    reset_key, key = jax.random.split(key)
    acting = start_acting(env, agent, reset_key, env_params)

    def step(acting: Acting, key: Array) -> tuple[Acting, Outcome]:
        return act(env, agent, params, acting, key, env_params, greedy)

    return play_episodes(env.env, acting, step, key, episodes=episodes, max_steps=max_steps)


Step = Callable[[Acting, Array], tuple[Acting, Outcome]]
"""Policy and environments move on by one step with a key of their own."""


def play_episodes(
    env: Env, acting: Acting, step: Step, key: Array, *, episodes: int, max_steps: int | None = None
) -> Episodes:
    """`evaluate` for whatever acts: `step` plays on from `acting`, B copies of `env` at their first observations."""
    num, limit = acting.env.episode_return.shape[0], max_steps or episodes * env.horizon
    blank = jnp.zeros((num, episodes), jnp.float32)
    shown = jax.eval_shape(env.reset, key, env.default_params())[1]
    success, inner = (blank if name in shown.info else None for name in ("success", "inner_return"))
    costs = None if shown.cost is None else blank
    start = _Progress(
        acting=acting,
        episodes=Episodes(blank, blank, success, blank > 0, inner, inner, costs),
        ended=jnp.zeros(num, jnp.int32),
        inner=None if inner is None else (blank[:, 0], blank[:, 0]),
        cost=None if costs is None else costs[:, 0],
        t=jnp.int32(0),
    )

    def unfinished(now: _Progress) -> Array:
        return (now.t < limit) & jnp.any(now.ended < episodes)

    def one_step(now: _Progress) -> _Progress:
        acting, outcome = step(now.acting, jax.random.fold_in(key, now.t))
        inner = None if now.inner is None else _inner_returns(now.inner, outcome)
        spent = None if now.cost is None else now.cost + _step_cost(outcome)
        kept = _record(now.episodes, outcome, now.ended, inner, spent)
        cost = None if spent is None else jnp.where(outcome.done, 0.0, spent)
        ended = now.ended + outcome.done
        return _Progress(acting=acting, episodes=kept, ended=ended, inner=inner, cost=cost, t=now.t + 1)

    return jax.lax.while_loop(unfinished, one_step, start).episodes


def act(
    env: VecEnv, agent: ActorCritic, params: PyTree, acting: Acting, key: Array, env_params: PyTree, greedy: bool
) -> tuple[Acting, Outcome]:
    """One step of policy and environments. The key is consumed."""
    act_key, env_key = jax.random.split(key)
    inputs = acting.env.inputs
    carry, decision = agent.recurrent(params, acting.carry, inputs, inputs.first)
    policy = agent.policy(decision, inputs)
    action = policy.mode() if greedy else policy.sample(act_key)
    vec, outcome = env.step(env_key, acting.env, to_env(agent.action_space, action), env_params)
    return Acting(env=vec, carry=carry), outcome


class Recording(NamedTuple):
    """The first episode of every environment; what follows its end is not to be looked at."""

    states: PyTree  # [T + 1, B, ...], of the environments
    rewards: Array  # float32 [T, B]
    lengths: Array  # int32 [B], steps of the episode, at most T


def record(
    env: VecEnv,
    agent: ActorCritic,
    params: PyTree,
    key: Array,
    env_params: PyTree,
    *,
    max_steps: int = 200,
    greedy: bool = True,
) -> Recording:
    """Every environment's states under a policy, from a reset on. The key is consumed."""
    reset_key, key = jax.random.split(key)
    still = VecEnv(env.env, env.num_envs, "none")

    def step(acting: Acting, key: Array) -> tuple[Acting, Outcome]:
        return act(still, agent, params, acting, key, env_params, greedy)

    return film_episodes(env.env, start_acting(still, agent, reset_key, env_params), step, key, max_steps=max_steps)


def film_episodes(env: Env, acting: Acting, step: Step, key: Array, *, max_steps: int) -> Recording:
    """`record` for whatever acts; see `play_episodes`. Environments are not to be reset."""

    def one_step(carry: tuple[Acting, Array], key: Array) -> tuple[tuple[Acting, Array], tuple[PyTree, Array, Array]]:
        acting, over = carry
        before = acting.env.env
        acting, outcome = step(acting, key)
        return (acting, over | outcome.done), (before, outcome.reward, ~over)

    keys = jax.random.split(key, min(env.horizon, max_steps))
    start = acting, jnp.zeros_like(acting.env.inputs.first)
    (acting, _), (states, rewards, running) = jax.lax.scan(one_step, start, keys)
    states = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), states, acting.env.env)
    return Recording(states, rewards, jnp.sum(running, axis=0, dtype=jnp.int32))


def reference_returns(env: Env, env_params: PyTree = None) -> dict[str, float] | None:
    """`env.reference()` where these parameters are the ones it is for (None: they are), and the environment has it."""
    default = env.default_params()
    given = default if env_params is None else env_params
    same = jax.tree.structure(given) == jax.tree.structure(default) and all(
        jnp.array_equal(x, y) for x, y in zip(jax.tree.leaves(given), jax.tree.leaves(default), strict=True)
    )
    return env.reference() if same and env.has("reference") else None


def _inner_returns(inner: tuple[Array, Array], outcome: Outcome) -> tuple[Array, Array]:
    """First and last return inside the running trials, with the episodes that end now; 0 while none has."""
    info = outcome.info
    done, paid = info["inner_done"], info["inner_return"]
    none = (info["episode"] == 0) & ~done
    first = jnp.where(done & (info["episode"] == 0), paid, inner[0])
    return jnp.where(none, 0.0, first), jnp.where(none, 0.0, jnp.where(done, paid, inner[1]))


def _step_cost(outcome: Outcome) -> Array:
    """float32 [B]: all costs of a step."""
    cost = jnp.asarray(outcome.cost, jnp.float32)
    return jnp.sum(cost.reshape(cost.shape[0], -1), axis=-1)


def _record(
    episodes: Episodes, outcome: Outcome, ended: Array, inner: tuple[Array, Array] | None, cost: Array | None
) -> Episodes:
    """Write the episodes that end now into their slots; those beyond the wanted number fall outside and are dropped."""
    slot = jnp.where(outcome.done, ended, episodes.finished.shape[1])

    def put(table: Any, value: Any) -> Array:
        rows = jnp.arange(table.shape[0])
        return table.at[rows, slot].set(jnp.asarray(value).astype(table.dtype), mode="drop")

    return Episodes(
        returns=put(episodes.returns, outcome.episode_return),
        lengths=put(episodes.lengths, outcome.episode_length),
        success=None if episodes.success is None else put(episodes.success, outcome.info["success"]),
        finished=put(episodes.finished, jnp.ones_like(outcome.done)),
        first_inner=None if inner is None else put(episodes.first_inner, inner[0]),
        last_inner=None if inner is None else put(episodes.last_inner, inner[1]),
        costs=None if cost is None else put(episodes.costs, cost),
    )
