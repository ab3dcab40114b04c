"""What acts in a trial: one interface for trained networks, learning algorithms and oracles.

    policy.init(key, num)              -> memory     of `num` streams that have seen nothing
    policy.act(key, memory, view)      -> (memory, action [B], log_prob [B])
    policy.observe(key, memory, step)  -> memory     what the action brought

A policy is a pytree (flax.struct), so networks' parameters and algorithms' constants are traced. A learning algorithm
is a policy whose memory is what it has learnt; a network's memory is its carry; an oracle looks at the state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.agents.distributions import to_env
from jaxrl_seq.envs import Box
from jaxrl_seq.envs.core.trials import TrialState
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.types import Array, PyTree


@struct.dataclass
class View:
    """What there is to see before acting, [B, ...] each (no batch axis for an `Algorithm`)."""

    inputs: Inputs
    """As a network gets them: `obs` is {"obs", "first_inner"}; `first` opens a trial."""
    state: TrialState
    """The environment's own state, of which only oracles see more than the number of the episode."""

    @property
    def obs(self) -> PyTree:
        """The observation of the inner environment."""
        return self.inputs.obs["obs"]


@struct.dataclass
class Step:
    """What an action brought, [B, ...] each."""

    view: View
    action: Array
    reward: Array
    done: Array
    """bool: the inner episode ended with this step."""
    after: View
    """What is seen next; of the next episode where `done`."""


class ContextPolicy(Protocol):
    """See above; all three consume their key."""

    def init(self, key: Array, num: int) -> PyTree: ...

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]: ...

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree: ...


class Algorithm(Protocol):
    """A policy of one stream: the same three functions without a batch axis; `Streams` makes a policy of it."""

    def init(self, key: Array) -> PyTree: ...

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]: ...

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree: ...


@struct.dataclass
class Streams:
    """One independent copy of `algorithm` in every stream."""

    algorithm: Any

    def init(self, key: Array, num: int) -> PyTree:
        return jax.vmap(self.algorithm.init)(jax.random.split(key, num))

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]:
        return jax.vmap(self.algorithm.act)(self._keys(key, view), memory, view)

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree:
        return jax.vmap(self.algorithm.observe)(self._keys(key, step.view), memory, step)

    def _keys(self, key: Array, view: View) -> Array:
        return jax.random.split(key, view.inputs.first.shape[0])


@struct.dataclass
class AgentPolicy:
    """A trained network: RL^2, AD, and all else whose context is a carry."""

    agent: ActorCritic = struct.field(pytree_node=False)
    params: PyTree
    greedy: bool = struct.field(pytree_node=False, default=False)
    """The most likely action instead of a sampled one."""
    temperature: float = struct.field(pytree_node=False, default=1.0)
    """Logits are divided by it: below 1 samples keep less of the noise of what was imitated. For discrete actions."""
    warm_episodes: int = struct.field(pytree_node=False, default=0)
    """Episodes of a trial that are sampled as they were learnt, at temperature 1, before `temperature` holds. A network
    that imitates a search should search first: cold from the start, it takes its first guesses for knowledge."""

    def init(self, key: Array, num: int) -> PyTree:
        return self.agent.initialize_carry((num,))

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]:
        inputs = view.inputs
        memory, decision = self.agent.recurrent(self.params, memory, inputs, inputs.first)
        if self.temperature != 1.0:
            if isinstance(self.agent.action_space, Box):
                raise ValueError(f"temperature is for discrete actions, and these are {self.agent.action_space}.")
            temperature = jnp.where(view.state.episode < self.warm_episodes, 1.0, self.temperature)[:, None]
            decision = replace(decision, policy_params=decision.policy_params / temperature)
        policy = self.agent.policy(decision, inputs)
        action = policy.mode() if self.greedy else policy.sample(key)
        return memory, to_env(self.agent.action_space, action), policy.log_prob(action)

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree:
        return memory  # the next inputs hold it


# --- controls: the same policy, deprived of what it learns from -------------------------------------------------------
@struct.dataclass
class Deprived:
    """`policy` with less to learn from: it sees `share` of its own reward, and `others` of what the next stream was
    paid; with `forgets` every episode seems to open a trial, so that a network starts it with an empty memory.

    share 0 is the control "zero reward", share 0 and others 1 "shuffled reward", forgets "memory emptied". A policy
    that learns in context is then no better than at its first step. All are traced: a control costs no compilation of
    its own.
    """

    policy: Any
    share: Array | float = 1.0
    others: Array | float = 0.0
    forgets: Array | bool = False

    def init(self, key: Array, num: int) -> PyTree:
        return self.policy.init(key, num)

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]:
        return self.policy.act(key, memory, self._blind(view))

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree:
        step = replace(step, reward=self._lie(step.reward), view=self._blind(step.view), after=self._blind(step.after))
        return self.policy.observe(key, memory, step)

    def _lie(self, reward: Array) -> Array:
        return self.share * reward + self.others * jnp.roll(reward, 1, axis=0)

    def _blind(self, view: View) -> View:
        inputs = view.inputs
        first = inputs.first | (self.forgets & (inputs.obs["first_inner"][:, 0] > 0))
        return replace(view, inputs=replace(inputs, prev_reward=self._lie(inputs.prev_reward), first=first))
