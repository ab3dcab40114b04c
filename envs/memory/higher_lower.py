"""Higher or lower: guess how the next card compares with the visible one; counting cards helps."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.memory import cards
from jaxrl_seq.envs.memory.cards import RANK_LETTERS, RANKS, CardGame, shuffled

Array = jax.Array

HIGHER, LOWER = 0, 1


@struct.dataclass
class HigherLowerState:
    ranks: Array  # int8 [N], the shuffled deck in dealing order; 0 is the ace, 12 the king
    t: Array  # int32 [], steps taken; cards 0 .. t have been dealt


@dataclass(frozen=True)
class HigherLower(CardGame[HigherLowerState]):
    """Say whether the next card's rank is higher (0) or lower (1), until N = 52 * decks cards are dealt (POPGym).

    Observation float32 [13]: the visible card's rank, one-hot, the ace being the lowest. A right guess pays 1 / N, a
    wrong one -1 / N, an equal rank nothing. The episode lasts N - 1 steps. Whoever remembers the cards dealt knows
    what the rest is made of, and does better than by the visible rank alone. `info` is empty. No params.
    """

    name: ClassVar[str] = "higher_lower"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def reset(self, key: Array, params: tuple[()]) -> tuple[HigherLowerState, TimeStep]:
        state = HigherLowerState(ranks=shuffled(key, self.decks, RANKS), t=jnp.int32(0))
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: HigherLowerState, action: Array, params: tuple[()]
    ) -> tuple[HigherLowerState, TimeStep]:
        del key
        before = self._visible(state)
        state = replace(state, t=state.t + 1)
        rise = jnp.sign(self._visible(state) - before).astype(jnp.float32)
        reward = jnp.where(action == HIGHER, rise, -rise) / self.num_cards
        return state, transition(self._obs(state), reward, terminated=state.t >= self.horizon)

    def _visible(self, state: HigherLowerState) -> Array:
        """int8 []: the visible rank; the last step shows the last card."""
        return state.ranks[jnp.minimum(state.t, self.horizon)]

    def _obs(self, state: HigherLowerState) -> Array:
        return jax.nn.one_hot(self._visible(state), RANKS, dtype=jnp.float32)

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (RANKS,))

    def action_space(self) -> Discrete:
        return Discrete(2)

    def expert(self, key: Array, state: HigherLowerState, params: tuple[()]) -> Array:
        """Count the cards: guess what more of the remaining ones are. Knows which remain, not in what order, so this
        is the best that perfect memory can do."""
        del key
        remaining = jnp.arange(self.num_cards, dtype=jnp.int32) > state.t
        rise = jnp.sign(state.ranks - self._visible(state)).astype(jnp.int32)
        return jnp.where(jnp.sum(rise * remaining, dtype=jnp.int32) >= 0, HIGHER, LOWER).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """All exact. By the visible rank r alone: |12 - 2 r| / 13 more cards of one side than of the other, as a share
        of N - 1 cards for N - 1 guesses, on average over r. Counting: see `counting_return`; left out where it would
        take long."""
        exact = {"random": 0.0, "reactive": sum(abs(RANKS - 1 - 2 * r) for r in range(RANKS)) / RANKS**2}
        return exact | ({"expert": counting_return(RANKS, 4 * self.decks)} if self.decks <= 20 else {})

    def render(self, state: HigherLowerState, params: tuple[()]) -> Array:
        """uint8 [64, 144, 3]: the visible card, and how many cards of each rank remain (orange lower, blue higher)."""
        height, width, step, left, tall = 64, 144, 7, 46, 40
        rank = self._visible(state).astype(jnp.int32)
        image = cards.draw_card(cards.table(height, width), 10, 10, RANKS, rank, True, draw.BLACK)
        remaining = jnp.arange(self.num_cards, dtype=jnp.int32) > state.t
        each = jnp.arange(RANKS, dtype=jnp.int32)
        counts = jnp.sum((state.ranks[None] == each[:, None]) & remaining, axis=1, dtype=jnp.int32)
        inks = jnp.asarray([draw.ORANGE, (150, 150, 156), draw.BLUE], jnp.uint8)[jnp.sign(each - rank) + 1]
        image = cards.bars(image, left, 8 + tall, step, jnp.full((RANKS,), tall, jnp.float32), inks // 8 + 208)
        image = cards.bars(image, left, 8 + tall, step, tall * counts / (4 * self.decks), inks)
        image = cards.label_kinds(image, 10 + tall, left, step, RANKS)
        return cards.progress(image, state.t / self.horizon)

    def ascii(self, state: HigherLowerState, params: tuple[()]) -> str:
        ranks, t = np.asarray(state.ranks), int(state.t)
        left = np.bincount(ranks[t + 1 :], minlength=RANKS)
        remaining = " ".join(f"{letter}{count}" for letter, count in zip(RANK_LETTERS, left, strict=True))
        return f"{''.join(RANK_LETTERS[r] for r in ranks[: t + 1])}\nremaining {remaining}"


@functools.cache
def counting_return(ranks: int, copies: int) -> float:
    """Expected return of the counting policy for a deck of `copies` cards of each of `ranks` ranks, exact.

    With m cards to come, H of them higher and L lower, a guess earns |H - L| / m. The m cards are a random choice of
    the N - 1 that are not visible. How many of them differ from the visible card, k = H + L, does not depend on its
    rank; and given k, H is hypergeometric: k out of the cards above and below it.
    """
    cards_ = ranks * copies
    unequal = cards_ - copies
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, cards_ + 1)))])

    def log_choose(n: int, k: np.ndarray) -> np.ndarray:
        inside = (k >= 0) & (k <= n)
        k = np.where(inside, k, 0)
        return np.where(inside, log_factorial[n] - log_factorial[k] - log_factorial[n - k], -np.inf)

    k, m = np.arange(unequal + 1)[None], np.arange(1, cards_)[:, None]
    lead = np.zeros(unequal + 1)  # E |H - L| for each k, the mean over the visible rank
    for rank in range(ranks):
        above, high = (ranks - 1 - rank) * copies, np.arange(unequal + 1)[:, None]
        chance = log_choose(above, high) + log_choose(unequal - above, k - high) - log_choose(unequal, k)
        lead += (np.exp(chance) * np.abs(2 * high - k)).sum(axis=0) / ranks
    differ = np.exp(log_choose(unequal, k) + log_choose(copies - 1, m - k) - log_choose(cards_ - 1, m))
    return float((differ @ lead / m[:, 0]).sum() / cards_)
