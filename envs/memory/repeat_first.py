"""Repeat first: name the suit of the first card for as long as cards are dealt."""

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
class RepeatFirstState:
    suits: Array  # int8 [N], the shuffled deck in dealing order
    t: Array  # int32 [], steps taken; cards 0 .. t have been dealt


@dataclass(frozen=True)
class RepeatFirst(CardGame[RepeatFirstState]):
    """Name the first card's suit at every step, while N = 52 * decks cards are dealt (POPGym, Morad et al. 2023).

    Observation float32 [4]: the visible card's suit, one-hot; at the reset that is the first card. Actions: the four
    suits. The episode lasts N - 1 steps, and each answer pays +-1 / (N - 1), so that a perfect player earns exactly 1.
    `info` is empty. No params.
    """

    name: ClassVar[str] = "repeat_first"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def reset(self, key: Array, params: tuple[()]) -> tuple[RepeatFirstState, TimeStep]:
        state = RepeatFirstState(suits=shuffled(key, self.decks, SUITS), t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: RepeatFirstState, action: Array, params: tuple[()]
    ) -> tuple[RepeatFirstState, TimeStep]:
        del key
        reward = jnp.where(action == state.suits[0], 1.0, -1.0) / self.horizon
        state = replace(state, t=state.t + 1)
        return state, transition(self._obs(state), reward, terminated=state.t >= self.horizon)

    def _visible(self, state: RepeatFirstState) -> Array:
        """int32 []: the place of the visible card; the last step shows the last card."""
        return jnp.minimum(state.t, self.horizon)

    def _obs(self, state: RepeatFirstState) -> Array:
        return jax.nn.one_hot(state.suits[self._visible(state)], SUITS, dtype=jnp.float32)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (SUITS,))

    def action_space(self) -> Discrete:
        return Discrete(SUITS)

    def expert(self, key: Array, state: RepeatFirstState, params: tuple[()]) -> Array:
        """The right answer."""
        del key
        return state.suits[0].astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """All exact. Without memory the best is to name the visible suit: right at the reset, where the visible card
        is the first, and afterwards whenever it is one of the N / 4 - 1 others of that suit among N - 1 cards."""
        others = (self.num_cards / SUITS - 1) / (self.num_cards - 1)
        right = (1 + (self.horizon - 1) * others) / self.horizon
        return {"random": 2 / SUITS - 1, "reactive": 2 * right - 1, "expert": 1.0}

    def render(self, state: RepeatFirstState, params: tuple[()]) -> Array:
        """uint8 [64, 112, 3]: left the first card (orange frame), right the visible one, below the cards dealt."""
        dealt = jnp.arange(self.num_cards, dtype=jnp.int32) <= state.t
        yes = jnp.ones((), bool)
        return suit_game(state.suits, dealt, self._visible(state), yes, jnp.int32(0), yes)

    def ascii(self, state: RepeatFirstState, params: tuple[()]) -> str:
        dealt = np.asarray(state.suits)[: int(state.t) + 1]
        return "".join(SUIT_LETTERS[s] for s in dealt) + "\n^"
