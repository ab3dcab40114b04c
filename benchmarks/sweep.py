"""What a lane costs, and a sweep beside a plain vmap of a whole training: `python -m benchmarks.sweep`.

`lanes`: small PPO runs side by side, 1 to 256 of them; the knee is the number from which on a lane costs about as
little as it ever does (see `knee`). `vmap`: 32 seeds of PPO on CartPole by `train`, and by one jitted, vmapped function
that scans over all updates and returns every step's infos, the PureJaxRL way; each in a process of its own. `memory`:
what the two programs need of a device by XLA's account, for longer and longer runs. On an H200:
`python -m benchmarks.sweep --numbers 1 16 64 256 1024 4096 --seeds 1024 --total-steps 2000000`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import publish
from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPO, PPOHyper, make_ppo
from jaxrl_seq.online import ppo as parts
from jaxrl_seq.online.rollout import rollout
from jaxrl_seq.run.lanes import Settings
from jaxrl_seq.run.loop import train
from jaxrl_seq.run.programs import compile_programs


@dataclass(frozen=True)
class Options:
    """Measure sweeps."""

    what: tuple[Literal["lanes", "vmap", "memory"], ...] = ("lanes", "vmap", "memory")
    """Which tables."""
    numbers: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Of lanes."""
    seconds: float = 2.0
    """Length of a measured run, at least one update."""
    repeats: int = 3
    """Measured runs; the median counts."""
    seeds: int = 32
    """Of the sweep beside a plain vmap."""
    total_steps: int = 100_000
    """Of one of them."""
    lengths: tuple[int, ...] = (100_000, 500_000, 2_000_000)
    """Steps of a seed, for the memory."""
    only: Literal["ours", "vmap"] | None = None
    """Run one side in this process and print its numbers (what the benchmark starts)."""


# ---- cost against lanes ----


def small() -> tuple[PPO, PPOHyper]:
    """Four environments and a GRU of width 16: an update is overhead, unless lanes share it."""
    env, params = make("tmaze,length=10")
    learner = make_ppo(VecEnv(env, 4), make_model("gru", width=16), num_steps=24, epochs=1, minibatches=2)
    return learner, PPOHyper(env_params=params)


def measure_lanes(num: int, seconds: float, repeats: int) -> dict[str, Any]:
    learner, hyper = small()
    programs = compile_programs(learner, hyper, Settings.grid(range(num), lr=(1e-3,)), 1, 0)
    state, _ = programs.update(programs.fresh(), 1)
    once = timed(lambda: programs.update(state, 0)[0])[1]  # of calling alone
    state = programs.fresh()
    state, first = timed(lambda: programs.update(state, 2)[0])
    updates = max(1, min(64, round(2 * seconds / max(first - once, 1e-6))))
    times = []
    for _ in range(repeats):
        state, elapsed = timed(lambda state=state: programs.update(state, updates)[0])
        times.append(elapsed)
    median = statistics.median(times)
    each = median / updates / num
    return {
        "lanes": num,
        "ms_per_update": round(1e3 * median / updates, 3),
        "us_per_lane": round(1e6 * each, 1),
        "steps_per_second": round(learner.steps_per_update / each),
        "memory_mb": round(programs.memory / 1e6, 1),
        "compile_s": round(programs.seconds, 1),
        "spread": round((max(times) - min(times)) / median, 2),
    }


def knee(rows: list[dict[str, Any]]) -> int:
    """The first number of lanes at which the cost of a lane is within a fifth of the lowest."""
    least = min(row["us_per_lane"] for row in rows)
    return next(row["lanes"] for row in rows if row["us_per_lane"] <= 1.2 * least)


def timed(action: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = jax.block_until_ready(action())
    return result, time.perf_counter() - start


# ---- beside a plain vmap of a whole training ----


def cartpole() -> tuple[PPO, PPOHyper]:
    env, params = make("cartpole")
    learner = make_ppo(VecEnv(env, 4), make_model("mlp", width=64), num_steps=128, epochs=4, minibatches=4)
    return learner, PPOHyper(env_params=params, lr=2.5e-4, entropy_coef=0.01)


def ours(options: Options) -> dict[str, Any]:
    learner, hyper = cartpole()
    run, wall = timed_train(learner, hyper, options)
    return_mean = [row["return_mean"] for row in run.rows if row["kind"] == "train"][-1]
    clock = run.summary["time_split"]
    return {"wall_s": wall, "compile_s": clock["compile_s"], "train_s": clock["update_s"], "return": return_mean}


def timed_train(learner: PPO, hyper: PPOHyper, options: Options) -> tuple[Any, float]:
    start = time.perf_counter()
    run = train(learner, hyper, num_seeds=options.seeds, total_steps=options.total_steps, evaluations=0, progress=False)
    return run, time.perf_counter() - start


def whole_training(learner: PPO, hyper: PPOHyper, updates: int) -> Any:
    """key -> (final state, (every step's infos [updates, T, B], metrics [updates])): what such scripts return."""

    def one(state: Any, _: Any) -> tuple[Any, Any]:
        """`PPO.update`, which keeps what the rollout saw."""
        act_key, shuffle_key = jax.random.split(jax.random.fold_in(state.key, state.update))
        env, agent = learner.env, learner.agent
        acting, (seen, episodes) = rollout(
            env, agent, state.params, state.acting, act_key, hyper.env_params, learner.num_steps
        )
        batch, lr = parts._with_advantages(seen, hyper), parts._learning_rate(state.update, hyper)
        (params, opt_state), losses = learner._optimise(shuffle_key, state.params, state.opt_state, batch, hyper, lr)
        state = state.replace(params=params, opt_state=opt_state, acting=acting, update=state.update + 1)
        infos = {
            "reward": seen.reward,
            "returned_episode": seen.terminated | seen.truncated,
            "value": seen.value,
            "log_prob": seen.log_prob,
        }
        return state, (infos, episodes | losses)

    def run(key: jax.Array) -> Any:
        return jax.lax.scan(one, learner.init(key, hyper), length=updates)

    return run


def plain_program(seeds: int, total_steps: int) -> tuple[Any, Any]:
    """(compiled, the keys that it takes)"""
    learner, hyper = cartpole()
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    run = whole_training(learner, hyper, -(-total_steps // learner.steps_per_update))
    return jax.jit(jax.vmap(run)).lower(keys).compile(), keys


def plain(options: Options) -> dict[str, Any]:
    start = time.perf_counter()
    program, keys = plain_program(options.seeds, options.total_steps)
    compile_s = time.perf_counter() - start
    (_, (_, metrics)), train_s = timed(lambda: program(keys))
    with_returns = metrics["return_sum"][:, -1] / jnp.maximum(metrics["episodes"][:, -1], 1)
    return {
        "wall_s": time.perf_counter() - start,
        "compile_s": compile_s,
        "train_s": train_s,
        "return": with_returns.tolist(),
    }


def alone(options: Options) -> dict[str, Any]:
    """One side, in this process."""
    result = ours(options) if options.only == "ours" else plain(options)
    returns = [value for value in result.pop("return") if value is not None]
    return result | {"return": statistics.mean(returns)}


def needs(program: Any) -> float:
    """Megabytes of a device: arguments, temporaries, and results that replace no argument."""
    stats = program.memory_analysis()
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return (stats.argument_size_in_bytes + stats.temp_size_in_bytes + results) / 1e6


def measure_memory(options: Options) -> list[dict[str, Any]]:
    learner, hyper = cartpole()
    chunk = compile_programs(learner, hyper, Settings.grid(range(options.seeds)), 1, 0).compiled["chunk"]
    rows = []
    for steps in options.lengths:
        theirs = needs(plain_program(options.seeds, steps)[0])
        row = {"seeds": options.seeds, "steps": steps, "ours_mb": round(needs(chunk), 1), "vmap_mb": round(theirs, 1)}
        rows.append(row | {"vmap/ours": round(theirs / needs(chunk), 2)})
    return rows


def side_by_side(options: Options) -> list[dict[str, Any]]:
    sizes = ["--seeds", str(options.seeds), "--total-steps", str(options.total_steps)]
    rows = []
    for side in ("ours", "vmap"):
        command = [sys.executable, "-m", "benchmarks.sweep", "--only", side, *sizes]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append({"side": side, "seeds": options.seeds} | {k: round(v, 2) for k, v in row.items()})
    return rows


def main() -> None:
    options = tyro.cli(Options)
    if options.only is not None:
        print(json.dumps(alone(options)))
        return
    if "lanes" in options.what:
        rows = [measure_lanes(num, options.seconds, options.repeats) for num in options.numbers]
        publish("sweep_lanes", rows, f"Small PPO lanes in one program; the knee is at {knee(rows)} lanes.")
    if "vmap" in options.what:
        length = f"{options.total_steps:,} steps each"
        note = f"The same seeds of PPO on CartPole, {length}: the sweep's loop, and a jitted vmap of a whole training."
        publish("sweep_vmap", side_by_side(options), note)
    if "memory" in options.what:
        publish("sweep_memory", measure_memory(options), "Device memory of the same programs, by XLA's account.")


if __name__ == "__main__":
    main()
