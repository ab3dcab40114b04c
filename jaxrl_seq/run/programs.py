"""The compiled programs of a run: initialise, many updates, evaluate. No callback, no host round-trip inside."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_seq.run.lanes import Lanes
from jaxrl_seq.types import Array, Metrics, PyTree

ROWS = 64
"""Metric rows that one call of the update program can fill."""
_EVALUATE = 0xE7A1


@dataclass
class Programs:
    """Compiled once for a learner; `seconds` is what that took."""

    lanes: Lanes | None
    learner: Any
    keys: Array
    init: Any
    chunk: Any
    evaluate: Any
    seconds: float


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
    learner: Any, hyper: Any, seed: int, num_seeds: int, log_every: int, eval_episodes: int
) -> Programs:
    """Compile everything a run needs before its first step. Lane i starts from `seed + i`."""
    start = time.perf_counter()
    lanes = Lanes(learner, num_seeds) if num_seeds > 1 else None
    many = lanes or learner
    keys = jax.vmap(jax.random.key)(jnp.arange(seed, seed + num_seeds))
    keys = keys if lanes else keys[0]
    state = jax.eval_shape(many.init, keys, hyper)
    chunk = jax.jit(update_rows(many, log_every), donate_argnums=0)
    traced = [
        chunk.lower(state, hyper, jax.ShapeDtypeStruct((), jnp.int32)),
        jax.jit(many.init).lower(keys, hyper),
    ]
    if eval_episodes and hasattr(learner, "evaluate"):

        def play(state: PyTree, hyper: Any, keys: Array) -> PyTree:
            return many.evaluate(state, hyper, keys, episodes=eval_episodes)

        traced.append(jax.jit(play).lower(state, hyper, keys))
    # Side by side: a compilation keeps a second core busy only part of the time.
    with ThreadPoolExecutor(len(traced)) as pool:
        compiled = list(pool.map(lambda program: program.compile(compiler_options=_compiler_options()), traced))
    chunk, init, evaluate = (*compiled, None)[:3]
    return Programs(lanes, learner, keys, init, chunk, evaluate, time.perf_counter() - start)


def _compiler_options() -> dict[str, Any]:
    """On CPU, LLVM's first level: it compiles a quarter faster, and these programs run as fast (measured)."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def evaluation_keys(keys: Array, update: int) -> Array:
    """Keys of the evaluation after `update`, of their own stream: training never sees them. [] or [S]."""

    def fold(key: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, _EVALUATE), update)

    return fold(keys) if keys.ndim == 0 else jax.vmap(fold)(keys)
