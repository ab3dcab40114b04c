"""Autoencode: watch a deck being dealt, then recite it backwards."""

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
class AutoencodeState:
    suits: Array  # int8 [N], the shuffled deck in dealing order
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class Autoencode(CardGame[AutoencodeState]):
    """See N = 52 * decks suits, one a step, then name them in reverse order (POPGym, Morad et al. 2023).

    Observation float32 [6]: (watch flag, play flag, suit on show one-hot). The play flag is set together with the last
    card, which is thus named while it is on show; from then on no card is. Actions: the four suits. The episode lasts
    2 N - 1 steps: N - 1 to watch, whose actions do nothing, then N answers of +-1 / N, so that a perfect player earns
    exactly 1. `info` is empty. No params.
    """

    name: ClassVar[str] = "autoencode"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    @property
    def horizon(self) -> int:
        return 2 * self.num_cards - 1

    def reset(self, key: Array, params: tuple[()]) -> tuple[AutoencodeState, TimeStep]:
        state = AutoencodeState(suits=shuffled(key, self.decks, SUITS), t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: AutoencodeState, action: Array, params: tuple[()]
    ) -> tuple[AutoencodeState, TimeStep]:
        del key
        points = jnp.where(action == state.suits[self._target(state)], 1.0, -1.0) / self.num_cards
        reward = jnp.where(self._playing(state), points, 0.0)
        state = replace(state, t=state.t + 1)
        return state, transition(self._obs(state), reward, terminated=state.t >= self.horizon)

    def _playing(self, state: AutoencodeState) -> Array:
        return state.t >= self.num_cards - 1

    def _shown(self, state: AutoencodeState) -> Array:
        return state.t <= self.num_cards - 1

    def _visible(self, state: AutoencodeState) -> Array:
        """int32 []: the place of the card on show, the last one dealt."""
        return jnp.minimum(state.t, self.num_cards - 1)

    def _target(self, state: AutoencodeState) -> Array:
        """int32 []: the place of the card to name; the last one while nothing is asked, the first one after the end."""
        return jnp.clip(2 * self.num_cards - 2 - state.t, 0, self.num_cards - 1)

    def _obs(self, state: AutoencodeState) -> Array:
        playing = self._playing(state)
        mode = jnp.stack([~playing, playing]).astype(jnp.float32)
        suit = jax.nn.one_hot(state.suits[self._visible(state)], SUITS, dtype=jnp.float32)
        return jnp.concatenate([mode, suit * self._shown(state)])

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (2 + SUITS,))

    def action_space(self) -> Discrete:
        return Discrete(SUITS)

    def expert(self, key: Array, state: AutoencodeState, params: tuple[()]) -> Array:
        """The right answer; while watching, the last card's suit, which nobody asks for yet."""
        del key
        return state.suits[self._target(state)].astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """All exact. Without memory only the first answer is sure, its card being on show; the others look alike."""
        guess = 2 / SUITS - 1
        return {"random": guess, "reactive": (1 + (self.num_cards - 1) * guess) / self.num_cards, "expert": 1.0}

    def render(self, state: AutoencodeState, params: tuple[()]) -> Array:
        """uint8 [64, 112, 3]: left the card to name (orange frame), right the one on show, below those yet to name."""
        place = jnp.arange(self.num_cards, dtype=jnp.int32)
        left = jnp.minimum(self._visible(state), 2 * self.num_cards - 2 - state.t)
        over = state.t >= self.horizon
        asked = self._playing(state) & ~over
        return suit_game(
            state.suits, place <= left, self._visible(state), self._shown(state), self._target(state), asked
        )

    def ascii(self, state: AutoencodeState, params: tuple[()]) -> str:
        t, last = int(state.t), self.num_cards - 1
        deck = "".join(SUIT_LETTERS[s] for s in np.asarray(state.suits))
        if t < last:
            return f"watch\n{deck[: t + 1]}"
        return f"play\n{deck[: 2 * last + 1 - t]}\n{' ' * (2 * last - t)}^"
