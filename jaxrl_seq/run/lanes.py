"""Many runs of one learner as one learner: vmap written once, outside every algorithm."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.ops.segments import carry_axes
from jaxrl_seq.types import Array, Learner, Metrics, PyTree

_MOST_SWEPT = 64
"""Numbers in a leaf that lanes may differ in; data, such as histories to learn from, is shared."""


@dataclass(frozen=True)
class Lanes:
    """`num` independent lanes of `learner`, itself a learner: `init` takes keys [S], states and metrics lead with S.

    Lane i is the run that the learner alone would make of key i (the numbers agree to float rounding, because XLA may
    fuse the batched program differently). `hyper` is shared by all lanes, but for the leaves named in `swept` (such as
    "lr" or "env_params.delay"), which lead with S.

    A lane freezes where an update would make its parameters non-finite: it stays in the state before that update, which
    it tries again and again (metric `frozen`), and the other lanes never notice.
    """

    learner: Learner[Any]
    num: int
    swept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"Lanes: num must be at least 1, got {self.num}.")

    @property
    def steps_per_update(self) -> int:
        """Of one lane."""
        return self.learner.steps_per_update

    def hyper_axes(self, hyper: Any) -> PyTree:
        """`in_axes` of `hyper`: 0 for what is swept, None for what lanes share."""
        return jax.tree_util.tree_map_with_path(lambda path, _: 0 if _name(path) in self.swept else None, hyper)

    def init(self, keys: Array, hyper: Any) -> PyTree:
        one = jax.tree.map(lambda x, axis: x if axis is None else x[0], hyper, self.hyper_axes(hyper))
        axes = carry_axes(jax.eval_shape(self.learner.init, keys[0], one))
        return jax.vmap(self.learner.init, in_axes=(0, self.hyper_axes(hyper)), out_axes=axes)(keys, hyper)

    def update(self, state: PyTree, hyper: Any) -> tuple[PyTree, Metrics]:
        axes = carry_axes(state)
        update = jax.vmap(self.learner.update, in_axes=(axes, self.hyper_axes(hyper)), out_axes=(axes, 0))
        new, metrics = update(state, hyper)
        good = _finite(getattr(new, "params", new))
        return _where(good, new, state, axes), metrics | {"frozen": 1.0 - good}

    def evaluate(self, state: PyTree, hyper: Any, keys: Array, **options: Any) -> PyTree:
        """The learner's own `evaluate` in every lane, with keys [S]."""
        one: Any = self.learner

        def evaluate(state: PyTree, hyper: Any, key: Array) -> PyTree:
            return one.evaluate(state, hyper, key, **options)

        return jax.vmap(evaluate, in_axes=(carry_axes(state), self.hyper_axes(hyper), 0))(state, hyper, keys)


def lane(state: PyTree, index: int) -> PyTree:
    """The state of one lane, as the learner alone would have it."""
    return jax.tree.map(lambda x, axis: x if axis is None else x[index], state, carry_axes(state))


def _finite(params: PyTree) -> Array:
    """bool [S]: whether all numbers of a lane are finite."""
    flags = [
        jnp.isfinite(x).all(axis=tuple(range(1, x.ndim)))
        for x in jax.tree.leaves(params)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return jnp.stack(flags).all(0) if flags else jnp.ones(jax.tree.leaves(params)[0].shape[0], bool)


def _where(good: Array, new: PyTree, old: PyTree, axes: PyTree) -> PyTree:
    """`new` in the lanes that are good [S]; clocks belong to all of them and go on."""

    def pick(x: Array, y: Array, axis: int | None) -> Array:
        return x if axis is None else jnp.where(good.reshape((-1,) + (1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(pick, new, old, axes)


# ---- what lanes start from ----


@dataclass(frozen=True)
class Settings:
    """The seed of every lane, and its values of the hyper-parameters that are swept."""

    seeds: tuple[int, ...]
    values: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """(leaf of `hyper`, such as "lr" or "env_params.delay"; its value in every lane)."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("A run needs at least one lane: give a seed.")
        for name, values in self.values:
            if len(values) != len(self.seeds):
                raise ValueError(f"{name} has {len(values)} values for {len(self.seeds)} lanes: one a lane is needed.")

    @classmethod
    def grid(cls, seeds: Iterable[int] = (0,), **values: Sequence[float]) -> Settings:
        """All combinations, the seeds varying fastest; `env_params__delay` stands for "env_params.delay"."""
        seeds = tuple(seeds)
        points = list(itertools.product(*values.values(), seeds))
        columns = list(zip(*points, strict=True))
        names = [name.replace("__", ".") for name in values]
        return cls(tuple(columns[-1]) if columns else (), tuple(zip(names, columns[:-1], strict=True)))

    @property
    def num(self) -> int:
        return len(self.seeds)

    @property
    def swept(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.values)

    def part(self, start: int, stop: int) -> Settings:
        """Lanes start ... stop - 1."""
        values = tuple((name, column[start:stop]) for name, column in self.values)
        return Settings(self.seeds[start:stop], values)

    def padded(self, num: int) -> Settings:
        """`num` lanes, the last one repeated: devices get equally many."""
        rows = [min(i, self.num - 1) for i in range(num)]
        values = tuple((name, tuple(column[i] for i in rows)) for name, column in self.values)
        return Settings(tuple(self.seeds[i] for i in rows), values)

    def fill(self, hyper: Any, learner: Any = None) -> Any:
        """`hyper` with the swept leaves leading with lanes. ValueError for a name that is no traced number."""
        leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(hyper)}
        columns = dict(self.values)
        for name in columns:
            _check_swept(name, leaves, hyper, learner)

        def put(path: Any, leaf: Any) -> Any:
            name = _name(path)
            if name not in columns:
                return leaf
            return jnp.asarray(np.asarray(columns[name]), jnp.asarray(leaf).dtype)

        return jax.tree_util.tree_map_with_path(put, hyper)


def _check_swept(name: str, leaves: dict[str, Any], hyper: Any, learner: Any) -> None:
    numbers = [path for path, leaf in leaves.items() if np.size(leaf) <= _MOST_SWEPT]
    if name in numbers:
        return
    traced = f"Traced are {', '.join(numbers)}."
    static = {f.name for f in dataclasses.fields(learner)} if dataclasses.is_dataclass(learner) else set()
    if name in static or name in leaves:
        raise ValueError(
            f"{name} cannot differ between lanes of one compilation: it decides shapes, or is data. Make a compilation "
            f"for each value (`jaxrl-seq sweep` does). {traced}"
        )
    raise ValueError(f"{type(hyper).__name__} has no number {name!r} to sweep. {traced}")


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
