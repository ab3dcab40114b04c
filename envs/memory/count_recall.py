"""Count recall: say how often the queried kind of card has been dealt so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.memory import cards
from jaxrl_seq.envs.memory.cards import COLORS, RANKS, SUITS, CardGame, shuffled

Array = jax.Array


@struct.dataclass
class CountRecallState:
    values: Array  # int8 [N], the kinds of the cards in dealing order
    queries: Array  # int8 [N], the kind asked for beside each card: a second deck
    counts: Array  # int32 [K], cards of each kind dealt so far, the visible one included
    t: Array  # int32 [], steps taken; cards 0 .. t have been dealt


@dataclass(frozen=True)
class CountRecall(CardGame[CountRecallState]):
    """Beside each card dealt a kind is asked for: how many of it were dealt so far? (POPGym, Morad et al. 2023).

    N = 52 * decks cards of K kinds are dealt, one a step, and as many queries from a second deck. Observation
    float32 [2 K]: (kind of the visible card, kind asked for), one-hot each. Actions: the counts 0 .. N / K; the
    visible card counts too. The episode lasts N - 1 steps, and each answer pays +-1 / (N - 1), so that a perfect
    player earns exactly 1. `info` is empty. No params.
    """

    kinds: int = COLORS
    """What tells cards apart: 2 colours, 4 suits or 13 ranks."""

    name: ClassVar[str] = "count_recall"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kinds not in (COLORS, SUITS, RANKS):
            raise ValueError(f"count_recall: kinds must be 2 (colours), 4 (suits) or 13 (ranks), got {self.kinds}.")

    @property
    def copies(self) -> int:
        """Cards of each kind, the largest answer."""
        return self.num_cards // self.kinds

    def reset(self, key: Array, params: tuple[()]) -> tuple[CountRecallState, TimeStep]:
        values_key, queries_key = jax.random.split(key)
        values = shuffled(values_key, self.decks, self.kinds)
        state = CountRecallState(
            values=values,
            queries=shuffled(queries_key, self.decks, self.kinds),
            counts=jax.nn.one_hot(values[0], self.kinds, dtype=jnp.int32),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state))

    def step(
        self, key: Array, state: CountRecallState, action: Array, params: tuple[()]
    ) -> tuple[CountRecallState, TimeStep]:
        del key
        reward = jnp.where(action == self._answer(state), 1.0, -1.0) / self.horizon
        t = state.t + 1
        dealt = state.values[jnp.minimum(t, self.horizon)]
        counts = state.counts + jax.nn.one_hot(dealt, self.kinds, dtype=jnp.int32)
        state = CountRecallState(values=state.values, queries=state.queries, counts=counts, t=t)
        return state, transition(self._obs(state), reward, terminated=t >= self.horizon)

    def _visible(self, state: CountRecallState) -> tuple[Array, Array]:
        """int8 [] each: the kinds of the visible card and of the query; the last step shows the last of both."""
        place = jnp.minimum(state.t, self.horizon)
        return state.values[place], state.queries[place]

    def _answer(self, state: CountRecallState) -> Array:
        """int32 []: how many cards of the queried kind were dealt."""
        return state.counts[self._visible(state)[1]]

    def _obs(self, state: CountRecallState) -> Array:
        return jax.nn.one_hot(jnp.stack(self._visible(state)), self.kinds, dtype=jnp.float32).ravel()

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (2 * self.kinds,))

    def action_space(self) -> Discrete:
        return Discrete(self.copies + 1)

    def expert(self, key: Array, state: CountRecallState, params: tuple[()]) -> Array:
        """The right answer."""
        del key
        return self._answer(state)

    def reference(self) -> dict[str, float]:
        """All exact. A random answer is right once in n + 1, n = N / K being the cards of a kind.

        Without memory and without a clock: among the N - 1 answers, the number of queried cards dealt before the
        visible one takes each value but the largest equally often on average, namely N / (n + 1) times where the
        visible card is of another kind, N / n times where it is of that kind. With 1 - 1/K and 1/K as weights this
        makes (N + 1) / (n + 1) right answers."""
        right = (self.num_cards + 1) / (self.copies + 1)
        return {"random": 2 / (self.copies + 1) - 1, "reactive": 2 * right / self.horizon - 1, "expert": 1.0}

    def render(self, state: CountRecallState, params: tuple[()]) -> Array:
        """uint8 [64, 176, 3]: the visible card (blue), the query (orange), and how many were dealt of each kind."""
        height, width, left, tall, step = 64, 176, 78, 40, 7 * RANKS // self.kinds
        value, query = self._visible(state)
        image = cards.table(height, width)
        image = cards.draw_card(image, 10, 8, self.kinds, value, True, cards.SEEN)
        image = cards.draw_card(image, 10, 42, self.kinds, query, True, cards.ASKED)
        kind = jnp.arange(self.kinds, dtype=jnp.int32)[:, None]
        full = jnp.full((self.kinds,), tall, jnp.float32)
        slot = jnp.full((self.kinds, 3), 218, jnp.uint8)
        ink = jnp.where(kind == query, jnp.asarray(cards.ASKED, jnp.uint8), jnp.uint8(120))
        image = cards.bars(image, left, 8 + tall, step, full, slot)
        image = cards.bars(image, left, 8 + tall, step, tall * state.counts / self.copies, ink)
        image = cards.label_kinds(image, 10 + tall, left, step, self.kinds)
        return cards.progress(image, state.t / self.horizon)

    def ascii(self, state: CountRecallState, params: tuple[()]) -> str:
        letters, t = cards.kind_letters(self.kinds), int(state.t)
        rows = (np.asarray(deck)[: t + 1] for deck in (state.values, state.queries))
        dealt, asked = ("".join(letters[kind] for kind in row) for row in rows)
        return f"dealt {dealt}\nasked {asked}\n{asked[-1]} x {int(state.counts[letters.index(asked[-1])])}"
