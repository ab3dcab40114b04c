"""Repeat previous: name the suit of the card dealt k - 1 cards before the visible one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.memory.cards import SUIT_LETTERS, SUITS, CardGame, shuffled, suit_game

Array = jax.Array


@struct.dataclass
class RepeatPreviousState:
    suits: Array  # int8 [N], the shuffled deck in dealing order
    t: Array  # int32 [], steps taken; cards 0 .. t have been dealt


@dataclass(frozen=True)
class RepeatPrevious(CardGame[RepeatPreviousState]):
    """Name the suit seen k - 1 cards ago, while N = 52 * decks cards are dealt one a step (POPGym, Morad et al. 2023).

    k counts the visible card, so k = 1 repeats it and k = 4 looks three cards back. Observation float32 [4]: the
    visible card's suit, one-hot. Actions: the four suits. The episode lasts N - 1 steps; from the k-th card on every
    answer pays +-1 / (N - k), so that a perfect player earns exactly 1. Answers before that pay nothing. No params.
    """

    k: int = 4
    """How many cards must be remembered, the visible one included."""

    name: ClassVar[str] = "repeat_previous"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k < self.num_cards:
            raise ValueError(f"repeat_previous: k must be in 1 .. {self.num_cards - 1}, got {self.k}.")

    def reset(self, key: Array, params: tuple[()]) -> tuple[RepeatPreviousState, TimeStep]:
        state = RepeatPreviousState(suits=shuffled(key, self.decks, SUITS), t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: RepeatPreviousState, action: Array, params: tuple[()]
    ) -> tuple[RepeatPreviousState, TimeStep]:
        del key
        points = jnp.where(action == state.suits[self._target(state)], 1.0, -1.0) / (self.num_cards - self.k)
        reward = jnp.where(self._asked(state), points, 0.0)
        state = replace(state, t=state.t + 1)
        return state, transition(self._obs(state), reward, terminated=state.t >= self.horizon)

    def _asked(self, state: RepeatPreviousState) -> Array:
        return state.t + 1 >= self.k

    def _target(self, state: RepeatPreviousState) -> Array:
        """int32 []: the place of the card to name; the first one while nothing is asked yet."""
        return jnp.clip(state.t + 1 - self.k, 0, self.num_cards - 1)

    def _visible(self, state: RepeatPreviousState) -> Array:
        """int32 []: the place of the visible card; the last step shows the last card."""
        return jnp.minimum(state.t, self.num_cards - 1)

    def _obs(self, state: RepeatPreviousState) -> Array:
        return jax.nn.one_hot(state.suits[self._visible(state)], SUITS, dtype=jnp.float32)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (SUITS,))

    def action_space(self) -> Discrete:
        return Discrete(SUITS)

    def expert(self, key: Array, state: RepeatPreviousState, params: tuple[()]) -> Array:
        """The right answer."""
        del key
        return state.suits[self._target(state)].astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """All exact. A random answer is right once in four. Without memory the visible suit still tells something:
        one card of it is gone, so each other suit has 13 decks of the remaining 52 decks - 1 cards."""
        seen = 1.0 if self.k == 1 else 2 * (self.num_cards / SUITS) / (self.num_cards - 1) - 1
        return {"random": 2 / SUITS - 1, "reactive": seen, "expert": 1.0}

    def render(self, state: RepeatPreviousState, params: tuple[()]) -> Array:
        """uint8 [64, 112, 3]: left the card to name (orange frame), right the visible one, below the cards dealt."""
        dealt = jnp.arange(self.num_cards, dtype=jnp.int32) <= state.t
        yes = jnp.ones((), bool)
        return suit_game(state.suits, dealt, self._visible(state), yes, self._target(state), self._asked(state))

    def ascii(self, state: RepeatPreviousState, params: tuple[()]) -> str:
        t = int(state.t)
        dealt = "".join(SUIT_LETTERS[s] for s in np.asarray(state.suits)[: t + 1])
        asked = t + 1 - self.k
        return dealt + "\n" + (" " * asked + "^" if asked >= 0 else "")
