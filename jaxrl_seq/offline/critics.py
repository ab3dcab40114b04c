"""Value networks around any model, and what methods that learn them write their losses with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_seq.agents.distributions import to_unit
from jaxrl_seq.envs import Box, Discrete
from jaxrl_seq.offline.learner import OfflineHyper
from jaxrl_seq.offline.network import TokenNet
from jaxrl_seq.offline.objectives import Columns
from jaxrl_seq.offline.sampler import Window
from jaxrl_seq.types import Array, PyTree

if TYPE_CHECKING:
    from jaxrl_seq.offline.critic_learner import CriticLearner


@struct.dataclass
class CriticHyper(OfflineHyper):
    """The numbers that are traced, and the data."""

    max_grad_norm: float = 10.0
    """Gradients longer than this (global norm, of all networks) are scaled down to it."""
    gamma: float = 0.99
    """Discount per step."""
    polyak: float = 0.02
    """How far target networks move in a gradient step. Values travel one step of the environment per 1 / polyak
    gradient steps: the 0.005 of papers that train for a million is too slow for a thousand, whose policy then knows
    immediate rewards only."""
    expectile: float = 0.7
    """IQL: 0.5 gives the value of the data's own policy, 1 that of the best action in the data."""
    temperature: float = 1.0
    """IQL: how much more a better action counts; advantages are in units of their mean size in the batch."""
    improvement: float = 2.5
    """TD3+BC: weight of the value of the policy's actions against likeness to the data."""
    noise: float = 0.2
    """TD3+BC: deviation of the noise on the actions that targets are made with, where actions are in [-1, 1]."""
    conservatism: float = 1.0
    """CQL: weight of the gap between values of all actions and of the data's."""
    entropy: float = 0.01
    """CQL: what a nat of the policy's entropy is worth, in half-ranges of the data's returns."""


class Critic(nn.Module):
    """What a model makes of the observations, and an action, to a value.

    features(columns[T, B], reset[T, B]) -> [T, B, D]; values(features, action) -> [..., width]. Of discrete actions,
    or without any, all values come at once: [..., A, width], with A = 1.
    """

    net: TokenNet
    width: int
    actions: Any = None
    """Their space; None for a value of states."""

    def setup(self) -> None:
        self.mix = nn.Dense(self.net.model.features)
        count = self.actions.n if isinstance(self.actions, Discrete) else 1
        self.out = nn.Dense(count * self.width, kernel_init=nn.initializers.normal(0.02))

    def __call__(self, columns: Columns, reset: Array, action: Array | None) -> Array:
        return self.values(self.features(columns, reset), action)

    def features(self, columns: Columns, reset: Array) -> Array:
        carry = self.net.model.initialize_carry((reset.shape[1],))
        return self.net.hidden(carry, columns, reset)[1][:, self.net.tokens.reads]

    def values(self, features: Array, action: Array | None = None) -> Array:
        """action: in [-1, 1], for a box."""
        x = features if action is None else jnp.concatenate([features, action], axis=-1)
        y = self.out(nn.gelu(self.mix(x))).astype(jnp.float32)
        return y if isinstance(self.actions, Box) else y.reshape(*y.shape[:-1], -1, self.width)


@dataclass(frozen=True)
class Scene:
    """A window and what networks make of it; methods write their losses with it. [W, B] each."""

    learner: CriticLearner
    params: PyTree
    target: PyTree
    stats: PyTree
    columns: Columns  # of W + 1 steps
    window: Window
    hyper: CriticHyper

    @property
    def support(self) -> tuple[Array, Array]:
        """The least and greatest value that heads speak of."""
        return self.stats["support"][0], self.stats["support"][1]

    @property
    def half(self) -> Array:
        return (self.support[1] - self.support[0]) / 2

    @property
    def reset(self) -> Array:
        return jnp.zeros(self.columns["t"].shape, bool).at[0].set(True)

    def mean(self, x: Array) -> Array:
        """Over the steps that are valid."""
        mask = self.window.mask
        return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)

    def number(self, out: Array) -> Array:
        """Values of outputs [..., width]."""
        return self.learner.value_head.value(out, *self.support)

    def error(self, out: Array, target: Array) -> Array:
        """The value head's loss [...]."""
        return self.learner.value_head.loss(out, jax.lax.stop_gradient(target), *self.support)

    def backup(self, after: Array) -> Array:
        """reward + gamma * value of what came next, which counts unless the task ended."""
        alive = ~self.window.terminated
        return self.window.reward + self.hyper.gamma * jnp.where(alive, after, 0.0)

    def actor(self, params: PyTree) -> Array:
        """Outputs of the action's head, [W + 1, B, P]."""
        variables = {"params": params["actor"], "stats": self.stats["actor"]}
        return self.learner.net.parallel(variables, self.columns, self.reset, self.window.clock)["action"]

    def states(self, params: PyTree) -> Array:
        """Outputs of the state values, [W + 1, B, width]."""
        variables = {"params": params["value"], "stats": self.stats["value"]}
        return cast(Any, self.learner.state_value.apply(variables, self.columns, self.reset, None))[..., 0, :]

    def features(self, params: PyTree) -> Array:
        """Of both critics, [2, W + 1, B, D]."""

        def one(p: PyTree) -> Array:
            variables = {"params": p, "stats": self.stats["critic"]}
            return cast(Any, self.learner.critic.apply(variables, self.columns, self.reset, method="features"))

        return jax.vmap(one)(params["critic"])

    def q(self, params: PyTree, features: Array, action: Array | None) -> Array:
        """Outputs of both critics [2, ..., width] for actions in [-1, 1] of a box, or [2, ..., A, width]."""

        def one(p: PyTree, x: Array) -> Array:
            variables = {"params": p, "stats": self.stats["critic"]}
            return cast(Any, self.learner.critic.apply(variables, x, action, method="values"))

        return jax.vmap(one)(params["critic"], features)

    def q_of_data(self, params: PyTree, features: Array) -> Array:
        """Of the actions that were taken, [2, W, B, width]; features [2, W, B, D]."""
        space, action = self.learner.env.action_space(), self.window.action
        if isinstance(space, Box):
            return self.q(params, features, to_unit(space, action))
        outs = self.q(params, features, None)
        return jnp.take_along_axis(outs, action[None, ..., None, None], axis=-2)[..., 0, :]
