"""Headless-AD (Sinii et al. 2024, arXiv:2312.13327): Algorithm Distillation for action sets that it has never seen.

There is no head with one output an action. Every sequence gives its actions random orthonormal vectors; the network
sees actions as these, and puts out a vector whose inner products with them are the logits. Nothing ties the network to
a number, an order or a meaning of actions: relabelling them relabels its choices, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.agents.distributions import Policy
from jaxrl_seq.agents.encoders import ObservationEncoder
from jaxrl_seq.envs import Discrete, Space
from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.incontext.histories import History
from jaxrl_seq.incontext.imitation import Window, imitation_loss, take_window
from jaxrl_seq.incontext.policies import View
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.types import Array, Metrics, PyTree


@struct.dataclass
class ActionSet:
    """The actions of B sequences."""

    vectors: Array  # float32 [B, A, E], orthonormal
    mask: Array  # bool [B, A], those that there are


class HeadlessAgent(nn.Module):
    """Inputs and the vectors of the actions -> logits. The set itself is shown at every step, as the mean over its
    members of a small network's output: whatever their number, and in no order."""

    observation_space: Space
    model: SequenceModel
    action_width: int

    def setup(self) -> None:
        self.obs = ObservationEncoder(self.observation_space)
        self.member = nn.Dense(self.action_width)
        self.token = nn.Dense(self.model.features)
        self.direction = nn.Dense(self.action_width, kernel_init=nn.initializers.orthogonal(0.01))
        self.log_scale = self.param("log_scale", nn.initializers.constant(np.log(5.0)), ())

    def __call__(self, carry: PyTree, inputs: Inputs, actions: ActionSet) -> tuple[PyTree, Array]:
        """inputs [T, B] -> carry, logits [T, B, A]."""
        carry, y = self.model(carry, self._embed(inputs, actions), inputs.first)
        return carry, self._match(y, actions)

    def step(self, carry: PyTree, inputs: Inputs, actions: ActionSet) -> tuple[PyTree, Array]:
        """inputs [B] -> carry, logits [B, A]."""
        carry, y = self.model.step(carry, self._embed(inputs, actions), inputs.first)
        return carry, self._match(y, actions)

    def _embed(self, inputs: Inputs, actions: ActionSet) -> Array:
        first = inputs.first[..., None]
        taken = jax.nn.one_hot(inputs.prev_action, actions.mask.shape[-1])
        chosen = jnp.einsum("...ba,bae->...be", taken, actions.vectors)
        members = jnp.where(actions.mask[..., None], nn.gelu(self.member(actions.vectors)), 0.0)
        count = jnp.sum(actions.mask, axis=-1, keepdims=True).astype(jnp.float32)
        there = jnp.concatenate([jnp.sum(members, axis=-2) / count, 1.0 / count], axis=-1)
        parts = [
            self.obs(inputs.obs["obs"]),
            inputs.obs["first_inner"],
            first.astype(jnp.float32),
            jnp.where(first, 0.0, chosen),
            inputs.prev_reward[..., None],
            jnp.broadcast_to(there, (*first.shape[:-1], there.shape[-1])),
        ]
        return nn.silu(self.token(jnp.concatenate(parts, axis=-1)))

    def _match(self, y: Array, actions: ActionSet) -> Array:
        wanted = self.direction(y)
        return jnp.exp(self.log_scale) * jnp.einsum("...be,bae->...ba", wanted, actions.vectors)


@struct.dataclass
class HeadlessWindow:
    window: Window
    actions: ActionSet


@dataclass(frozen=True)
class Headless:
    """Imitate the source on windows in time order; streams may differ in the actions that they have.

    `action_width` (E) has to be at least the number of actions met, or no E vectors are orthogonal.
    """

    trial: TrialEnv
    model: SequenceModel
    window: int = 60
    action_width: int = 32
    name: str = "headless-ad"

    def __post_init__(self) -> None:
        space = self.trial.env.action_space()
        if not isinstance(space, Discrete) or space.n > self.action_width:
            raise ValueError(
                f"headless-ad: {self.trial.name} has actions {space}; they must be Discrete, and at most action_width "
                f"({self.action_width}) many."
            )

    @property
    def agent(self) -> HeadlessAgent:
        return HeadlessAgent(self.trial.env.observation_space(), self.model, self.action_width)

    def check(self, history: Any) -> None:
        if self.window > history.length:
            raise ValueError(
                f"headless-ad: windows of {self.window} steps do not fit into histories of {history.length}."
            )
        if history.action_mask is not None and history.action_mask.shape[-1] > self.action_width:
            raise ValueError(
                f"headless-ad: {history.action_mask.shape[-1]} actions need an action_width of that many, "
                f"not {self.action_width}."
            )

    def init(self, key: Array) -> PyTree:
        action_key, key = jax.random.split(key)
        obs = jax.eval_shape(lambda: self.trial.env.observation_space().sample(jax.random.key(0)))
        inputs = Inputs(
            obs={
                "obs": jax.tree.map(lambda x: jnp.zeros((1, 1, *x.shape), x.dtype), obs),
                "first_inner": jnp.ones((1, 1, 1)),
            },
            prev_action=jnp.zeros((1, 1), jnp.int32),
            prev_reward=jnp.zeros((1, 1)),
            first=jnp.ones((1, 1), bool),
        )
        actions = self.draw(action_key, jnp.ones((1, self._num_actions), bool))
        return self.agent.init(key, self.model.initialize_carry((1,)), inputs, actions)

    def draw(self, key: Array, mask: Array) -> ActionSet:
        """Vectors for actions mask [B, A]. The key is consumed."""
        num, actions = mask.shape
        basis = jax.random.orthogonal(key, self.action_width, (num,))[:, :actions]
        return ActionSet(basis.astype(jnp.float32), mask)

    def sequences(self, key: Array, history: History, num: int) -> HeadlessWindow:
        stream_key, step_key, action_key = jax.random.split(key, 3)
        stream = jax.random.randint(stream_key, (num,), 0, history.streams)
        start = jax.random.randint(step_key, (num,), 0, history.length - self.window + 1)
        mask = jnp.ones((num, self._num_actions), bool)
        if history.action_mask is not None:
            mask = history.action_mask[stream]
        steps = start + jnp.arange(self.window)[:, None]
        return HeadlessWindow(take_window(history, steps, stream), self.draw(action_key, mask))

    def loss(self, params: PyTree, batch: HeadlessWindow) -> tuple[Array, Metrics]:
        """Cross-entropy over the actions that there are, a valid step, in nats."""
        window = batch.window
        carry = self.model.initialize_carry((window.valid.shape[1],))
        _, logits = cast(Any, self.agent.apply(params, carry, window.inputs, batch.actions))
        policy = Policy(Discrete(logits.shape[-1]), logits, jnp.broadcast_to(batch.actions.mask, logits.shape))
        return imitation_loss(policy, window.action, None, window.valid)

    def policy(self, params: PyTree, greedy: bool) -> HeadlessPolicy:
        return HeadlessPolicy(self, params, greedy)

    @property
    def _num_actions(self) -> int:
        space = self.trial.env.action_space()
        assert isinstance(space, Discrete)
        return space.n


@struct.dataclass
class HeadlessPolicy:
    """A trained `Headless` in trials of any number of actions: `num_actions`, or those of its own trials."""

    recipe: Headless = struct.field(pytree_node=False)
    params: PyTree
    greedy: bool = struct.field(pytree_node=False, default=False)
    num_actions: int | None = struct.field(pytree_node=False, default=None)

    def init(self, key: Array, num: int) -> tuple[PyTree, ActionSet]:
        count = self.num_actions or self.recipe._num_actions
        if count > self.recipe.action_width:
            raise ValueError(f"headless-ad: {count} actions need an action_width of at least that many.")
        return self.recipe.model.initialize_carry((num,)), self.recipe.draw(key, jnp.ones((num, count), bool))

    def act(
        self, key: Array, memory: tuple[PyTree, ActionSet], view: View
    ) -> tuple[tuple[PyTree, ActionSet], Array, Array]:
        carry, actions = memory
        carry, logits = cast(Any, self.recipe.agent.apply(self.params, carry, view.inputs, actions, method="step"))
        policy = Policy(Discrete(logits.shape[-1]), logits, view.inputs.action_mask)
        action = policy.mode() if self.greedy else policy.sample(key)
        return (carry, actions), action, policy.log_prob(action)

    def observe(self, key: Array, memory: tuple[PyTree, ActionSet], step: Any) -> tuple[PyTree, ActionSet]:
        return memory  # the next inputs hold it
