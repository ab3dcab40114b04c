"""Honest times: compilation apart, every output waited for, the median of repeats with their spread beside
it.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Timing:
    """What `measure` found. median_s: of `runs` (seconds each); spread: (max - min) / median; compile_s:
    seconds.
    """

    median_s: float
    spread: float
    runs: tuple[float, ...]
    compile_s: float


def measure(fn: Callable[..., Any], *args: Any, repeats: int = 5, warmup: int = 1) -> Timing:
    """Times a pure function of arrays on the device it runs on.

    fn: jitted or plain (then it is jitted here); close over static arguments. It is compiled ahead of time,
    called `warmup` times unmeasured and `repeats` times measured, each until all outputs are ready. Raises
    ValueError for repeats < 1 and for a function that donates its arguments, which could not be called twice.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats is {repeats} and warmup {warmup}: at least 1 and 0")
    compiled, compile_s = compile_timed(fn if hasattr(fn, "lower") else jax.jit(fn), *args)
    jax.block_until_ready(args)
    runs = [_one_run(compiled, args) for _ in range(warmup + repeats)][warmup:]
    median = statistics.median(runs)
    return Timing(median, (max(runs) - min(runs)) / median, tuple(runs), compile_s)


def race(contestants: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each call, run in turns so that a machine's drift meets all alike; outputs are waited for.

    contestants: compiled calls without arguments; each runs once unmeasured first. ValueError for rounds < 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: at least 1")
    runs: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, call in contestants.items():
            seconds = _one_run(call, ())
            runs[name] += [seconds] if number else []
    return {name: statistics.median(seconds) for name, seconds in runs.items()}


def compile_timed(jitted: Any, *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """Traces, lowers and compiles a jitted function for these arguments; returns (compiled, seconds).

    `compiled` takes the same arguments without the static ones. With a warm persistent compilation cache the
    seconds are those of a cache read. Arguments may be jax.ShapeDtypeStruct.
    """
    start = time.perf_counter()
    compiled = jitted.lower(*args, **kwargs).compile()
    return compiled, time.perf_counter() - start


def _one_run(compiled: Any, args: tuple[Any, ...]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    seconds = time.perf_counter() - start
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(args)):
        raise ValueError("the function donates its arguments: jit it without donate_argnums to measure it")
    return seconds
