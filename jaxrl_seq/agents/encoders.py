"""From what an agent sees to one vector per step."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.agents.distributions import to_unit
from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.core.vector import Inputs
from jaxrl_seq.envs.core.wrappers import Picture
from jaxrl_seq.types import Array


def is_image(space: Space) -> bool:
    """Whether a box is picture-like: [height, width, channels] with at least 5 pixels a side."""
    return isinstance(space, Box) and len(space.shape) == 3 and min(space.shape[:2]) >= 5


class ConvEncoder(nn.Module):
    """Pictures [..., height, width, channels] to [..., features]: two strided convolutions and a dense layer."""

    space: Box
    features: int = 64

    @nn.compact
    def __call__(self, x: Array) -> Array:
        low, high = (np.min(self.space.bounds[0]), np.max(self.space.bounds[1]))
        scale = 1.0 / max(float(high) - float(low), 1e-6) if np.isfinite([low, high]).all() else 1.0
        batch = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:]).astype(jnp.float32) * scale
        for channels in (16, 32):
            x = nn.relu(nn.Conv(channels, (3, 3), strides=2)(x))
        return nn.Dense(self.features)(x.reshape(*batch, -1))


class ObservationEncoder(nn.Module):
    """Members of any space [..., *shape] to a flat vector: one-hot, flattened, drawn, convolved, or a tree of these."""

    space: Space

    @nn.compact
    def __call__(self, obs: Any) -> Array:
        space = self.space
        if isinstance(space, Picture):
            return ConvEncoder(space.drawn)(space.draw(obs))
        if isinstance(space, Tree):
            parts = [ObservationEncoder(sub, name=key)(obs[key]) for key, sub in space.spaces.items()]
            return jnp.concatenate(parts, axis=-1)
        if isinstance(space, Discrete | MultiDiscrete):
            return to_unit(space, obs)
        if not isinstance(space, Box):
            raise ValueError(f"No encoder for the observation space {space}: use Discrete, MultiDiscrete, Box or Tree.")
        if is_image(space):
            return ConvEncoder(space)(obs)
        return obs.reshape(*obs.shape[: obs.ndim - len(space.shape)], space.flat_dim).astype(jnp.float32)


class InputEncoder(nn.Module):
    """All inputs of a step, [..., ] each, to [..., features].

    Observation, previous action and previous reward (both zero at the first step of an episode) and the first flag are
    concatenated and projected: the memory then has what in-context learning needs (Duan et al. 2016, section 2.2).
    Without `previous` only the observation and the flag are read: a policy can use its last action as a memory, so a
    control that is to have none must not see it.
    """

    observation_space: Space
    action_space: Space
    features: int
    previous: bool = True

    @nn.compact
    def __call__(self, inputs: Inputs) -> Array:
        first = inputs.first[..., None]
        parts = [ObservationEncoder(self.observation_space, name="obs")(inputs.obs), first.astype(jnp.float32)]
        if self.previous:
            action = to_unit(self.action_space, inputs.prev_action)
            parts += [jnp.where(first, 0.0, action), inputs.prev_reward[..., None].astype(jnp.float32)]
        x = nn.Dense(self.features, kernel_init=nn.initializers.orthogonal(np.sqrt(2.0)))(jnp.concatenate(parts, -1))
        return jax.nn.silu(x)
