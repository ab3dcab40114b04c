"""Encoder, sequence model and heads in one module with two equal views: `__call__` over time, `step` in the loop."""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.agents.distributions import Policy, parameter_dim
from jaxrl_seq.agents.encoders import InputEncoder
from jaxrl_seq.envs import Box, Env, Space
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.envs.core.wrappers import Picture
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.types import Array, PyTree


@struct.dataclass
class Decision:
    """What the agent makes of its inputs."""

    policy_params: Array
    """float32 [..., P]: see `agents.distributions`."""
    value: Array
    """float32 [...]: expected return from here."""


class ActorCritic(nn.Module):
    """A policy and a value function over one shared memory.

    `agent(carry, inputs[T, B], reset[T, B]) -> (carry, Decision[T, B])` for training and
    `agent.step(carry, inputs[B], reset[B]) -> (carry, Decision[B])` for acting are the same function of the same
    parameters. `reset[t]` makes the memory forget before `inputs[t]` is read; it is `inputs.first` in training.
    """

    observation_space: Space
    action_space: Space
    model: SequenceModel
    encoder_width: int = 64
    previous: bool = True
    """Whether the previous action and reward are inputs."""

    @classmethod
    def for_env(
        cls, env: Env, model: SequenceModel, encoder_width: int | None = None, previous: bool = True
    ) -> ActorCritic:
        """The agent for `env` around `model`; the encoder is as wide as the model unless told otherwise.

        Raises ValueError for an action space that no head serves.
        """
        parameter_dim(env.action_space())
        width = encoder_width or model.features
        return cls(env.observation_space(), env.action_space(), model, width, previous)

    def setup(self) -> None:
        self.encoder = InputEncoder(self.observation_space, self.action_space, self.encoder_width, self.previous)
        orthogonal = nn.initializers.orthogonal
        box = isinstance(self.action_space, Box)
        outputs = parameter_dim(self.action_space) // (2 if box else 1)
        self.policy_head = nn.Dense(outputs, kernel_init=orthogonal(0.01), name="policy_head")
        self.value_head = nn.Dense(1, kernel_init=orthogonal(1.0), name="value_head")
        if box:
            # One learned spread per action dimension, the same everywhere (Schulman et al. 2017); starts at 0.6.
            self.log_std = self.param("log_std", nn.initializers.constant(-0.5), (outputs,))

    def __call__(self, carry: PyTree, inputs: Inputs, reset: Array) -> tuple[PyTree, Decision]:
        carry, y = self.model(carry, self.encoder(inputs), reset)
        return carry, self._decide(y)

    def step(self, carry: PyTree, inputs: Inputs, reset: Array) -> tuple[PyTree, Decision]:
        carry, y = self.model.step(carry, self.encoder(inputs), reset)
        return carry, self._decide(y)

    @nn.nowrap
    def initialize_carry(self, batch_shape: tuple[int, ...]) -> PyTree:
        """The empty memory of a batch."""
        return self.model.initialize_carry(batch_shape)

    @nn.nowrap
    def parallel(self, params: PyTree, carry: PyTree, inputs: Inputs, reset: Array) -> tuple[PyTree, Decision]:
        """`__call__` with these parameters: [T, B] at once."""
        return cast(Any, self.apply(params, carry, inputs, reset))

    @nn.nowrap
    def recurrent(self, params: PyTree, carry: PyTree, inputs: Inputs, reset: Array) -> tuple[PyTree, Decision]:
        """`step` with these parameters: [B]."""
        return cast(Any, self.apply(params, carry, inputs, reset, method="step"))

    @nn.nowrap
    def policy(self, decision: Decision, inputs: Inputs) -> Policy:
        """The action distribution of a decision, with illegal actions masked out."""
        return Policy(self.action_space, decision.policy_params, inputs.action_mask)

    def _decide(self, y: Array) -> Decision:
        params = self.policy_head(y)
        if isinstance(self.action_space, Box):
            params = jnp.concatenate([params, jnp.broadcast_to(self.log_std, params.shape)], axis=-1)
        return Decision(policy_params=params.astype(jnp.float32), value=self.value_head(y)[..., 0].astype(jnp.float32))


def example_inputs(env: Env, batch_shape: tuple[int, ...]) -> Any:
    """Zero inputs of the right shapes, for initialising parameters."""

    def zeros(space: Space) -> Any:
        if isinstance(space, Picture):
            return space.zeros(batch_shape)
        spaces = getattr(space, "spaces", None)
        if spaces is not None:
            return {key: zeros(sub) for key, sub in spaces.items()}
        return np.zeros((*batch_shape, *space.shape), space.dtype)  # pyright: ignore[reportAttributeAccessIssue]

    return Inputs(
        obs=zeros(env.observation_space()),
        prev_action=zeros(env.action_space()),
        prev_reward=jnp.zeros(batch_shape, jnp.float32),
        first=jnp.ones(batch_shape, bool),
    )
