"""Episodes as pictures: from a scripted policy or a trained agent to GIF, an HTML player or text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.envs import Env
from jaxrl_seq.online import Recording

PyTree = Any


class Clip(NamedTuple):
    """One episode on the host, from its reset to its end."""

    frames: np.ndarray  # uint8 [T + 1, height, width, 3]
    rewards: np.ndarray  # float32 [T]; rewards[t] brought frames[t + 1]


def record_policy(
    env: Env, params: PyTree, policy: str, *, episodes: int = 4, seed: int = 0, max_steps: int = 200
) -> Recording:
    """`episodes` episodes of "random" play or of the environment's "expert"."""
    if policy not in ("random", "expert"):
        raise ValueError(f"Policy {policy!r}: choose expert, random, or the folder of a run.")
    if policy == "expert" and not env.has("expert"):
        raise ValueError(f"{env.name} has no expert; choose random, or the folder of a run.")
    steps = min(env.horizon, max_steps)

    def act(key: Any, state: PyTree) -> PyTree:
        return env.expert(key, state, params) if policy == "expert" else env.action_space().sample(key)

    def one(key: Any) -> tuple[PyTree, Any, Any]:
        reset_key, key = jax.random.split(key)
        state, _ = env.reset(reset_key, params)

        def step(carry: Any, key: Any) -> Any:
            state, over = carry
            act_key, step_key = jax.random.split(key)
            after, timestep = env.step(step_key, state, act(act_key, state), params)
            return (after, over | timestep.done), (state, timestep.reward, ~over)

        (last, _), (states, rewards, running) = jax.lax.scan(
            step, (state, jnp.zeros((), bool)), jax.random.split(key, steps)
        )
        states = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), states, last)
        return states, rewards, jnp.sum(running, dtype=jnp.int32)

    keys = jax.random.split(jax.random.key(seed), episodes)
    return Recording(*jax.device_get(jax.jit(jax.vmap(one, out_axes=(1, 1, 0)))(keys)))


def draw(env: Env, params: PyTree, recording: Recording) -> list[Clip]:
    """The environment's pictures of every recorded episode. ValueError if it draws none."""
    if not env.has("render"):
        raise ValueError(f"{env.name} has no render method; see envs/README.md on writing one.")
    params = env.default_params() if params is None else params
    render = jax.jit(jax.vmap(env.render, in_axes=(0, None)))
    clips = []
    for i, length in enumerate(np.asarray(recording.lengths)):
        frames = np.asarray(render(jax.tree.map(lambda x, i=i: x[:, i], recording.states), params))
        clips.append(Clip(frames[: length + 1], np.asarray(recording.rewards[:length, i])))
    return clips


def text_frames(env: Env, params: PyTree, recording: Recording, episode: int = 0) -> list[str]:
    """The environment's text picture of every state of one episode, with what was earned below it."""
    if not env.has("ascii"):
        raise ValueError(f"{env.name} has no ascii method; see envs/README.md on writing one.")
    length = int(recording.lengths[episode])
    rewards = np.append(0.0, recording.rewards[:length, episode]) + 0.0  # no "-0"
    states = [jax.tree.map(lambda x, t=t: x[t, episode], recording.states) for t in range(length + 1)]
    sums = rewards.cumsum()
    return [
        f"{env.ascii(state, params)}\nstep {t} of {length}  reward {rewards[t]:.3g}  return {sums[t]:.3g}"
        for t, state in enumerate(states)
    ]


def write_clips(path: Path, title: str, clips: list[Clip], fps: float) -> Path:
    """A GIF, all episodes side by side, or an HTML page with a player, by the ending of the name."""
    if path.suffix == ".gif":
        from jaxrl_seq.run.video import grid, write_gif

        scale = max(1, 160 // clips[0].frames.shape[2])
        return write_gif(path, grid([clip.frames for clip in clips]), fps=fps, scale=scale)
    if path.suffix == ".html":
        from jaxrl_seq.run.player import player_page

        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(player_page(title, clips, fps))
        return path
    raise ValueError(f"{path}: end the name in .gif or .html.")
