"""Learning histories: what a policy saw, did and was paid while it learnt, recorded on the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs import Discrete, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.timestep import TimeStep
from jaxrl_seq.envs.core.trials import TrialEnv, TrialState
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.incontext.policies import Step, View
from jaxrl_seq.online.evaluate import Recording
from jaxrl_seq.types import Array, PyTree


@struct.dataclass
class History:
    """T steps of B streams, [T, B, ...] each unless said. A stream is one policy on one task.

    Integers are kept in the smallest unsigned type that holds their space; `widened` undoes that.
    """

    obs: PyTree
    """Of the inner environment, before the action."""
    first: Array
    """bool: this observation opens an episode."""
    action: Array
    reward: Array
    """float32: of this action."""
    done: Array
    """bool: the episode ended with this action."""
    episode: Array
    """int32: its number in the stream."""
    log_prob: Array
    """float32: of the action under the policy that took it."""
    valid: Array
    """bool: False for what follows the end of a trial."""
    task: PyTree
    """[B, ...]"""
    optimal: Array | None = None
    """bool [T, B, A]: the actions that are optimal here, for who knows the task; see `play`."""
    info: dict[str, Array] = struct.field(default_factory=dict)
    """What the environment reports, such as the regret of a bandit."""
    action_mask: Array | None = None
    """bool [B, A]: the actions that a stream has, where streams differ in that."""

    @property
    def streams(self) -> int:
        return self.reward.shape[1]

    @property
    def length(self) -> int:
        """T."""
        return self.reward.shape[0]

    @property
    def nbytes(self) -> int:
        return sum(np.prod(x.shape, dtype=int) * x.dtype.itemsize for x in jax.tree.leaves(self))


_SEEN = ("obs", "first", "action", "reward", "done", "episode", "log_prob", "valid", "optimal", "info")
"""The fields that lead with T."""


def play(
    policy: Any,
    trial: TrialEnv,
    tasks: PyTree,
    key: Array,
    params: PyTree = None,
    *,
    label: bool = False,
) -> History:
    """One trial of `policy` on each of `tasks` [B, ...], recorded. Jittable. The key is consumed.

    label: keep the set of optimal actions of every step (`optimal_actions` of the environment, or its expert's one
    action). Raises ValueError if it has neither.
    """
    env = trial.env
    if label:
        require_oracle(env)
    params = env.default_params() if params is None else params
    start, keys = _start(policy, trial, tasks, key, params)

    def one_step(stage: _Stage, keys: Array) -> tuple[_Stage, dict[str, PyTree]]:
        after, step, log_prob, timestep = _advance(policy, trial, stage, keys, params)
        info = {name: x for name, x in timestep.info.items() if not name.startswith(("inner_", "episode"))}
        seen = dict(
            obs=compact(env.observation_space(), stage.view.obs),
            first=stage.view.inputs.obs["first_inner"][:, 0] > 0,
            action=compact(env.action_space(), step.action),
            reward=step.reward,
            done=step.done,
            episode=timestep.info["episode"],
            log_prob=log_prob.astype(jnp.float32),
            valid=~stage.over,
            optimal=optimal_actions(trial, keys[3], stage.view.state, params) if label else None,
            info=info,
        )
        return after, seen

    _, seen = jax.lax.scan(one_step, start, keys)
    return History(task=tasks, **seen)


def film(
    policy: Any, trial: TrialEnv, tasks: PyTree, key: Array, params: PyTree = None, max_steps: int = 200
) -> Recording:
    """The states of a trial of `policy` on each of `tasks` [B, ...], up to `max_steps` steps. The key is consumed."""
    params = trial.default_params() if params is None else params
    start, keys = _start(policy, trial, tasks, key, params)

    def one_step(stage: _Stage, keys: Array) -> tuple[_Stage, tuple[PyTree, Array, Array]]:
        after, step, _, _ = _advance(policy, trial, stage, keys, params)
        return after, (stage.view.state, step.reward, ~stage.over)

    end, (states, rewards, running) = jax.lax.scan(one_step, start, keys[:max_steps])
    states = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), states, end.view.state)
    return Recording(states, rewards, jnp.sum(running, axis=0, dtype=jnp.int32))


@struct.dataclass
class _Stage:
    memory: PyTree
    view: View
    over: Array  # bool [B], the trial has ended


def _start(policy: Any, trial: TrialEnv, tasks: PyTree, key: Array, params: PyTree) -> tuple[_Stage, Array]:
    """(fresh trials and memories, keys [T, 4] of their steps)."""
    num = jax.tree.leaves(tasks)[0].shape[0]
    init_key, reset_key, key = jax.random.split(key, 3)
    state, timestep = jax.vmap(trial.reset_to, in_axes=(0, 0, None))(jax.random.split(reset_key, num), tasks, params)
    action = jax.eval_shape(jax.vmap(trial.action_space().sample), jax.random.split(key, num))
    inputs = Inputs(
        obs=timestep.obs,
        prev_action=jnp.zeros(action.shape, action.dtype),
        prev_reward=timestep.reward,
        first=timestep.first,
        action_mask=timestep.action_mask,
    )
    stage = _Stage(policy.init(init_key, num), View(inputs, state), jnp.zeros(num, bool))
    return stage, jax.random.split(key, (trial.horizon, 4))


def _advance(
    policy: Any, trial: TrialEnv, stage: _Stage, keys: Array, params: PyTree
) -> tuple[_Stage, Step, Array, TimeStep]:
    """(what follows; the step; the log-probability [B] of its action; what the trials said to it)."""
    memory, action, log_prob = policy.act(keys[0], stage.memory, stage.view)
    step_keys = jax.random.split(keys[1], log_prob.shape[0])
    state, timestep = jax.vmap(trial.step, in_axes=(0, 0, 0, None))(step_keys, stage.view.state, action, params)
    after = View(Inputs(timestep.obs, action, timestep.reward, timestep.first, timestep.action_mask), state)
    step = Step(stage.view, action, timestep.reward, timestep.info["inner_done"], after)
    memory = policy.observe(keys[2], memory, step)
    return _Stage(memory, after, stage.over | timestep.done), step, log_prob, timestep


# --- labels -----------------------------------------------------------------------------------------------------------
def require_oracle(env: Env) -> None:
    """ValueError unless `env` can say what is optimal."""
    if not (env.has("optimal_actions") or env.has("expert")):
        raise ValueError(f"{env.name} has no oracle: give it `optimal_actions` or `expert` to label histories.")
    if not isinstance(env.action_space(), Discrete):
        raise ValueError(f"{env.name}: sets of optimal actions need discrete actions, not {env.action_space()}.")


def optimal_actions(trial: TrialEnv, key: Array, state: TrialState, params: PyTree) -> Array:
    """bool [B, A]: the optimal actions in each of B states. The key is consumed."""
    if trial.env.has("optimal_actions"):
        return jax.vmap(trial.optimal_actions, in_axes=(0, None))(state, params)
    keys = jax.random.split(key, state.t.shape[0])
    best = jax.vmap(trial.expert, in_axes=(0, 0, None))(keys, state, params)
    space = trial.env.action_space()
    assert isinstance(space, Discrete)
    return jax.nn.one_hot(best, space.n, dtype=bool)


# --- shapes -----------------------------------------------------------------------------------------------------------
def thin(history: History, every: int, horizon: int) -> History:
    """Every `every`-th episode, starting with the first, of streams whose episodes all last `horizon` steps.

    Algorithm Distillation learns a faster algorithm than its source that way. Raises ValueError for lengths that do
    not divide.
    """
    if every < 1 or history.length % horizon:
        raise ValueError(
            f"Histories of {history.length} steps do not consist of episodes of {horizon}, "
            f"or every ({every}) is below 1."
        )

    def pick(x: Array) -> Array:
        kept = x.reshape(-1, horizon, *x.shape[1:])[::every]
        return kept.reshape(-1, *x.shape[1:])

    return replace(history, **{name: jax.tree.map(pick, getattr(history, name)) for name in _SEEN})


def join(histories: list[History]) -> History:
    """Streams of several histories side by side. Raises ValueError unless all their arrays agree but for B; what
    differs in its actions is joined by `mix`."""
    first = histories[0]

    def kinds(history: History) -> Any:
        arrays = {name: getattr(history, name) for name in _SEEN} | {"task": history.task}
        seen = jax.tree.map(lambda x: (x.shape[:1] + x.shape[2:], x.dtype), arrays)
        seen["task"] = jax.tree.map(lambda x: (x.shape[1:], x.dtype), history.task)
        return seen, history.action_mask is None

    for other in histories[1:]:
        if kinds(other) != kinds(first):
            raise ValueError(
                f"Histories differ in their arrays: {kinds(first)} and {kinds(other)}. Join those of one environment, "
                "with the same length and labels; `mix` takes different numbers of actions."
            )
    merged = {
        name: jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *(getattr(h, name) for h in histories))
        for name in _SEEN
    }
    task, mask = jax.tree.map(lambda *x: jnp.concatenate(x), *((h.task, h.action_mask) for h in histories))
    return History(task=task, action_mask=mask, **merged)


def mix(histories: dict[int, History]) -> History:
    """Streams with different numbers of actions side by side: {number: history}. Tasks and labels are left out, and
    `action_mask` says which actions a stream has."""
    most = max(histories)
    return join(
        [
            replace(
                history,
                task=(),
                optimal=None,
                action_mask=jnp.broadcast_to(jnp.arange(most) < number, (history.streams, most)),
            )
            for number, history in sorted(histories.items())
        ]
    )


def episode_returns(history: History, episodes: int) -> Array:
    """float32 [B, episodes]: return of each of a stream's first episodes."""
    rows = jnp.broadcast_to(jnp.arange(history.streams), history.episode.shape)
    paid = jnp.where(history.valid, history.reward, 0.0)
    table = jnp.zeros((history.streams, episodes), jnp.float32)
    return table.at[rows, history.episode].add(paid, mode="drop")


def compact(space: Space, x: PyTree) -> PyTree:
    """Members of `space` in the smallest unsigned integers that hold them; floats stay."""
    if isinstance(space, Tree):
        return {name: compact(sub, x[name]) for name, sub in space.spaces.items()}
    if isinstance(space, Discrete | MultiDiscrete):
        top = max(space.ns) if isinstance(space, MultiDiscrete) else space.n
        kinds = ((2**8, jnp.uint8), (2**16, jnp.uint16))
        return x.astype(next((kind for limit, kind in kinds if top <= limit), jnp.int32))
    return x


def widened(x: PyTree) -> PyTree:
    """`compact` undone: int32 for unsigned integers of at most 16 bits that stand for members of a discrete space."""

    def widen(leaf: Array) -> Array:
        return leaf.astype(jnp.int32) if leaf.dtype in (jnp.uint8, jnp.uint16) else leaf

    return jax.tree.map(widen, x)
