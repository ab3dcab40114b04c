"""Action distributions behind one small class. The only file that knows distrax (imported on first use).

Network outputs are flat parameter vectors [..., P]; `parameter_dim` says how wide for an action space:

* Discrete: logits [..., A].
* MultiDiscrete: the logits of all entries, concatenated.
* Box: a diagonal Gaussian, (mean, log standard deviation), in units where the box is [-1, 1] if it is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space
from jaxrl_seq.types import Array

MASKED_LOGIT = -1e9
"""Finite, so that gradients stay finite; its probability is exactly 0 in float32."""
LOG_STD_RANGE = (-10.0, 2.0)


def parameter_dim(space: Space) -> int:
    """Width P of the parameter vector. ValueError for an action space that no head serves."""
    if isinstance(space, Discrete | MultiDiscrete):
        return space.flat_dim
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return 2 * space.flat_dim
    raise ValueError(
        f"No policy head serves the action space {space}. Served: Discrete(n), MultiDiscrete(ns), "
        "Box(low, high, shape) of floats."
    )


@dataclass(frozen=True)
class Policy:
    """A batch of action distributions over `space`, from parameters [..., P] and an optional mask [..., A].

    Raises ValueError when a mask comes with a space other than Discrete.
    """

    space: Space
    params: Array
    mask: Array | None = None

    def sample(self, key: Array) -> Array:
        """Actions [...] (Box and MultiDiscrete: [..., *shape]) as `log_prob` takes them. The key is consumed."""
        keys = jax.random.split(key, len(self._parts))
        return self._join([d.sample(seed=k) for d, k in zip(self._parts, keys, strict=True)])

    def mode(self) -> Array:
        """The most likely actions."""
        return self._join([d.mode() for d in self._parts])

    def log_prob(self, action: Array) -> Array:
        """Log-density of `action`, float32 [...]."""
        return self._total(lambda d, a: d.log_prob(a), self._split(action))

    def entropy(self) -> Array:
        """Entropy in nats, float32 [...]; of the Gaussian before clipping for a Box."""
        return self._total(lambda d, _: d.entropy(), [None] * len(self._parts))

    def to_env(self, action: Array) -> Array:
        """`action` in the environment's own units: scaled to and clipped into a Box, unchanged otherwise."""
        return to_env(self.space, action)

    # --- one distribution per entry of a MultiDiscrete; a single one otherwise -------------------------------------
    @property
    def _parts(self) -> list[Any]:
        import distrax

        params = self.params.astype(jnp.float32)
        if isinstance(self.space, Box):
            mean, log_std = jnp.split(params, 2, axis=-1)
            return [distrax.MultivariateNormalDiag(mean, jnp.exp(jnp.clip(log_std, *LOG_STD_RANGE)))]
        if self.mask is not None and not isinstance(self.space, Discrete):
            raise ValueError(f"An action mask needs a Discrete action space, not {self.space}.")
        if isinstance(self.space, MultiDiscrete):
            cuts = np.cumsum(self.space.ns)[:-1].tolist()
            return [distrax.Categorical(logits=part) for part in jnp.split(params, cuts, axis=-1)]
        logits = params if self.mask is None else jnp.where(self.mask, params, MASKED_LOGIT)
        return [distrax.Categorical(logits=logits)]

    def _join(self, actions: list[Array]) -> Array:
        if isinstance(self.space, MultiDiscrete):
            return jnp.stack(actions, axis=-1).astype(jnp.int32)
        if isinstance(self.space, Box):
            return actions[0].reshape(*actions[0].shape[:-1], *self.space.shape)
        return actions[0].astype(jnp.int32)

    def _split(self, action: Array) -> list[Array]:
        if isinstance(self.space, MultiDiscrete):
            return [action[..., i] for i in range(len(self.space.ns))]
        if isinstance(self.space, Box):
            rank = action.ndim - len(self.space.shape)
            return [action.reshape(*action.shape[:rank], math.prod(self.space.shape))]
        return [action]

    def _total(self, fn: Callable[[Any, Any], Array], actions: list[Any]) -> Array:
        return sum((fn(d, a) for d, a in zip(self._parts, actions, strict=True)), jnp.float32(0.0))


def _box_scale(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """(centre, half width) of a box; (0, 1) along unbounded directions."""
    low, high = (bound.astype(np.float32) for bound in space.bounds)
    bounded = (np.abs(low) < 1e9) & (np.abs(high) < 1e9)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-6)


def to_env(space: Space, action: Array) -> Array:
    """A policy's action in the environment's units."""
    if not isinstance(space, Box):
        return action
    centre, half = _box_scale(space)
    return jnp.clip(centre + half * action, *space.bounds).astype(space.dtype)


def to_unit(space: Space, action: Array) -> Array:
    """An environment's action as network input, flat [..., flat_dim]: one-hot, or scaled so that a Box is [-1, 1]."""
    if isinstance(space, Discrete):
        return jax.nn.one_hot(action, space.n)
    if isinstance(space, MultiDiscrete):
        return jnp.concatenate([jax.nn.one_hot(action[..., i], n) for i, n in enumerate(space.ns)], axis=-1)
    assert isinstance(space, Box)
    centre, half = _box_scale(space)
    unit = (action - centre) / half
    return unit.reshape(*unit.shape[: unit.ndim - len(space.shape)], space.flat_dim).astype(jnp.float32)
