"""Environment steps per second under a random policy, episodes reset as they end: `python -m benchmarks.env_sps`.

One device loop per measurement; every output leaf is consumed (summed), so nothing can be optimised away. Three tables:
every environment through `VecEnv`; gymnax's own games through VecEnv and through gymnax's auto-resetting step, raced
against each other; the reset policies side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import publish
from jaxrl_seq.envs import Discrete, Env, VecEnv, list_envs, make
from jaxrl_seq.run.timing import measure, race

GYMNAX = ("CartPole-v1", "MemoryChain-bsuite", "Breakout-MinAtar")
RESETS = ("tmaze", "point_maze", "repeat_previous")


@dataclass(frozen=True)
class Options:
    """Measure environment steps per second."""

    envs: tuple[str, ...] = ()
    """Environment ids (default: every registered one, gymnax's and the reset policies)."""
    num_envs: tuple[int, ...] = (1, 64, 1024, 8192)
    """Environments stepped together."""
    env_steps: int = 2_000_000
    """Environment steps per measured run (fewer when few environments run)."""
    repeats: int = 5
    """Measured runs; the median counts."""


def total(tree: Any) -> jax.Array:
    """One number that depends on every leaf."""
    return sum((jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree)), jnp.float32(0))


def uniform_actions(space: Any, num: int) -> Callable[[jax.Array], jax.Array]:
    """One draw for the whole batch: the policy should not be what is measured."""
    if isinstance(space, Discrete):
        return lambda key: (jax.random.bits(key, (num,)) % space.n).astype(jnp.int32)
    return lambda key: jax.vmap(space.sample)(jax.random.split(key, num))


def ours(env_id: str, num: int, steps: int, policy: Any = "auto") -> Callable[[jax.Array], jax.Array]:
    """`steps` steps of VecEnv with uniform actions."""
    env, params = make(env_id)
    vec = VecEnv(env, num, policy, pool_size=_tickets(env, num, steps) if policy == "pool" else None)
    sample = uniform_actions(env.action_space(), num)

    def run(key: jax.Array) -> jax.Array:
        def one(carry: tuple[Any, jax.Array], keys: jax.Array) -> tuple[tuple[Any, jax.Array], None]:
            state, seen = carry
            state, outcome = vec.step(keys[0], state, sample(keys[1]), params)
            return (state, seen + total((outcome, state.inputs))), None

        start = (vec.reset(key, params), jnp.float32(0))
        return jax.lax.scan(one, start, jax.random.split(key, (steps, 2)))[0][1]

    return run


def gymnax_own(name: str, num: int, steps: int) -> Callable[[jax.Array], jax.Array]:
    """The same with gymnax's own step, which resets at every step."""
    import gymnax

    env, params = gymnax.make(name)
    sample = uniform_actions(Discrete(env.num_actions), num)

    def run(key: jax.Array) -> jax.Array:
        def one(carry: tuple[Any, jax.Array], keys: jax.Array) -> tuple[tuple[Any, jax.Array], None]:
            state, seen = carry
            actions = sample(keys[1])
            step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
            obs, state, *rest = step(jax.random.split(keys[0], num), state, actions, params)
            return (state, seen + total((obs, rest))), None

        _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key, num), params)
        return jax.lax.scan(one, (state, jnp.float32(0)), jax.random.split(key, (steps, 2)))[0][1]

    return run


def _tickets(env: Env, num: int, steps: int) -> int:
    """A pool that cannot run dry: as many resets as there can be episodes."""
    return num * -(-steps // env.horizon) if env.fixed_length else num * steps


def _steps(options: Options, num: int) -> int:
    return max(options.env_steps // max(num, 64), 100)


def every_environment(options: Options, env_ids: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for env_id in env_ids:
        row: dict[str, Any] = {"env": env_id}
        for num in options.num_envs:
            steps = _steps(options, num)
            timing = measure(ours(env_id, num, steps), jax.random.key(0), repeats=options.repeats)
            row |= {f"N={num}": round(num * steps / timing.median_s), f"spread {num}": round(timing.spread, 2)}
            row["compile_s"] = round(timing.compile_s, 2)
        rows.append(row)
        print(row, flush=True)
    return rows


def raced(label: str, options: Options, contestants: dict[str, Callable[[int, int], Any]]) -> list[dict[str, Any]]:
    """A row per contestant: steps/s, and how many times as fast as the last one, run in turns."""
    rows: list[dict[str, Any]] = [{"env": f"{label}, {name}"} for name in contestants]
    for num in options.num_envs:
        steps, key = _steps(options, num), jax.random.key(0)
        programs = {name: jax.jit(build(num, steps)).lower(key).compile() for name, build in contestants.items()}
        seconds = race({name: functools.partial(program, key) for name, program in programs.items()}, options.repeats)
        baseline = list(seconds.values())[-1]
        for row, name in zip(rows, contestants, strict=True):
            row |= {f"N={num}": round(num * steps / seconds[name]), f"ratio {num}": round(baseline / seconds[name], 2)}
    for row in rows:
        print(row, flush=True)
    return rows


def main() -> None:
    options = tyro.cli(Options)
    rows = every_environment(options, options.envs or tuple(list_envs()))
    if not options.envs:
        for name in GYMNAX:
            rows += raced(
                f"gymnax {name}",
                options,
                {
                    "VecEnv": functools.partial(ours, f"gymnax:{name}"),
                    "its own step": functools.partial(gymnax_own, name),
                },
            )
        for name in RESETS:
            policies = ("sync", "pool", "select")
            rows += raced(name, options, {p: functools.partial(ours, name, policy=p) for p in policies})
    publish(
        "env_sps",
        rows,
        "steps/s: median of warm runs; spread: (max - min) / median. The random policy's own draws are included. "
        "ratio: against the last row of the same environment, run in turns.",
    )


if __name__ == "__main__":
    main()
