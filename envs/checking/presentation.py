"""Checks of pictures and storage, and what an environment costs."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs.checking.probe import Probe, first_difference, host
from jaxrl_seq.envs.checking.report import EnvCheckError
from jaxrl_seq.envs.core.vector import VecEnv


def pictures(probe: Probe) -> str:
    """`render` is uint8 [H, W, 3], never blank, and changes; `ascii` is text and changes."""
    env, missing = probe.env, [what for what in ("render", "ascii") if not probe.env.has(what)]
    states, _ = jax.jit(probe.trajectory)(probe.some_key(60), probe.params)
    number = jax.tree.leaves(states)[0].shape[0]
    rows = [jax.tree.map(lambda x, i=i: x[i], states) for i in range(number)]
    if env.has("render"):
        images = np.asarray(jax.jit(jax.vmap(env.render, in_axes=(0, None)))(states, probe.params))
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise EnvCheckError(
                f"render makes {images.dtype}{list(images.shape[1:])}, expected uint8[height, width, 3]."
            )
        blank = images.reshape(number, -1).std(1) == 0
        if blank.any() or (images == images[0]).all():
            what = f"blank at step {int(blank.argmax())}" if blank.any() else f"the same for {number} steps"
            raise EnvCheckError(f"the picture is {what}; expected one that shows the state. Draw what changes.")
    if env.has("ascii"):
        texts = [env.ascii(row, probe.params) for row in rows]
        if not all(isinstance(text, str) and text.strip() for text in texts) or len(set(texts)) == 1:
            raise EnvCheckError(f"ascii gives {texts[0]!r} ... {texts[-1]!r}; expected non-empty text that changes.")
    return f"no {' and no '.join(missing)}" if missing else ""


def storage(probe: Probe) -> None:
    """A state comes back from a file as it was."""
    state = probe.stepped[0]
    keys = [path for path, leaf in jax.tree_util.tree_leaves_with_path(state) if _is_key(leaf)]
    if keys:
        raise EnvCheckError(
            f"state{jax.tree_util.keystr(keys[0])} is a random key; expected none: copies of a state would share "
            "their future. Use the key that step is given."
        )
    file = io.BytesIO()
    np.savez(file, *host(state).values())
    file.seek(0)
    with np.load(file) as stored:
        loaded = [stored[name] for name in stored.files]
    restored = jax.tree.unflatten(jax.tree.structure(state), loaded)
    again = probe.step(probe.some_key(61), restored, probe.action, probe.params)
    difference = first_difference(again, probe.step(probe.some_key(61), state, probe.action, probe.params))
    if difference:
        raise EnvCheckError(f"a step from a stored state differs: {difference}. Keep all state in arrays.")


def cost(probe: Probe) -> dict[str, Any]:
    """Bytes, operations and compile time, and the reset policy that "auto" takes."""

    def program(fn: Any, *args: Any) -> tuple[float, float]:
        start = time.monotonic()
        compiled = jax.jit(lambda *args: fn(*args)).lower(*args).compile()  # a new function: nothing is cached
        analysis = compiled.cost_analysis() or {}
        return float(analysis.get("flops", 0.0)), time.monotonic() - start

    def size(tree: Any) -> int:
        return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree) if not _is_key(x))

    key, (state, timestep) = probe.some_key(62), probe.opened
    reset, reset_seconds = program(probe.env.reset, key, probe.params)
    step, step_seconds = program(probe.env.step, key, state, probe.action, probe.params)
    return {
        "state_bytes": size(state),
        "obs_bytes": size(timestep.obs),
        "step_flops": round(step),
        "reset_flops": round(reset),
        "compile_s": round(reset_seconds + step_seconds, 2),
        "reset_policy": VecEnv(probe.env, 1).reset_policy,
    }


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
