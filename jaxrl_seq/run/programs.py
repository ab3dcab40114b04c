"""The compiled programs of a run: initialise, many updates, evaluate. No callback, no host round-trip inside."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrl_seq.run import mesh as meshes
from jaxrl_seq.run.lanes import Lanes, Settings
from jaxrl_seq.types import Array, Metrics, PyTree

ROWS = 64
"""Metric rows that one call of the update program can fill."""
_EVALUATE = 0xE7A1


@dataclass
class Programs:
    """What a run does on its devices, compiled once; `seconds` is what that took. Results come to the host."""

    many: Any
    """The learner, or its lanes; on a mesh perhaps a few more of them than are wanted."""
    settings: Settings
    mesh: Mesh | None
    keys: Any
    hyper: Any
    shapes: PyTree
    """Of the state."""
    compiled: dict[str, Any]
    seconds: float
    memory: int
    """Bytes that the updates need of a device, the state included."""

    @property
    def evaluates(self) -> bool:
        return "play" in self.compiled

    def fresh(self) -> PyTree:
        """The state of a run that begins."""
        return self.compiled["init"](self.keys, self.hyper)

    def update(self, state: PyTree, updates: int) -> tuple[PyTree, dict[str, np.ndarray]]:
        """(state, sums [ROWS] or [ROWS, S]) after so many updates; see `update_rows`. The state is donated."""
        state, sums = self.compiled["chunk"](state, self.hyper, np.int32(updates))
        return state, self._wanted(sums, axis=1)

    def play(self, state: PyTree, update: int) -> Any:
        """The episodes of the evaluation after `update`: the same, however often they are played."""
        return self._wanted(self.compiled["play"](state, self.hyper, self.keys, np.int32(update)), axis=0)

    def _wanted(self, tree: PyTree, axis: int) -> PyTree:
        """On the host, without the lanes that fill up a mesh."""
        host = jax.device_get(tree)
        lanes = range(self.settings.num)
        return host if self.mesh is None else jax.tree.map(lambda x: x.take(lanes, axis=axis), host)

    # ---- what a checkpoint holds: the wanted lanes, so that another number of devices can go on from it ----
    def to_save(self, state: PyTree) -> PyTree:
        """All processes must call it."""
        return state if self.mesh is None else meshes.fetch(state, self.settings.num)

    def saved_target(self) -> PyTree:
        """For `Checkpoints.restore`."""
        return self.shapes if self.mesh is None else meshes.host_target(self.shapes, self.settings.num)

    def from_saved(self, state: PyTree) -> PyTree:
        """A restored state, on the devices of this run."""
        return state if self.mesh is None else meshes.place_state(self.mesh, state, self.many)


def update_rows(learner: Any, log_every: int) -> Any:
    """The function `(state, hyper, updates) -> (state, sums)`: `updates` (traced int32) updates in one device loop.

    `sums[name]` is [ROWS] (or [ROWS, S]): row i adds up the metrics of updates i*log_every ... Because the number of
    updates is traced, one compilation serves every chunk length, and how a run is cut into chunks cannot change it.
    """

    # Traced once for its shapes and its program alike; inlined, so that XLA sees one loop body.
    update = jax.jit(learner.update, inline=True)

    def run(state: PyTree, hyper: Any, updates: Array) -> tuple[PyTree, Metrics]:
        shapes = jax.eval_shape(update, state, hyper)[1]
        names = sorted(shapes)
        # All metrics in one array: one write per update instead of one per metric.
        empty = jnp.zeros((ROWS, len(names), *shapes[names[0]].shape), jnp.float32)

        def body(i: Array, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
            state, sums = carry
            state, metrics = update(state, hyper)
            return state, sums.at[i // log_every].add(jnp.stack([metrics[name] for name in names]))

        state, sums = jax.lax.fori_loop(0, updates, body, (state, empty))
        return state, {name: sums[:, i] for i, name in enumerate(names)}

    return run


def compile_programs(
    learner: Any, hyper: Any, settings: Settings, log_every: int, eval_episodes: int, mesh: Mesh | None = None
) -> Programs:
    """Compile everything a run needs before its first step: a single run, or lanes where there are several of them,
    where hyper-parameters are swept, or on a mesh. ValueError for a sweep or a mesh that cannot be.
    """
    start = time.perf_counter()
    if mesh is not None:
        meshes.check_data(mesh, learner)
    filled = settings.padded(meshes.padded(settings.num, mesh))
    single = filled.num == 1 and not filled.values and mesh is None
    many: Any = learner if single else Lanes(learner, filled.num, filled.swept)
    hyper = filled.fill(hyper, learner)
    keys = jax.vmap(jax.random.key)(jnp.asarray(filled.seeds))
    keys = keys[0] if single else keys
    state = jax.eval_shape(many.init, keys, hyper)
    cut = meshes.Cut(mesh, many, state, hyper)

    def play(state: PyTree, hyper: Any, keys: Array, update: Array) -> PyTree:
        return many.evaluate(state, hyper, evaluation_keys(keys, update), episodes=eval_episodes)

    number = jax.ShapeDtypeStruct((), jnp.int32)
    chunk = cut.jit(update_rows(many, log_every), "state hyper number", "state rows", donate_argnums=0)
    traced = {
        "chunk": chunk.lower(state, hyper, number),
        "init": cut.jit(many.init, "keys hyper", "state").lower(keys, hyper),
    }
    if eval_episodes and hasattr(learner, "evaluate"):
        traced["play"] = cut.jit(play, "state hyper keys number", "lanes").lower(state, hyper, keys, number)
    # Side by side: a compilation keeps a second core busy only part of the time.
    with ThreadPoolExecutor(len(traced)) as pool:
        done = list(pool.map(lambda program: program.compile(compiler_options=_compiler_options()), traced.values()))
    compiled = dict(zip(traced, done, strict=True))
    seconds = time.perf_counter() - start
    keys, hyper = cut.put(keys, "keys"), cut.put(hyper, "hyper")
    return Programs(many, settings, mesh, keys, hyper, state, compiled, seconds, _memory(compiled["chunk"]))


def _memory(compiled: Any) -> int:
    """Arguments (the state, which results replace in place) and temporaries; 0 where the backend does not tell."""
    stats = compiled.memory_analysis()
    return 0 if stats is None else int(stats.argument_size_in_bytes + stats.temp_size_in_bytes)


def _compiler_options() -> dict[str, Any]:
    """On CPU, LLVM's first level: it compiles a quarter faster, and these programs run as fast (measured)."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def evaluation_keys(keys: Array, update: int | Array) -> Array:
    """Keys of the evaluation after `update`, of their own stream: training never sees them. [] or [S]."""

    def fold(key: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, _EVALUATE), update)

    return fold(keys) if keys.ndim == 0 else jax.vmap(fold)(keys)
