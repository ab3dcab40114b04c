"""Environment steps per second under a random policy, episodes reset as they end: `python -m benchmarks.env_sps`.

One device loop per measurement; every output leaf is consumed (summed), so nothing can be optimised away. With gymnax
installed, its CartPole and MemoryChain run twice: through our VecEnv and through gymnax's own auto-resetting step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import publish
from jaxrl_seq.envs import VecEnv, list_envs, make
from jaxrl_seq.run.timing import measure

GYMNAX = ("CartPole-v1", "MemoryChain-bsuite")


@dataclass(frozen=True)
class Options:
    """Measure environment steps per second."""

    envs: tuple[str, ...] = ()
    """Environment ids (default: every registered one and two of gymnax)."""
    num_envs: tuple[int, ...] = (1, 64, 1024, 8192)
    """Environments stepped together."""
    env_steps: int = 2_000_000
    """Environment steps per measured run (fewer when few environments run)."""
    repeats: int = 5
    """Measured runs; the median counts."""


def total(tree: Any) -> jax.Array:
    """One number that depends on every leaf."""
    return sum((jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree)), jnp.float32(0))


def ours(env_id: str, num: int, steps: int) -> Callable[[jax.Array], jax.Array]:
    """`steps` steps of VecEnv with uniform actions."""
    env, params = make(env_id)
    vec = VecEnv(env, num)
    sample = jax.vmap(env.action_space().sample)

    def run(key: jax.Array) -> jax.Array:
        def one(carry: tuple[Any, jax.Array], keys: jax.Array) -> tuple[tuple[Any, jax.Array], None]:
            state, seen = carry
            state, outcome = vec.step(keys[0], state, sample(jax.random.split(keys[1], num)), params)
            return (state, seen + total((outcome, state.inputs))), None

        start = (vec.reset(key, params), jnp.float32(0))
        return jax.lax.scan(one, start, jax.random.split(key, (steps, 2)))[0][1]

    return run


def gymnax_own(name: str, num: int, steps: int) -> Callable[[jax.Array], jax.Array]:
    """The same with gymnax's own step, which resets at every step."""
    import gymnax

    env, params = gymnax.make(name)
    sample = jax.vmap(env.action_space(params).sample)

    def run(key: jax.Array) -> jax.Array:
        def one(carry: tuple[Any, jax.Array], keys: jax.Array) -> tuple[tuple[Any, jax.Array], None]:
            state, seen = carry
            actions = sample(jax.random.split(keys[1], num))
            step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
            obs, state, *rest = step(jax.random.split(keys[0], num), state, actions, params)
            return (state, seen + total((obs, rest))), None

        _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key, num), params)
        return jax.lax.scan(one, (state, jnp.float32(0)), jax.random.split(key, (steps, 2)))[0][1]

    return run


def main() -> None:
    options = tyro.cli(Options)
    env_ids = options.envs or (*list_envs(), *(f"gymnax:{name}" for name in GYMNAX))
    programs = [(env_id, ours, env_id) for env_id in env_ids]
    programs += [(f"gymnax {name} (own step)", gymnax_own, name) for name in GYMNAX if not options.envs]
    rows = []
    for label, build, name in programs:
        row: dict[str, Any] = {"env": label}
        for num in options.num_envs:
            steps = max(options.env_steps // max(num, 64), 100)
            timing = measure(build(name, num, steps), jax.random.key(0), repeats=options.repeats)
            row |= {f"N={num}": round(num * steps / timing.median_s), f"spread {num}": round(timing.spread, 2)}
            row["compile_s"] = round(timing.compile_s, 2)
        rows.append(row)
        print(row, flush=True)
    publish(
        "env_sps",
        rows,
        "steps/s: median of warm runs; spread: (max - min) / median. The random policy's own draws are included.",
    )


if __name__ == "__main__":
    main()
