"""What learns nothing: uniform actions, oracles, and oracles with noise.

All are `Algorithm`s: one stream, no batch axis.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs import Box, Discrete, MultiDiscrete, Space
from jaxrl_seq.envs.core.trials import TrialEnv
from jaxrl_seq.incontext.policies import Step, View
from jaxrl_seq.types import Array, PyTree


# --- choices ----------------------------------------------------------------------------------------------------------
def allowed(view: View, actions: int) -> Array:
    """bool [A]: the actions there are."""
    mask = view.inputs.action_mask
    return jnp.ones(actions, bool) if mask is None else mask


def alike(mask: Array) -> Array:
    """Chances [A]: equal ones where `mask`, 0 elsewhere."""
    share = mask.astype(jnp.float32)
    return share / share.sum()


def greedy(values: Array, mask: Array) -> Array:
    """Chances [A]: equal ones for all allowed actions of the highest value [A]."""
    values = jnp.where(mask, values, -jnp.inf)
    return alike(mask & (values >= values.max()))


def mixed(chances: Array, eps: Array | float, mask: Array) -> Array:
    """Chances [A]: `chances`, but any allowed action with chance `eps`."""
    return (1 - eps) * chances + eps * alike(mask)


def draw(key: Array, chances: Array) -> tuple[Array, Array]:
    """(action int32 [], its log-probability) from chances [A]. The key is consumed."""
    logits = jnp.log(chances)
    action = jax.random.categorical(key, logits).astype(jnp.int32)
    return action, logits[action]


# --- uniform ----------------------------------------------------------------------------------------------------------
@struct.dataclass
class Uniform:
    """Any allowed action, all alike. `log_prob` is exact: a density in bounded boxes, NaN in unbounded ones."""

    space: Space = struct.field(pytree_node=False)

    def init(self, key: Array) -> PyTree:
        return ()

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]:
        if isinstance(self.space, Discrete):
            mask = allowed(view, self.space.n)
            return memory, *draw(key, alike(mask))
        return memory, self.space.sample(key), jnp.float32(-_log_size(self.space))

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree:
        return memory


def _log_size(space: Space) -> float:
    """Log of the number of members, or of a box's volume; NaN where that is not known."""
    if isinstance(space, MultiDiscrete):
        return sum(math.log(n) for n in space.ns)
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        width = np.subtract(*(bound.astype(np.float64) for bound in space.bounds[::-1]))
        return float(np.log(width).sum()) if (width > 0).all() and (width < 1e9).all() else math.nan
    return math.nan


# --- oracles ----------------------------------------------------------------------------------------------------------
@struct.dataclass
class Expert:
    """The environment's scripted optimum, which sees the state. `log_prob` is 0 for discrete actions (experts are
    taken to have no choice, even where they draw), NaN for continuous ones."""

    trial: TrialEnv = struct.field(pytree_node=False)
    params: PyTree

    def init(self, key: Array) -> PyTree:
        return ()

    def act(self, key: Array, memory: PyTree, view: View) -> tuple[PyTree, Array, Array]:
        known = isinstance(self.trial.action_space(), Discrete | MultiDiscrete)
        action = self.trial.expert(key, view.state, self.params)
        return memory, action, jnp.float32(0 if known else jnp.nan)

    def observe(self, key: Array, memory: PyTree, step: Step) -> PyTree:
        return memory


@struct.dataclass
class NoisyExpert:
    """Uniform actions with chance eps, else the expert's: the source of AD^eps (Zisman et al. 2024).

    "linear": eps falls from 1 to 1 - `max_performance` over the first `share` of a stream's `episodes`, then stays;
    "constant": it is `eps` throughout; "stream": every stream has one, uniform on [1 - max_performance, 1].
    `log_prob` is exact given the expert's action.
    """

    trial: TrialEnv = struct.field(pytree_node=False)
    params: PyTree
    episodes: Array
    """float32 []: of a stream."""
    max_performance: Array | float = 1.0
    share: Array | float = 0.9
    eps: Array | float = 0.5
    schedule: str = struct.field(pytree_node=False, default="linear")

    def init(self, key: Array) -> Array:
        """float32 []: the stream's eps, for what is not scheduled."""
        own = 1 - self.max_performance * jax.random.uniform(key, (), jnp.float32)
        return own if self.schedule == "stream" else jnp.asarray(self.eps, jnp.float32)

    def chance_of_noise(self, memory: Array, episode: Array) -> Array:
        """float32 []: eps in the episode of that number."""
        if self.schedule != "linear":
            return memory
        return 1 - self.max_performance * jnp.clip(episode / (self.share * self.episodes), 0.0, 1.0)

    def act(self, key: Array, memory: Array, view: View) -> tuple[Array, Array, Array]:
        expert_key, key = jax.random.split(key)
        space = self.trial.action_space()
        assert isinstance(space, Discrete)
        best = jax.nn.one_hot(self.trial.expert(expert_key, view.state, self.params), space.n)
        eps = self.chance_of_noise(memory, view.state.episode)
        return memory, *draw(key, mixed(best, eps, allowed(view, space.n)))

    def observe(self, key: Array, memory: Array, step: Step) -> Array:
        return memory
