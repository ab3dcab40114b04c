"""Gamble: two bets that pay well with luck and badly without, and a sure thing that is better than both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.protocol import Env
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition

Array = jax.Array

ARMS = 3
_CHANCE, _WIN, _LOSS = (0.5, 0.5, 0.5), (5.0, 1.0, 1.0), (-15.0, -6.0, 1.0)


@struct.dataclass
class GambleState:
    arm: Array  # int32 [], the arm taken last, -1 before
    won: Array  # bool [], how it came out
    t: Array  # int32 [], steps taken


@struct.dataclass
class GambleParams:
    """float32 [3] each, by arm."""

    chance: Array  # to win
    win: Array
    loss: Array


@dataclass(frozen=True)
class Gamble(Env[GambleState, GambleParams]):
    """One choice of three arms: +5 or -15, +1 or -6, each with chance 1/2, or a sure +1 (Paster et al. 2022).

    A policy that imitates what led to a return of 1 takes the second arm too often, one that imitates a return of 5
    takes the first; `conditioned` gives their exact values. Observation float32 [1]: 1 while the choice is open, then
    0. Actions: the arms. One step, which pays. `info["mean"]`: the mean payoff of the arm taken, a return without the
    luck, 0 at the reset.
    """

    name: ClassVar[str] = "gamble"
    paper: ClassVar[str] = "Paster et al. 2022 (arXiv 2205.15967)"

    @property
    def horizon(self) -> int:
        return 1

    def default_params(self) -> GambleParams:
        return GambleParams(*(jnp.array(numbers, jnp.float32) for numbers in (_CHANCE, _WIN, _LOSS)))

    def reset(self, key: Array, params: GambleParams) -> tuple[GambleState, TimeStep]:
        del key, params
        state = GambleState(arm=jnp.int32(-1), won=jnp.zeros((), bool), t=jnp.int32(0))
        return state, opening(self._obs(state), info={"mean": jnp.float32(0)})

    def step(self, key: Array, state: GambleState, action: Array, params: GambleParams) -> tuple[GambleState, TimeStep]:
        won = jax.random.uniform(key, (), jnp.float32) < params.chance[action]
        state = GambleState(arm=jnp.asarray(action, jnp.int32), won=won, t=state.t + 1)
        reward = jnp.where(won, params.win[action], params.loss[action])
        info = {"mean": _mean_payoffs(params)[action]}
        return state, transition(self._obs(state), reward, terminated=state.t >= self.horizon, info=info)

    def _obs(self, state: GambleState) -> Array:
        return (state.t == 0).astype(jnp.float32)[None]

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (1,))

    def action_space(self) -> Discrete:
        return Discrete(ARMS)

    def expert(self, key: Array, state: GambleState, params: GambleParams) -> Array:
        """The arm with the best mean."""
        del key, state
        return jnp.argmax(_mean_payoffs(params)).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """All exact."""
        means = _default_means()
        return {"random": float(means.mean()), "reactive": float(means.max()), "expert": float(means.max())}

    def conditioned(
        self, target: float, behaviour: tuple[float, ...] = (1 / ARMS, 1 / ARMS, 1 / ARMS)
    ) -> tuple[np.ndarray, float]:
        """Return-conditioned imitation in closed form, at the default params: (the chances [3] of the arms given that
        the return is `target`, by Bayes' rule on data of `behaviour`; the mean return of a policy that samples them).

        Raises ValueError for a return that the data never shows.
        """
        chance = np.array(_CHANCE)
        likelihood = chance * (np.array(_WIN) == target) + (1 - chance) * (np.array(_LOSS) == target)
        joint = np.array(behaviour) * likelihood
        if not joint.sum() > 0:
            raise ValueError(f"gamble: no arm that is played pays {target}; expected one of {sorted({*_WIN, *_LOSS})}.")
        policy = joint / joint.sum()
        return policy, float(policy @ _default_means())

    def render(self, state: GambleState, params: GambleParams) -> Array:
        """uint8 [72, 120, 3]: per arm what it pays with luck (green, up) and without (red, down); the arm taken has an
        orange card, and what did not come out fades."""
        height, width, card = 72, 120, 40
        top, scale = 22.0, 2.6  # the zero line, and pixels per unit
        image = draw.canvas(height, width, (236, 238, 242))
        for arm in range(ARMS):
            left = arm * card
            taken = state.arm == arm
            image = draw.paint(image, draw.rectangle(height, width, 3, left + 3, 69, left + 37) & taken, draw.ORANGE)
            image = draw.paint(image, draw.rectangle(height, width, 5, left + 5, 67, left + 35), draw.WHITE)
            sure = params.win[arm] == params.loss[arm]
            for side, payoff, came in ((8, params.win[arm], state.won), (21, params.loss[arm], ~state.won)):
                end = top - scale * jnp.clip(payoff, -16.0, 6.0)
                high, low = jnp.minimum(top, end), jnp.maximum(top, end)
                bar = draw.rectangle(height, width, high, left + side, low, left + side + 11)
                color = jnp.where(payoff < 0, jnp.array(draw.RED, jnp.int32), jnp.array(draw.GREEN, jnp.int32))
                pale = color + (255 - color) * 7 // 10
                shown = jnp.where((state.arm < 0) | (taken & (came | sure)), color, pale)
                image = draw.paint(image, bar, shown.astype(jnp.uint8))
            zero = draw.rectangle(height, width, top - 0.5, left + 5, top + 0.5, left + 35)
            image = draw.paint(image, zero, draw.BLACK)
        return image

    def ascii(self, state: GambleState, params: GambleParams) -> str:
        lines = []
        for arm in range(ARMS):
            chance, win, loss = (float(x[arm]) for x in (params.chance, params.win, params.loss))
            taken = int(state.arm) == arm
            paid = f" -> {win if bool(state.won) else loss:+g}" if taken else ""
            lines.append(f"{'>' if taken else ' '} {arm}: {win:+g} with chance {chance:g}, else {loss:+g}{paid}")
        return "\n".join(lines)


def _mean_payoffs(params: GambleParams) -> Array:
    """float32 [3]: the mean payoff of each arm."""
    return params.chance * params.win + (1 - params.chance) * params.loss


def _default_means() -> np.ndarray:
    """The same at the default params, on the host."""
    chance = np.array(_CHANCE)
    return chance * np.array(_WIN) + (1 - chance) * np.array(_LOSS)
