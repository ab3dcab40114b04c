"""Checks of whole episodes: what is seen, paid and ended, and the returns that the environment claims."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxrl_seq.envs.checking.probe import Probe
from jaxrl_seq.envs.checking.report import EnvCheckError
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete

SIGMAS = 4.5
"""Standard errors by which a measured return may miss the claimed one."""
MOST_ACTIONS = 256


def observations(probe: Probe) -> None:
    """Every observation of whole episodes is finite and in its space, as are the expert's actions and the rewards."""
    rules = {
        "illegal_obs": "obs leaves observation_space() or is not finite. Check its bounds, also at the last step",
        "illegal_action": "expert gives an action outside of action_space(). Clip or cast it",
        "suboptimal": "expert gives an action that is not among optimal_actions(). One of them is wrong",
        "bad_reward": "reward is not finite",
        "reopened": "step sets `first`, or resets inside; expected only reset to open. Leave resetting to VecEnv",
        "both_ends": "step sets terminated and truncated, expected one. Build the TimeStep with `transition`",
    }
    for policy, episodes in probe.play.items():
        for field, message in rules.items():
            _none(getattr(episodes, field), f"{policy} play: {message}")


def actions(probe: Probe) -> None:
    """Every declared action is accepted, and a mask leaves a choice."""
    space = probe.env.action_space()
    if isinstance(space, Discrete):
        tried = jnp.arange(min(space.n, MOST_ACTIONS), dtype=jnp.int32)
    elif isinstance(space, MultiDiscrete):
        tried = jnp.stack([jnp.zeros(len(space.ns), jnp.int32), jnp.array(space.ns, jnp.int32) - 1])
    elif isinstance(space, Box):
        tried = jnp.stack([jnp.asarray(bound) for bound in space.bounds])
    else:
        tried = jax.vmap(space.sample)(jax.random.split(probe.some_key(30), 8))
    step = jax.jit(jax.vmap(probe.env.step, in_axes=(None, None, 0, None)))
    _, timestep = step(probe.some_key(31), probe.opened[0], tried, probe.params)
    seen = np.asarray(jax.vmap(probe.env.observation_space().contains)(timestep.obs))
    for i in np.argwhere(~(seen & np.isfinite(np.asarray(timestep.reward).reshape(len(seen), -1)).all(1)))[:1, 0]:
        raise EnvCheckError(
            f"action {np.asarray(tried[i])} of {space} gives an obs outside of its space or the reward "
            f"{timestep.reward[i]}. Expected every declared action to be played: treat the odd ones as no-ops."
        )
    for what, mask in (("reset", probe.opened[1].action_mask), ("step", timestep.action_mask)):
        if mask is None:
            continue
        want = (space.n,) if isinstance(space, Discrete) else (space.flat_dim,)
        if mask.dtype != jnp.bool_ or mask.shape[-1:] != want:
            raise EnvCheckError(f"{what}: action_mask is {mask.dtype}{list(mask.shape)}, expected bool{list(want)}.")
        if not bool(mask.any(-1).all()):
            raise EnvCheckError(f"{what}: action_mask allows no action at all; expected at least one.")


def indices(probe: Probe) -> None:
    """No index is out of bounds, nothing divides by zero, nothing is NaN, over whole episodes with their last step."""
    steps = min(probe.env.horizon, 2000)

    def episode(key: Any, params: Any) -> Any:
        random = probe.trajectory(key, params, jnp.zeros(steps, bool))
        return random, probe.trajectory(key, params, jnp.ones(steps, bool))

    errors = checkify.index_checks | checkify.nan_checks | checkify.div_checks
    error, _ = jax.jit(checkify.checkify(episode, errors=errors))(probe.some_key(32), probe.params)
    message = error.get()
    if message:
        raise EnvCheckError(
            f"{message.splitlines()[0]} Expected none: JAX clamps such an index or goes on with the NaN in silence. "
            "Clip the index, or guard the division with jnp.where on its argument."
        )


def ends(probe: Probe) -> None:
    """Episodes end within the horizon, by the flag that `time_limit` names, and at the horizon if of fixed length."""
    env = probe.env
    for policy, episodes in probe.play.items():
        over = (episodes.terminated | episodes.truncated) & (episodes.lengths <= env.horizon)
        lengths, late = episodes.lengths, episodes.lengths[episodes.truncated]
        rules = [
            (over, f"an episode is not over after horizon={env.horizon} steps; expected terminated or truncated. "
             "Count the steps in the state, or raise the horizon"),
            (~episodes.truncated | (env.time_limit == "truncate"), 'truncated is set, but time_limit is "terminal". '
             'Pass terminated=, or declare time_limit = "truncate"'),
            (late == env.horizon, f"truncated after {late.min(initial=0)} steps, expected after horizon={env.horizon}. "
             "Only the time limit truncates"),
            ((lengths == env.horizon) | (not env.fixed_length), f"an episode lasts {lengths.min()} steps, but "
             f"fixed_length promises horizon={env.horizon}. Declare fixed_length = False"),
        ]  # fmt: skip
        for holds, message in rules:
            if not holds.all():
                raise EnvCheckError(f"{policy} play: {message} (in {np.mean(~holds):.0%} of episodes).")


def after_end(probe: Probe) -> None:
    """A step after the end stays in the spaces: lanes of a batch go on until the last one is over."""
    for policy, episodes in probe.play.items():
        message = "obs leaves observation_space() or is not finite after the end. Clip positions and clocks"
        _none(np.asarray(episodes.illegal_after), f"{policy} play: {message}")


def reference(probe: Probe) -> str:
    """Random play and the expert earn what `reference()` says; a good expert beats a policy without memory."""
    env = probe.env
    if not env.has("reference"):
        return "no reference() declared"
    claimed = env.reference()
    unknown = sorted(set(claimed) - {"random", "reactive", "expert"})
    if unknown:
        raise EnvCheckError(f"reference() names {', '.join(unknown)}; expected only random, reactive and expert.")
    for policy, episodes in probe.play.items():
        if policy not in claimed:
            continue
        mean = float(episodes.returns.mean())
        error = float(episodes.returns.std()) / len(episodes.returns) ** 0.5
        if abs(mean - claimed[policy]) > SIGMAS * error + 1e-4 * max(1.0, abs(claimed[policy])):
            raise EnvCheckError(
                f'reference()["{policy}"] is {claimed[policy]:.4g}, but {len(episodes.returns)} episodes earn '
                f"{mean:.4g} +- {error:.2g}. Measure or derive it anew."
            )
    order = [claimed[policy] for policy in ("random", "reactive", "expert") if policy in claimed]
    if order != sorted(order):
        raise EnvCheckError(f"reference() is {claimed}; expected random <= reactive <= expert.")
    return ""


def _none(found: np.ndarray, message: str) -> None:
    if (found >= 0).any():
        raise EnvCheckError(
            f"{message} (first at step {int(found[found >= 0].min())}, in {np.mean(found >= 0):.0%} of episodes)."
        )
