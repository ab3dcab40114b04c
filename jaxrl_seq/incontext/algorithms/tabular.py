"""Algorithms for small discrete MDPs: Q-learning, posterior sampling, optimism.

All are `Algorithm`s: one stream, no batch axis. N states and A actions; observations are numbers of states.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.custom_batching import custom_vmap

from jaxrl_seq.envs.planning.tabular_mdp import value_iteration
from jaxrl_seq.incontext.algorithms.bandits import gamma
from jaxrl_seq.incontext.algorithms.scripted import allowed, draw, greedy, mixed
from jaxrl_seq.incontext.policies import Step, View
from jaxrl_seq.types import Array, PyTree


@struct.dataclass
class Numbered:
    """`algorithm` where observations are several integers, int32 [n]: their places in a table of `sizes`, numbered."""

    algorithm: Any
    sizes: tuple[int, ...] = struct.field(pytree_node=False)

    def init(self, key: Array) -> PyTree:
        return self.algorithm.init(key)

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]:
        return self.algorithm.act(key, memory, self._numbered(view))

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree:
        step = replace(step, view=self._numbered(step.view), after=self._numbered(step.after))
        return self.algorithm.observe(key, memory, step)

    def _numbered(self, view: View) -> View:
        number = jnp.ravel_multi_index(tuple(view.obs), self.sizes, mode="clip")
        return replace(view, inputs=replace(view.inputs, obs=view.inputs.obs | {"obs": number}))


# --- Q-learning -------------------------------------------------------------------------------------------------------
@struct.dataclass
class QLearning:
    """Q-learning with actions that are random with chance eps (Watkins 1989), which falls from 1 to 0 over the first
    `share` of a stream's `episodes`. `log_prob` is exact.

    The constants are those of Sinii et al. 2024 (arXiv 2312.13327) for dark rooms. The table starts at 0. Ties are
    broken at random: a fixed order would make a policy that knows nothing run into a wall.
    """

    states: int = struct.field(pytree_node=False)
    actions: int = struct.field(pytree_node=False)
    episodes: Array
    """float32 []: of a stream."""
    learning_rate: Array | float = 0.9933
    discount: Array | float = 0.6238
    share: Array | float = 0.9
    terminal: bool = struct.field(pytree_node=False, default=False)
    """Whether episodes end because of the state they end in, which then has no value. Else it is the clock that ends
    them; the state reached is not seen, and the last step teaches nothing. To call it terminal would set Q back to the
    bare reward at the goal in every episode: returns in dark rooms grow half as fast."""

    def init(self, key: Array) -> Array:
        """float32 [N, A]: Q."""
        return jnp.zeros((self.states, self.actions))

    def act(self, key: Array, memory: Array, view: View) -> tuple[Array, Array, Array]:
        mask = allowed(view, self.actions)
        eps = jnp.maximum(1 - view.state.episode / (self.share * self.episodes), 0.0)
        return memory, *draw(key, mixed(greedy(memory[view.obs], mask), eps, mask))

    def observe(self, key: Array, memory: Array, step: Step) -> Array:
        mask = allowed(step.after, self.actions)
        best = jnp.max(jnp.where(mask, memory[step.after.obs], -jnp.inf))
        here = step.view.obs, step.action
        error = step.reward + jnp.where(step.done, 0.0, self.discount * best) - memory[here]
        taught = self.terminal | ~step.done
        return memory.at[here].add(jnp.where(taught, self.learning_rate * error, 0.0))


# --- a model and a plan -----------------------------------------------------------------------------------------------
@struct.dataclass
class Model:
    """What was seen of an MDP, and what is done about it."""

    moves: Array  # float32 [N, A, N], counts
    visits: Array  # float32 [N, A], counts; the last step of an episode counts here only
    rewards: Array  # float32 [N, A], sums
    plan: Array  # float32 [horizon, N, A], q of this episode
    t: Array  # int32 [], steps of this episode


@struct.dataclass
class _Planner:
    """Makes a plan of its model whenever an episode opens, and follows it; ties are broken at random."""

    states: int = struct.field(pytree_node=False)
    actions: int = struct.field(pytree_node=False)
    horizon: int = struct.field(pytree_node=False)
    """Steps of an episode."""

    def init(self, key: Array) -> Model:
        pairs = (self.states, self.actions)
        zeros, plan = jnp.zeros(pairs), jnp.zeros((self.horizon, *pairs))
        return Model(moves=jnp.zeros((*pairs, self.states)), visits=zeros, rewards=zeros, plan=plan, t=jnp.int32(0))

    def plan(self, key: Array, model: Model) -> Array:
        """q [horizon, N, A] to act on for an episode. The key is consumed."""
        raise NotImplementedError

    def act(self, key: Array, memory: Model, view: View) -> tuple[Model, Array, Array]:
        plan_key, key = jax.random.split(key)
        opens = view.inputs.obs["first_inner"][0] > 0
        plan = _planned(opens, self, plan_key, memory)
        values = plan[memory.t, view.obs]
        return replace(memory, plan=plan), *draw(key, greedy(values, allowed(view, self.actions)))

    def observe(self, key: Array, memory: Model, step: Step) -> Model:
        here = step.view.obs, step.action
        return replace(
            memory,
            # where an episode ends, what is seen next is the start of another one
            moves=memory.moves.at[*here, step.after.obs].add(jnp.where(step.done, 0.0, 1.0)),
            visits=memory.visits.at[here].add(1.0),
            rewards=memory.rewards.at[here].add(step.reward),
            t=jnp.where(step.done, 0, memory.t + 1),
        )


def _plan_or_keep(opens: Array, planner: Any, key: Array, model: Model) -> Array:
    return jnp.where(opens, planner.plan(key, model), model.plan)


_planned = custom_vmap(_plan_or_keep)
"""The plan of an episode that opens, else the old one. A batch plans in no step where no episode opens: plans are a
hundred times dearer than steps, and streams of a fixed length open together."""


@_planned.def_vmap
def _planned_batch(size: int, batched: Any, *args: Any) -> tuple[Array, bool]:
    def plan(*args: Any) -> Array:
        return jax.vmap(_plan_or_keep, in_axes=axes, axis_size=size)(*args)

    def keep(opens: Array, planner: Any, key: Array, model: Model) -> Array:
        return jnp.broadcast_to(model.plan, (size, *model.plan.shape[-3:]))

    axes = jax.tree.map(lambda leaf: 0 if leaf else None, batched)
    return jax.lax.cond(jnp.any(args[0]), plan, keep, *args), True


@struct.dataclass
class PSRL(_Planner):
    """Acts in every episode as is best in an MDP drawn from the posterior (Osband et al. 2013, arXiv 1306.0940).

    The prior of a transition is a flat Dirichlet, that of a mean reward N(reward_mean, reward_spread^2), and rewards
    have Gaussian noise of a known size. `log_prob` is NaN.
    """

    dirichlet: Array | float = 1.0
    """Of the prior; at least 1, which is flat."""
    reward_mean: Array | float = 1.0
    reward_spread: Array | float = 1.0
    noise: Array | float = 1.0
    """Standard deviation of a reward about its mean."""

    def act(self, key: Array, memory: Model, view: View) -> tuple[Model, Array, Array]:
        memory, action, _ = super().act(key, memory, view)
        return memory, action, jnp.float32(jnp.nan)

    def plan(self, key: Array, model: Model) -> Array:
        chance_key, key = jax.random.split(key)
        raw = gamma(chance_key, self.dirichlet + model.moves)
        chances = raw / raw.sum(-1, keepdims=True)  # a Dirichlet is normalised gammas
        mean, variance = self.posterior(model)
        rewards = mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)
        return value_iteration(chances, rewards, self.horizon)[0]

    def posterior(self, model: Model) -> tuple[Array, Array]:
        """([N, A], [N, A]): means and variances of the mean rewards."""
        weight = (self.noise / self.reward_spread) ** 2
        mean = (weight * self.reward_mean + model.rewards) / (weight + model.visits)
        return mean, self.noise**2 / (weight + model.visits)


@struct.dataclass
class UCBVI(_Planner):
    """Value iteration on what was seen, with bonus * sqrt(log(5 N A steps / delta) / n) added to the rewards of what
    was tried n times (Azar et al. 2017, arXiv 1703.05449, of its two bonuses the first).

    No value exceeds `top` per step left, which is also the value of what was never tried. The paper's `bonus` is 7
    times horizon x top, made for proofs. Left out is that values never rise again from one episode to the next: with a
    bonus that is too small to be a bound for sure, one unlucky estimate would stay for good. Ties are broken at random,
    and `log_prob` is exact.
    """

    steps: Array | float = 1000.0
    """Of a stream."""
    top: Array | float = 1.0
    bonus: Array | float = 0.2
    delta: Array | float = 0.05

    def plan(self, key: Array, model: Model) -> Array:
        count = model.moves.sum(-1)
        log = jnp.log(5 * self.states * self.actions * self.steps / self.delta)
        bonus = self.bonus * jnp.sqrt(log / jnp.maximum(count, 1))
        rewards = jnp.where(count > 0, model.rewards / jnp.maximum(model.visits, 1) + bonus, jnp.inf)
        chances = model.moves / jnp.maximum(count, 1)[..., None]
        return value_iteration(chances, rewards, self.horizon, self.top)[0]
