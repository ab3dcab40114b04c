"""Who acts while a data set is recorded, and the recording.

A behaviour is a pytree with two functions:

    behaviour.init(key, num)         -> memory                   of `num` environments
    behaviour.act(key, memory, now)  -> (memory, action [B], source [B])

`now` is the `VecState` that is acted in. `source` (int32) goes into the data set with each episode's first step.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.distributions import to_env
from jaxrl_seq.envs import Env, VecEnv
from jaxrl_seq.envs.core.batching import where_rows
from jaxrl_seq.envs.core.vector import VecState
from jaxrl_seq.offline.dataset import Dataset, Meta, build
from jaxrl_seq.types import Array, PyTree


class Behaviour(Protocol):
    """See above; both functions consume their key."""

    def init(self, key: Array, num: int) -> PyTree: ...

    def act(self, key: Array, memory: PyTree, now: VecState) -> tuple[PyTree, Any, Array]: ...


@struct.dataclass
class NoisyExpert:
    """The environment's expert, but any legal action with chance eps, which every episode draws anew from
    [`low`, `high`]. (1, 1) is random play, (0, 0) the expert. `source` is eps in whole percent."""

    env: Env = struct.field(pytree_node=False)
    params: PyTree
    """Of the environment; shared by all of them."""
    low: Array | float = 1.0
    high: Array | float = 1.0
    informed: bool = struct.field(pytree_node=False, default=True)
    """False: random play, for environments without an expert."""

    def init(self, key: Array, num: int) -> Array:
        """float32 [B]: eps."""
        return jnp.zeros(num, jnp.float32)

    def act(self, key: Array, memory: Array, now: VecState) -> tuple[Array, Any, Array]:
        eps_key, coin_key, random_key, expert_key = jax.random.split(key, 4)
        num, opens = memory.shape[0], now.inputs.first
        eps = jnp.where(opens, jax.random.uniform(eps_key, (num,), jnp.float32, self.low, self.high), memory)
        action = self._random(random_key, now)
        if self.informed:
            keys = jax.random.split(expert_key, num)
            best = jax.vmap(self.env.expert, in_axes=(0, 0, None))(keys, now.env, self.params)
            action = where_rows(jax.random.uniform(coin_key, (num,)) < eps, action, best)
        return eps, action, jnp.round(100 * eps).astype(jnp.int32)

    def _random(self, key: Array, now: VecState) -> Any:
        mask = now.inputs.action_mask
        if mask is not None:
            return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf), axis=-1).astype(jnp.int32)
        return jax.vmap(self.env.action_space().sample)(jax.random.split(key, now.inputs.first.shape[0]))


@struct.dataclass
class Trained:
    """A network with its memory, whose actions are sampled. `source` is `number`."""

    agent: ActorCritic = struct.field(pytree_node=False)
    params: PyTree
    number: Array

    def init(self, key: Array, num: int) -> PyTree:
        return self.agent.initialize_carry((num,))

    def act(self, key: Array, memory: PyTree, now: VecState) -> tuple[PyTree, Any, Array]:
        memory, decision = self.agent.recurrent(self.params, memory, now.inputs, now.inputs.first)
        action = self.agent.policy(decision, now.inputs).sample(key)
        return memory, to_env(self.agent.action_space, action), jnp.full(now.inputs.first.shape, self.number)


@struct.dataclass
class Walk:
    """Shortest ways to a cell of a `Corridors` world, one for each environment. `source` is `leg`."""

    env: Any = struct.field(pytree_node=False)
    target: Array
    """int32 [B]: cells."""
    leg: Array
    """int32 [B]"""

    def init(self, key: Array, num: int) -> PyTree:
        return ()

    def act(self, key: Array, memory: PyTree, now: VecState) -> tuple[PyTree, Any, Array]:
        return memory, jax.vmap(self.env.guide)(now.env, self.target), self.leg


@struct.dataclass
class Careful:
    """The `guide` of a `SafeGrid`, with a budget of costly steps that every episode draws from 0 to all that the
    straight way has, but any action with chance `eps`. `source` is the budget."""

    env: Any = struct.field(pytree_node=False)
    eps: float = 0.2

    def init(self, key: Array, num: int) -> tuple[Array, Array]:
        """int32 [B] each: the budget of the episode, and what is left of it."""
        return jnp.zeros(num, jnp.int32), jnp.zeros(num, jnp.int32)

    def act(self, key: Array, memory: tuple[Array, Array], now: VecState) -> tuple[PyTree, Any, Array]:
        draw_key, coin_key, random_key = jax.random.split(key, 3)
        drawn, left = memory
        opens, num = now.inputs.first, drawn.shape[0]
        fresh = jax.random.randint(draw_key, (num,), 0, self.env.hazards + 1)
        paid = jnp.asarray(self.env.map.mask("x"))[now.env.cell]
        drawn, left = jnp.where(opens, fresh, drawn), jnp.where(opens, fresh, left - paid)
        action = jax.vmap(self.env.guide)(now.env, left)
        strays = jax.random.uniform(coin_key, (num,)) < self.eps
        anything = jax.random.randint(random_key, (num,), 0, self.env.action_space().n)
        return (drawn, left), jnp.where(strays, anything, action), drawn


# --- recording --------------------------------------------------------------------------------------------------------
@struct.dataclass
class Recording:
    """T steps of B environments, [T, B, ...] each."""

    obs: PyTree
    action: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    after: PyTree
    """The observation that the action led to, before any reset."""
    source: Array
    extra: dict[str, Array]
    """`cost` and `action_mask`, where the environment has them."""


@partial(jax.jit, static_argnums=(0, 4))
def record(env: VecEnv, behaviour: Behaviour, params: PyTree, key: Array, num_steps: int) -> Recording:
    """`num_steps` steps of all environments from a reset on. The key is consumed."""
    reset_key, init_key, key = jax.random.split(key, 3)

    def one_step(carry: tuple[VecState, PyTree], key: Array) -> tuple[tuple[VecState, PyTree], Recording]:
        now, memory = carry
        act_key, env_key = jax.random.split(key)
        memory, action, source = behaviour.act(act_key, memory, now)
        after, outcome = env.step(env_key, now, action, params)
        extra = {"cost": outcome.cost, "action_mask": now.inputs.action_mask}
        seen = Recording(
            obs=now.inputs.obs,
            action=action,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            after=outcome.final.obs,
            source=source,
            extra={name: x for name, x in extra.items() if x is not None},
        )
        return (after, memory), seen

    start = env.reset(reset_key, params), behaviour.init(init_key, env.num_envs)
    return jax.lax.scan(one_step, start, jax.random.split(key, num_steps))[1]


def record_episodes(
    env: Env,
    params: PyTree,
    behaviour: Behaviour,
    key: Array,
    steps: int,
    meta: Meta,
    *,
    num_envs: int | None = None,
) -> Dataset:
    """Whole episodes of at least `steps` steps altogether, and by less than one episode more. The key is consumed.

    Every episode that began counts, however long it lasts, so that long ones are as frequent in the data as in the
    world. Episodes stand in the order of their number in an environment. While recording, observations are held twice.
    params may lead with [num_envs], one value per environment. Raises ValueError for sizes below 1, and if no episode
    ended within the environment's horizon.
    """
    num = num_envs or default_envs(env, steps)
    if min(steps, num) < 1:
        raise ValueError(f"Record at least 1 step in at least 1 environment, not {steps} in {num}.")
    wanted = -(-steps // num)
    # then every episode that began in time gets the steps to end
    total = -(-wanted // env.horizon) * env.horizon if env.fixed_length else wanted + env.horizon - 1
    vec = VecEnv(env, num, "sync" if env.fixed_length else "select")
    return from_recording(record(vec, behaviour, params, key, total), meta, steps, wanted)


def default_envs(env: Env, steps: int) -> int:
    """So many environments that each plays some four episodes, 256 at most."""
    return max(1, min(256, steps // (4 * env.horizon)))


def from_recording(recording: Recording, meta: Meta, steps: int, wanted: int | None = None) -> Dataset:
    """The complete episodes of a recording that began in its first `wanted` steps, until there are `steps` steps.

    Episodes that the recording's end cut are left out. Raises ValueError if none is complete.
    """
    done = np.asarray(recording.terminated | recording.truncated)
    env, end = np.nonzero(done.T)  # by environment, then in time
    opens = np.concatenate([[True], env[1:] != env[:-1]]) if len(env) else np.zeros(0, bool)
    begin = np.where(opens, 0, np.roll(end, 1) + 1)
    number = np.arange(len(env)) - np.maximum.accumulate(np.where(opens, np.arange(len(env)), 0))
    order = np.lexsort((env, number))
    order = order[begin[order] < (done.shape[0] if wanted is None else wanted)]
    length = (end - begin + 1)[order]
    order = order[np.cumsum(length) - length < steps]
    if not len(order):
        raise ValueError(
            f"No episode ended within {done.shape[0]} steps: record longer, or mend the environment's horizon."
        )
    env, begin, end = env[order], begin[order], end[order]
    length = end - begin + 1
    t = np.repeat(begin - (np.cumsum(length) - length), length) + np.arange(length.sum())
    rows = jnp.asarray(t), jnp.asarray(np.repeat(env, length))
    columns = {
        name: getattr(recording, name) for name in ("obs", "action", "reward", "terminated", "truncated", "extra")
    }
    return build(
        **jax.tree.map(lambda x: x[rows], columns),
        final_obs=jax.tree.map(lambda x: x[jnp.asarray(end), jnp.asarray(env)], recording.after),
        source=recording.source[jnp.asarray(begin), jnp.asarray(env)],
        length=length,
        meta=meta,
    )


def legs_of(env: Any, name: str, num: int) -> tuple[Any, Any, Walk]:
    """(the world, parameters of `num` copies, who walks): the walks `name` of a `Corridors` world, taken in turns.

    The world is cut after the longest of its walks, so that an episode ends where its walk does.
    """
    walks = env.legs[name]
    ends = np.array([[env.cell(letter) for letter in walk] for walk in walks], np.int32)
    limit = int(max(env.map.distances[to, start] for start, to in ends))
    leg = np.arange(num, dtype=np.int32) % len(walks)
    params = replace(env.default_params(), start=jnp.asarray(ends[leg, 0]))
    return replace(env, limit=limit), params, Walk(env, jnp.asarray(ends[leg, 1]), jnp.asarray(leg))
