"""A data set of episodes, flat and on the device: what was seen, done and paid, and where episodes begin and end.

Letters: N steps, all episodes one after the other; E episodes. Two columns say where a step stands, `t` and `to_end`,
and that is all that static shapes need: nothing is padded, and episodes of any length cost nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs import Box, Env, Space, Tree
from jaxrl_seq.envs.core.wrappers import Picture
from jaxrl_seq.ops.linear_recurrence import linear_recurrence
from jaxrl_seq.types import Array, PyTree


@dataclass(frozen=True)
class Meta:
    """What a data set is of and what made it. Hashable: static under `jit`."""

    observation_space: Space
    action_space: Space
    env: str = ""
    """Id for `make`; empty for data from elsewhere."""
    recipe: str = ""
    seed: int | None = None
    reference: tuple[tuple[str, float], ...] = ()
    """Mean episode returns, ("random", ...) and ("expert", ...), that scores are measured by."""
    notes: tuple[tuple[str, str], ...] = ()
    """What else there is to know: versions, settings of the recipe, the file it was read from."""


@struct.dataclass
class Stats:
    """Numbers of the whole data set that policies need: to normalise what is seen, and to know what may be asked."""

    obs_mean: PyTree
    """Of each entry of an observation; 0 for integers and flags."""
    obs_std: PyTree
    """Its standard deviation; 1 for integers, flags and what never varies."""
    action_low: PyTree
    action_high: PyTree
    """The least and greatest entries that were seen."""
    return_low: Array
    return_high: Array
    """float32 []: the least and greatest return of an episode; a target beyond them was never seen."""
    return_mean: Array
    length_max: Array
    """int32 []: steps of the longest episode."""

    def normalise(self, obs: PyTree) -> PyTree:
        """Observations [..., ] of the environment with mean 0 and deviation 1; integers and flags stay. Networks do
        this by `Standardise`, so that evaluation cannot forget it."""
        return normalise(obs, self.obs_mean, self.obs_std)


def normalise(obs: PyTree, mean: PyTree, std: PyTree) -> PyTree:
    """(obs - mean) / std of floats; integers and flags stay."""

    def scaled(x: Array, mean: Array, std: Array) -> Array:
        return (x - mean) / std if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(scaled, obs, mean, std)


@struct.dataclass
class Dataset:
    """N steps of E episodes. `build` makes one; all columns but `obs`, `action` and `extra` have a fixed dtype."""

    obs: PyTree
    """[N, ...]: before the action."""
    action: PyTree
    """[N, ...]: in the units of the environment."""
    reward: Array
    """float32 [N]: of this action."""
    terminated: Array
    truncated: Array
    """bool [N]: the task ended, or a time limit cut the episode; never both."""
    t: Array
    """int32 [N]: steps before this one in its episode."""
    to_end: Array
    """int32 [N]: steps after it; 0 for the last one."""
    episode: Array
    """int32 [N]: the number of its episode."""
    rtg: Array
    """float32 [N]: return-to-go, the undiscounted sum of rewards from this step to the end of the episode."""
    final_obs: PyTree
    """[E, ...]: what the last action led to, which a truncated episode is bootstrapped from."""
    start: Array
    """int32 [E]: first step."""
    length: Array
    """int32 [E]: steps."""
    source: Array
    """int32 [E]: who acted, by the recipe's own count."""
    stats: Stats
    extra: dict[str, Array]
    """Further columns [N, ...], such as `cost`, `action_mask`, or what `with_column` adds."""
    meta: Meta = struct.field(pytree_node=False)

    @property
    def steps(self) -> int:
        """N."""
        return self.reward.shape[0]

    @property
    def num_episodes(self) -> int:
        """E."""
        return self.start.shape[0]

    @property
    def returns(self) -> Array:
        """float32 [E]."""
        return self.rtg[self.start]

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(np.prod(x.shape, dtype=int) * x.dtype.itemsize for x in jax.tree.leaves(self))

    def with_column(self, name: str, values: Array) -> Dataset:
        """The same with a further column [N, ...], which samplers give in `extra`. ValueError for another length."""
        if jnp.shape(values)[:1] != (self.steps,):
            raise ValueError(
                f"Column {name!r} has shape {jnp.shape(values)}; a data set of {self.steps} steps needs "
                f"({self.steps}, ...)."
            )
        return replace(self, extra=self.extra | {name: jnp.asarray(values)})

    def score(self, returns: Any) -> Any:
        """Returns as percentages of the way from random play to the expert. ValueError without these references."""
        known = dict(self.meta.reference)
        if not {"random", "expert"} <= known.keys() or known["expert"] <= known["random"]:
            raise ValueError(
                f"Scores need returns of random play and of an expert, in this order; there are {known}. "
                "Set meta.reference."
            )
        return 100 * (returns - known["random"]) / (known["expert"] - known["random"])


# --- columns ----------------------------------------------------------------------------------------------------------
def returns_to_go(reward: Array, to_end: Array, gamma: Array | float = 1.0) -> Array:
    """float32 [N]: g_t = r_t + gamma g_(t+1), where g is 0 after the end of an episode. Also for costs."""
    back = reward.astype(jnp.float32)[::-1, None]
    sums = linear_recurrence(jnp.float32(gamma), back, jnp.zeros(1), (to_end == 0)[::-1, None])
    return sums[::-1, 0]


_returns_to_go = jax.jit(returns_to_go)


def next_obs(dataset: Dataset, index: Array) -> PyTree:
    """[..., ]: what the actions of the steps `index` (int32 [...]) led to; the final observation after the last one."""
    last = dataset.to_end[index] == 0
    following = jnp.minimum(index + 1, dataset.steps - 1)

    def pick(inside: Array, final: Array) -> Array:
        flags = last.reshape(last.shape + (1,) * (inside.ndim - 1))
        return jnp.where(flags, final[dataset.episode[index]], inside[following])

    return jax.tree.map(pick, dataset.obs, dataset.final_obs)


# --- building ---------------------------------------------------------------------------------------------------------
def build(
    *,
    obs: PyTree,
    action: PyTree,
    reward: Any,
    terminated: Any,
    truncated: Any,
    final_obs: PyTree,
    meta: Meta,
    length: Any = None,
    source: Any = None,
    extra: dict[str, Any] | None = None,
) -> Dataset:
    """A data set from flat columns [N, ...] and final observations [E, ...], in host or device memory.

    length: int [E], the steps of the episodes; None: they end where `terminated` or `truncated` says so. Everything
    else is derived. Raises ValueError, with the place, for columns of different lengths, episodes without steps, steps
    that belong to no episode, and flags of end that are missing, premature or both.
    """
    extra = extra or {}
    reward = jnp.asarray(reward, jnp.float32)
    columns = {"obs": obs, "action": action, "terminated": terminated, "truncated": truncated} | extra
    for name, leaf in named_leaves(columns):
        if jnp.shape(leaf)[:1] != reward.shape[:1]:
            raise ValueError(
                f"{name} has shape {jnp.shape(leaf)}, but there are {len(reward)} rewards: give one row per "
                "step to each."
            )
    ends = np.asarray(terminated, bool), np.asarray(truncated, bool)
    lengths = _lengths(*ends, length)
    for name, leaf in named_leaves({"final_obs": final_obs, "source": source}):
        if leaf is not None and jnp.shape(leaf)[:1] != lengths.shape:
            raise ValueError(
                f"{name} has shape {jnp.shape(leaf)}, but there are {len(lengths)} episodes: give one row to each."
            )
    number = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    start = np.cumsum(lengths) - lengths
    t = np.arange(len(number)) - start[number]
    to_end = jnp.asarray(lengths[number] - 1 - t, jnp.int32)
    rtg = _returns_to_go(reward, to_end)
    obs, action, final_obs = (jax.tree.map(jnp.asarray, x) for x in (obs, action, final_obs))
    return Dataset(
        obs=obs,
        action=action,
        reward=reward,
        terminated=jnp.asarray(ends[0]),
        truncated=jnp.asarray(ends[1]),
        t=jnp.asarray(t, jnp.int32),
        to_end=to_end,
        episode=jnp.asarray(number),
        rtg=rtg,
        final_obs=final_obs,
        start=jnp.asarray(start, jnp.int32),
        length=jnp.asarray(lengths, jnp.int32),
        source=jnp.zeros(len(lengths), jnp.int32) if source is None else jnp.asarray(source, jnp.int32),
        stats=make_stats(meta.observation_space, obs, action, rtg[jnp.asarray(start)], jnp.asarray(lengths)),
        extra={name: jnp.asarray(x) for name, x in extra.items()},
        meta=meta,
    )


@partial(jax.jit, static_argnums=0)
def make_stats(space: Space, obs: PyTree, action: PyTree, returns: Array, length: Array) -> Stats:
    """Of columns [N, ...], and of returns and lengths of episodes [E]. space: of the observations; pictures that are
    kept as states are not normalised."""
    drawn = isinstance(space, Picture)

    def stays(x: Array) -> bool:
        return drawn or not jnp.issubdtype(x.dtype, jnp.floating)

    def mean(x: Array) -> Array:
        return jnp.zeros(x.shape[1:], jnp.float32) if stays(x) else jnp.mean(x, axis=0)

    def std(x: Array) -> Array:
        if stays(x):
            return jnp.ones(x.shape[1:], jnp.float32)
        varies = jnp.max(x, axis=0) > jnp.min(x, axis=0)
        return jnp.where(varies, jnp.maximum(jnp.std(x, axis=0), 1e-6), 1.0)

    return Stats(
        obs_mean=jax.tree.map(mean, obs),
        obs_std=jax.tree.map(std, obs),
        action_low=jax.tree.map(lambda x: jnp.min(x, axis=0), action),
        action_high=jax.tree.map(lambda x: jnp.max(x, axis=0), action),
        return_low=jnp.min(returns),
        return_high=jnp.max(returns),
        return_mean=jnp.mean(returns),
        length_max=jnp.max(length).astype(jnp.int32),
    )


def named_leaves(columns: dict[str, Any]) -> list[tuple[str, Any]]:
    """(path, leaf) of all columns."""
    leaves = jax.tree_util.tree_leaves_with_path(columns)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def _lengths(terminated: np.ndarray, truncated: np.ndarray, given: Any) -> np.ndarray:
    """int64 [E], with every end flagged once. ValueError for anything else."""
    flagged = terminated | truncated
    steps = len(flagged)
    if not steps:
        raise ValueError("A data set needs at least one step; there is none.")
    ends = np.flatnonzero(flagged) if given is None else np.cumsum(np.asarray(given, np.int64)) - 1
    lengths = np.diff(ends, prepend=-1)
    if (lengths < 1).any():
        raise ValueError(f"Episode {np.flatnonzero(lengths < 1)[0]} has no steps: leave it out.")
    if not len(ends) or ends[-1] != steps - 1:
        first = int(ends[-1]) + 1 if len(ends) else 0
        raise ValueError(
            f"Episode {len(ends)}, which opens at row {first} of {steps}, has no end: set truncated in the last row, "
            "or drop the episode."
        )
    first_odd, number = ends[~flagged[ends]], np.repeat(np.arange(len(lengths)), lengths)
    if len(first_odd):
        e = number[first_odd[0]]
        raise ValueError(
            f"Episode {e}, step {lengths[e] - 1} is its last one but neither terminated nor truncated: set "
            "truncated where the recording stopped, or drop the episode."
        )
    inside = np.setdiff1d(np.flatnonzero(flagged), ends)
    if len(inside):
        e = number[inside[0]]
        raise ValueError(
            f"Episode {e}, step {inside[0] - (ends[e] - lengths[e] + 1)} of {lengths[e]} carries a flag of "
            "end, which only the last may: split the episode there."
        )
    both = np.flatnonzero(terminated & truncated)
    if len(both):
        e = number[both[0]]
        raise ValueError(
            f"Episode {e}, step {lengths[e] - 1} is both terminated and truncated: keep terminated, as "
            "nothing is left to bootstrap."
        )
    return lengths


# --- what is kept -------------------------------------------------------------------------------------------------
PER_STEP = ("obs", "action", "reward", "terminated", "truncated", "extra")
PER_EPISODE = ("final_obs", "source", "length")
"""The fields that are not derived from others: what `build` takes, and what files keep."""


def given(dataset: Dataset) -> dict[str, Any]:
    """The arguments that `build` makes this data set from, but for `meta`."""
    return {name: getattr(dataset, name) for name in PER_STEP + PER_EPISODE}


# --- what fits --------------------------------------------------------------------------------------------------------
def same_kind(ours: Space, theirs: Space) -> bool:
    """Whether members of both have the same shapes and kinds; bounds of boxes may differ."""
    if isinstance(ours, Box) and isinstance(theirs, Box):
        return ours.shape == theirs.shape and ours.dtype.kind == theirs.dtype.kind
    if isinstance(ours, Tree) and isinstance(theirs, Tree):
        a, b = ours.spaces, theirs.spaces
        return a.keys() == b.keys() and all(same_kind(a[name], b[name]) for name in a)
    return ours == theirs


def require_env(dataset: Dataset, env: Env) -> None:
    """ValueError unless policies learnt from `dataset` can act in `env`: spaces of the same kind, actions within."""
    meta = dataset.meta
    made = f"the data ({meta.env or 'from elsewhere'})"
    for what, ours, theirs in (
        ("observations", meta.observation_space, env.observation_space()),
        ("actions", meta.action_space, env.action_space()),
    ):
        if not same_kind(ours, theirs):
            raise ValueError(
                f"{made} and the environment {env.name} differ in {what}: {ours} and {theirs}. Use the "
                "environment that the data was recorded in, with the same options."
            )
    space = env.action_space()
    if isinstance(space, Box):
        low, high = np.asarray(dataset.stats.action_low), np.asarray(dataset.stats.action_high)
        if (low < space.bounds[0]).any() or (high > space.bounds[1]).any():
            raise ValueError(
                f"{made} has actions from {low} to {high}, outside of {space} of {env.name}: rescale them "
                "to the environment's units."
            )


def warn_target(stats: Stats, target: Any) -> None:
    """Warn (UserWarning) of target returns that no episode of the data reached or fell to. For concrete numbers."""
    low, high = float(stats.return_low), float(stats.return_high)
    outside = [x for x in np.ravel(np.asarray(target, np.float64)).tolist() if not low <= x <= high]
    if outside:
        warnings.warn(
            f"target return {', '.join(f'{x:g}' for x in outside)} is outside of the data's range "
            f"[{low:g}, {high:g}]: what a policy does there was never shown to it.",
            stacklevel=2,
        )
