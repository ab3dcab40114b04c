"""Repeat previous: name the suit of the card dealt k - 1 cards before the visible one."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

CARDS, SUITS = 52, 4
_LETTERS = "CDHS"  # clubs, diamonds, hearts, spades
_INK = (draw.BLACK, draw.RED, draw.RED, draw.BLACK)


@struct.dataclass
class RepeatPreviousState:
    suits: Array  # int8 [N], the shuffled deck in dealing order
    t: Array  # int32 [], steps taken; cards 0 .. t have been dealt


@dataclass(frozen=True)
class RepeatPrevious(Env[RepeatPreviousState, tuple[()]]):
    """Name the suit seen k - 1 cards ago, while N = 52 * decks cards are dealt one a step (POPGym, Morad et al. 2023).

    k counts the visible card, so k = 1 repeats it and k = 4 looks three cards back. Observation float32 [4]: the
    visible card's suit, one-hot. Actions: the four suits. The episode lasts N - 1 steps; from the k-th card on every
    answer pays +-1 / (N - k), so that a perfect player earns exactly 1. Answers before that pay nothing. No params.
    """

    decks: int = 1
    """Decks of 52 cards shuffled together."""
    k: int = 4
    """How many cards must be remembered, the visible one included."""

    name: ClassVar[str] = "repeat_previous"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def __post_init__(self) -> None:
        if self.decks < 1:
            raise ValueError(f"repeat_previous: decks must be at least 1, got {self.decks}.")
        if not 1 <= self.k < self.num_cards:
            raise ValueError(f"repeat_previous: k must be in 1 .. {self.num_cards - 1}, got {self.k}.")

    @property
    def num_cards(self) -> int:
        return CARDS * self.decks

    @property
    def horizon(self) -> int:
        return self.num_cards - 1

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[RepeatPreviousState, TimeStep]:
        suits = jax.random.permutation(key, jnp.arange(self.num_cards) % SUITS).astype(jnp.int8)
        state = RepeatPreviousState(suits=suits, t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: RepeatPreviousState, action: Array, params: tuple[()]
    ) -> tuple[RepeatPreviousState, TimeStep]:
        del key
        asked = state.t + 1 >= self.k
        points = jnp.where(action == self._target(state), 1.0, -1.0) / (self.num_cards - self.k)
        state = replace(state, t=state.t + 1)
        over = state.t >= self.horizon
        return state, transition(self._obs(state), jnp.where(asked, points, 0.0), terminated=over)

    def _target(self, state: RepeatPreviousState) -> Array:
        """int32 []: the suit to name now; that of the first card while nothing is asked yet."""
        return state.suits[jnp.clip(state.t + 1 - self.k, 0, self.num_cards - 1)].astype(jnp.int32)

    def _visible(self, state: RepeatPreviousState) -> Array:
        # The last step deals the last card, so the index is in bounds for the whole episode, its end included.
        return state.suits[jnp.minimum(state.t, self.num_cards - 1)].astype(jnp.int32)

    def _obs(self, state: RepeatPreviousState) -> Array:
        return jax.nn.one_hot(self._visible(state), SUITS, dtype=jnp.float32)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (SUITS,))

    def action_space(self) -> Discrete:
        return Discrete(SUITS)

    def expert(self, key: Array, state: RepeatPreviousState, params: tuple[()]) -> Array:
        """The right answer."""
        del key
        return self._target(state)

    def reference(self) -> dict[str, float]:
        """All exact. A random answer is right once in four. Without memory the visible suit still tells something:
        one card of it is gone, so each other suit has 13 decks of the remaining 52 decks - 1 cards."""
        seen = 1.0 if self.k == 1 else 2 * (self.num_cards / SUITS) / (self.num_cards - 1) - 1
        return {"random": 2 / SUITS - 1, "reactive": seen, "expert": 1.0}

    def render(self, state: RepeatPreviousState, params: tuple[()]) -> Array:
        """uint8 [48, 96, 3]: right the visible card, left (green frame) the one to name, below the progress."""
        height, width = 48, 96
        image = draw.canvas(height, width, draw.GREY)
        image = _draw_card(image, 14, self._target(state), state.t + 1 >= self.k, draw.GREEN)
        image = _draw_card(image, 54, self._visible(state), jnp.bool_(True), draw.BLUE)
        done = draw.rectangle(height, width, 44, 0, 48, width * state.t / self.horizon)
        return draw.paint(image, done, draw.ORANGE)

    def ascii(self, state: RepeatPreviousState, params: tuple[()]) -> str:
        t = int(state.t)
        dealt = "".join(_LETTERS[int(s)] for s in np.asarray(state.suits)[: t + 1])
        asked = t + 1 - self.k
        return dealt + "\n" + (" " * asked + "^" if asked >= 0 else "")


def _draw_card(image: Array, left: int, suit: Array, open_: Array, frame: tuple[int, int, int]) -> Array:
    """A framed card, 28 x 34 pixels at row 5, with its suit drawn, or face down."""
    height, width = image.shape[:2]
    image = draw.paint(image, draw.rectangle(height, width, 5, left, 39, left + 28), frame)
    image = draw.paint(image, draw.rectangle(height, width, 7, left + 2, 37, left + 26), draw.WHITE)
    back = draw.rectangle(height, width, 9, left + 4, 35, left + 24) & ~open_
    image = draw.paint(image, back, draw.GREY)
    mask = jnp.zeros((height, width), bool).at[12:32, left + 4 : left + 24].set(jnp.array(_suit_masks())[suit])
    return draw.paint(image, mask & open_, jnp.array(_INK, jnp.uint8)[suit])


def _suit_masks() -> np.ndarray:
    """bool [4, 20, 20]: clubs, diamonds, hearts and spades."""
    y, x = np.mgrid[0:20, 0:20] - 9.5

    def disc(y0: float, x0: float, radius: float) -> np.ndarray:
        return (y - y0) ** 2 + (x - x0) ** 2 <= radius**2

    stem = (np.abs(x) <= 1 + np.maximum(y - 4, 0) / 2) & (y >= 0) & (y < 9)
    club = disc(-4.5, 0, 4.2) | disc(1.5, -4.8, 4.2) | disc(1.5, 4.8, 4.2) | stem
    diamond = np.abs(x) / 7 + np.abs(y) / 9.5 <= 1

    def heart(y: np.ndarray) -> np.ndarray:
        lobes = (y + 3.5) ** 2 + (np.abs(x) - 4.2) ** 2 <= 4.6**2
        return lobes | ((y >= -2.5) & (np.abs(x) <= 8.4 * (9 - y) / 11.5))

    spade = heart(-y - 1.5) | stem
    return np.stack([club, diamond, heart(y), spade])
