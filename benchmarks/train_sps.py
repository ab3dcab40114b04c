"""Training steps per second, compile time and size of PPO with each memory: `python -m benchmarks.train_sps`.

Everything is counted: acting, environment, advantages, epochs. The default rows are the default recipe (64 environments
x 102 steps, 4 epochs x 4 minibatches, width 64); `--peers` adds the sizes at which other libraries were measured on two
cores (width 256, one layer, 16 x 128).
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import publish
from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import MODELS, make_model
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.run.lanes import Settings
from jaxrl_seq.run.programs import compile_programs


@dataclass(frozen=True)
class Setting:
    """One row: what is trained at what size."""

    model: str
    env: str = "tmaze"
    num_envs: int = 64
    num_steps: int = 102
    options: tuple[tuple[str, Any], ...] = (("width", 64),)
    peer: str | None = None
    """A published figure of the same size on two cores of another machine of this kind: "library: steps/s"."""


@dataclass(frozen=True)
class Options:
    """Measure training steps per second."""

    models: tuple[str, ...] = ()
    """Models of the default rows (default: all)."""
    peers: bool = True
    """Also measure at the peers' sizes."""
    seconds: float = 4.0
    """Length of a measured run."""
    repeats: int = 5
    """Measured runs; the median counts."""


PEERS = (
    Setting(
        "s5", "repeat_previous-easy", 16, 128, (("width", 256), ("layers", 1), ("state", 256)), "popjaxrl S5: 4690"
    ),
    Setting("gru", "repeat_previous-easy", 16, 128, (("width", 256),), "popjaxrl GRU: 1785"),
    Setting("gru", "repeat_previous-easy", 64, 128, (("width", 256),), "popjaxrl GRU: 3281"),
    Setting(
        "s5",
        "noisy_position_only_cartpole",
        16,
        128,
        (("width", 256), ("layers", 1), ("state", 256)),
        "popjaxrl S5: 4687",
    ),
    Setting("gru", "noisy_position_only_cartpole", 16, 128, (("width", 256),), "popjaxrl GRU: 1903"),
    Setting(
        "transformer",
        "gymnax:MemoryChain-bsuite,memory_length=16",
        32,
        128,
        (("width", 64), ("layers", 2), ("window", 64)),
        "transformerXL_PPO_JAX: 5247",
    ),
    Setting("gru", "gymnax:MemoryChain-bsuite,memory_length=16", 32, 128, (("width", 64),), "agalite GRU: 26116"),
)


def measure_setting(setting: Setting, seconds: float, repeats: int) -> dict[str, Any]:
    """Compile, warm up, and time whole updates; the state goes on from run to run as in training."""
    env, params = make(setting.env)
    model = make_model(setting.model, **dict(setting.options))
    learner = make_ppo(VecEnv(env, setting.num_envs), model, num_steps=setting.num_steps)
    hyper = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32) if isinstance(x, float) else x, PPOHyper(env_params=params)
    )
    programs = compile_programs(learner, hyper, Settings((0,)), log_every=1, eval_episodes=0)
    state = programs.fresh()
    size = sum(math.prod(p.shape) for p in jax.tree.leaves(state.params))

    def run(state: Any, updates: int) -> tuple[Any, float]:
        start = time.perf_counter()
        state = jax.block_until_ready(programs.update(state, updates)[0])
        return state, time.perf_counter() - start

    state, _ = run(state, 1)
    state, once = run(state, 1)
    updates = max(1, min(round(seconds / once), 64))
    times = []
    for _ in range(repeats):
        state, elapsed = run(state, updates)
        times.append(elapsed)
    median = statistics.median(times)
    return {
        "model": setting.model,
        "env": setting.env,
        "envs x steps": f"{setting.num_envs}x{setting.num_steps}",
        "width": dict(setting.options)["width"],
        "parameters": size,
        "compile_s": round(programs.seconds, 1),
        "steps_per_second": round(updates * learner.steps_per_update / median),
        "spread": round((max(times) - min(times)) / median, 2),
        "peer": setting.peer,
    }


def main() -> None:
    options = tyro.cli(Options)
    settings = [Setting(name) for name in options.models or tuple(MODELS)]
    settings += PEERS if options.peers else ()
    rows = []
    for setting in settings:
        rows.append(measure_setting(setting, options.seconds, options.repeats))
        print(rows[-1], flush=True)
    publish(
        "train_sps",
        rows,
        "steps/s of whole PPO updates (4 epochs x 4 minibatches): median of warm runs; spread: (max - min) / median. "
        "compile_s: initialisation and update. Peer figures were measured on another two-core machine.",
    )


if __name__ == "__main__":
    main()
