"""Concentration: turn over cards two at a time and remember where their like lies."""

from __future__ import annotations

import colorsys
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.core import rendering as draw
from jaxrl_seq.envs.core.spaces import Box, Discrete
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.memory import cards
from jaxrl_seq.envs.memory.cards import COLORS, RANKS, SUITS, CardGame, shuffled

Array = jax.Array

_COLUMNS = 13
_MOST_COUNTS = 100_000
"""States that the exact return of random play may take; 1 deck of ranks has 105, 2 decks have 2380."""


@struct.dataclass
class ConcentrationState:
    kinds: Array  # int8 [N], what lies where
    matched: Array  # bool [N], cards that found their like and stay face up
    turned: Array  # int32 [2], places of the cards of this turn, or of the last one if none is under way; -1: none
    waiting: Array  # bool [], turned[0] lies face up and a second card is due
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class Concentration(CardGame[ConcentrationState]):
    """Find the pairs among N = 52 * decks cards lying face down (POPGym, Morad et al. 2023).

    An action turns over the card at one of the N places. Two in a row are a turn: if they are of the same kind they
    stay face up, else they are turned back. Observation float32 [N (K + 1)]: what each place shows, one-hot, its last
    entry meaning face down. Both cards of a finished turn are shown once, before they are turned back. A pair pays
    2 / N, so that finding all earns 1. Two different cards, or the same one twice, pay -2 / T. A card that is matched
    already ends the turn; it pays -1 / T as the first card of the turn, -2 / T as the second. The first card of a
    turn pays nothing otherwise. The episode ends when all are matched, or after T = 2 N steps.
    `info["success"]`: all are matched. No params.
    """

    kinds: int = COLORS
    """What must agree: 2 colours, 4 suits (with an even number of decks) or 13 ranks."""

    name: ClassVar[str] = "concentration"
    paper: ClassVar[str] = "Morad et al. 2023 (arXiv 2303.01859)"
    fixed_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kinds not in (COLORS, SUITS, RANKS) or self.num_cards // self.kinds % 2:
            raise ValueError(
                "concentration: kinds must be 2 (colours), 13 (ranks), or 4 (suits) where decks is even, so that all "
                f"cards have their like; got {self.kinds} with {self.decks} decks."
            )

    @property
    def horizon(self) -> int:
        return 2 * self.num_cards

    def reset(self, key: Array, params: tuple[()]) -> tuple[ConcentrationState, TimeStep]:
        no = jnp.zeros((), bool)
        state = ConcentrationState(
            kinds=shuffled(key, self.decks, self.kinds),
            matched=jnp.zeros(self.num_cards, bool),
            turned=jnp.full((2,), -1, jnp.int32),
            waiting=no,
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": no})

    def step(
        self, key: Array, state: ConcentrationState, action: Array, params: tuple[()]
    ) -> tuple[ConcentrationState, TimeStep]:
        del key
        first = jnp.where(state.waiting, state.turned[0], action)
        second = jnp.where(state.waiting, action, -1)
        futile = state.matched[action]
        alike = (state.kinds[first] == state.kinds[action]) & (first != action)
        pair = state.waiting & alike & ~futile

        fine = jnp.where(state.waiting, 2.0, futile.astype(jnp.float32)) / self.horizon
        reward = jnp.where(pair, 2.0 / self.num_cards, -fine)
        turned = jnp.stack([first, second])
        state = ConcentrationState(
            kinds=state.kinds,
            matched=state.matched | (pair & self._among(turned)),
            turned=turned,
            waiting=~state.waiting & ~futile,
            t=state.t + 1,
        )
        success = state.matched.all()
        over = success | (state.t >= self.horizon)
        return state, transition(self._obs(state), reward, terminated=over, info={"success": success})

    def _among(self, turned: Array) -> Array:
        """bool [N]: the places that are among the two given."""
        place = jnp.arange(self.num_cards, dtype=jnp.int32)
        return (place == turned[0]) | (place == turned[1])

    def _obs(self, state: ConcentrationState) -> Array:
        face_up = state.matched | self._among(state.turned)
        shown = jnp.where(face_up, state.kinds, self.kinds)
        return jax.nn.one_hot(shown, self.kinds + 1, dtype=jnp.float32).ravel()

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (self.num_cards * (self.kinds + 1),))

    def action_space(self) -> Discrete:
        return Discrete(self.num_cards)

    def expert(self, key: Array, state: ConcentrationState, params: tuple[()]) -> Array:
        """The first card that is face down, then the first one like it. It sees the deck: no player can do as well."""
        del key
        like = state.kinds == state.kinds[jnp.maximum(state.turned[0], 0)]
        place = jnp.arange(self.num_cards, dtype=jnp.int32)
        wanted = ~state.matched & (~state.waiting | (like & (place != state.turned[0])))
        return jnp.argmax(wanted).astype(jnp.int32)

    def reference(self) -> dict[str, float]:
        """Both exact. The best policy without memory is not known."""
        pairs = self.num_cards // self.kinds // 2
        known = math.comb(self.kinds + pairs, pairs) <= _MOST_COUNTS
        return ({"random": random_return(self.kinds, 2 * pairs)} if known else {}) | {"expert": 1.0}

    def render(self, state: ConcentrationState, params: tuple[()]) -> Array:
        """uint8 [72 decks + 10, 188, 3]: cards in rows of 13; those of the turn are framed, blue while the second is
        due, then green for a pair and red for none. The bar below is the progress."""
        return _draw(self.kinds, self.horizon, state)

    def ascii(self, state: ConcentrationState, params: tuple[()]) -> str:
        letters = cards.kind_letters(self.kinds)
        face_up = np.asarray(state.matched | self._among(state.turned))
        shown = np.array([letters[kind] if up else "." for kind, up in zip(state.kinds, face_up, strict=True)])
        shown = [f"[{c}]" if i in state.turned.tolist() else f" {c} " for i, c in enumerate(shown)]
        rows = ["".join(shown[i : i + _COLUMNS]) for i in range(0, self.num_cards, _COLUMNS)]
        return "\n".join([*rows, f"step {int(state.t)} of {self.horizon}, {int(state.matched.sum()) // 2} pairs"])


def random_return(kinds: int, copies: int) -> float:
    """Expected return of uniform actions on a deck of `kinds` kinds, `copies` cards of each (an even number).

    Backwards over the steps left. At the start of a turn the chances depend only on how many kinds have how many
    pairs found: counts [S, P + 1], of sum `kinds`, by the number of pairs found, 0 .. P = copies / 2.
    """
    pairs, cards_ = copies // 2, kinds * copies
    counts = _compositions(kinds, pairs + 1)
    found = counts @ np.arange(pairs + 1)
    face_up = 2 * found / cards_  # the chance of an action that ends the turn
    left = copies - 2 * np.arange(pairs)  # cards face down of a kind, by the number of its pairs found
    first = counts[:, :-1] * left / cards_
    second = np.broadcast_to((left - 1) / cards_, first.shape)

    # Where one more pair of a kind leads; a kind there is none of has no chance, and leads anywhere.
    index = {tuple(row): i for i, row in enumerate(counts.tolist())}
    step = np.eye(pairs + 1, dtype=int)[1:] - np.eye(pairs + 1, dtype=int)[:-1]
    onward = np.array([[index.get(tuple(row), 0) for row in (c + step).tolist()] for c in counts])

    fine, prize, over = -1 / (2 * cards_), 2 / cards_, found == kinds * pairs
    turn, waiting = np.zeros(len(counts)), np.zeros(first.shape)
    for _ in range(2 * cards_):
        new_turn = face_up * (fine + turn) + (first * waiting).sum(axis=1)
        # The card lies face up and waits; what does not match it ends the turn.
        new_waiting = second * (prize + turn[onward]) + (1 - second) * (2 * fine + turn[:, None])
        turn, waiting = np.where(over, 0.0, new_turn), new_waiting
    return float(turn[index[(kinds, *[0] * pairs)]])


def _compositions(total: int, parts: int) -> np.ndarray:
    """int [C, parts]: every way to write `total` as an ordered sum of `parts` whole numbers from 0."""
    bars = itertools.combinations(range(total + parts - 1), parts - 1)
    edges = np.array([(-1, *bar, total + parts - 1) for bar in bars])
    return np.diff(edges, axis=1) - 1


_TALL, _WIDE, _MARGIN = 18, 14, 3
_BACK, _WEAVE = (96, 124, 164), (126, 152, 188)


def _draw(kinds: int, horizon: int, state: ConcentrationState) -> Array:
    rows = state.kinds.shape[0] // _COLUMNS
    height, width = rows * _TALL + 2 * _MARGIN + 4, _COLUMNS * _WIDE + 2 * _MARGIN
    y, x = np.mgrid[0:height, 0:width] - _MARGIN
    row, col = np.clip(y // _TALL, 0, rows - 1), np.clip(x // _WIDE, 0, _COLUMNS - 1)
    dy, dx = y - _TALL * row, x - _WIDE * col
    edge = np.minimum(np.minimum(dy, _TALL - 1 - dy), np.minimum(dx, _WIDE - 1 - dx))
    corner = (np.abs(dy - 8.5) > 7) & (np.abs(dx - 6.5) > 5)  # rounds the cards off
    card = jnp.asarray((edge >= 1) & ~corner)
    place = jnp.asarray(_COLUMNS * row + col, jnp.int32)

    faces = _faces(kinds)[state.kinds[place], np.clip(dy, 0, _TALL - 1), np.clip(dx, 0, _WIDE - 1)]
    matched, turned = state.matched[place], (place == state.turned[0]) | (place == state.turned[1])
    weave = jnp.asarray(((dy + dx) % 4 == 0) | ((dy - dx) % 4 == 0))[..., None]
    back = jnp.where(weave, jnp.asarray(_WEAVE, jnp.uint8), jnp.asarray(_BACK, jnp.uint8))
    image = draw.paint(cards.table(height, width), card & ~(matched | turned), back)
    image = draw.paint(image, card & (matched | turned), faces)
    image = draw.paint(image, card & matched & (edge == 1), draw.GREY)
    ended = jnp.where(matched[..., None], jnp.asarray(draw.GREEN), jnp.asarray(draw.RED))
    frame = jnp.where(state.waiting, jnp.asarray(cards.SEEN), ended)
    image = draw.paint(image, card & turned & (edge <= 2), frame)
    return cards.progress(image, state.t / horizon)


def _faces(kinds: int) -> Array:
    """uint8 [kinds, 18, 14, 3]: small faces; ranks each on a hue of their own."""
    sheet = draw.canvas(_TALL, _WIDE * kinds)
    top, left = (6, 5) if kinds == RANKS else (4, 1)
    sheet = cards.label_kinds(sheet, top, left, _WIDE, kinds)
    tiles = sheet.reshape(_TALL, kinds, _WIDE, 3).transpose(1, 0, 2, 3)
    if kinds != RANKS:
        return tiles
    hues = [colorsys.hsv_to_rgb(i / kinds, 0.32 + 0.12 * (i % 2), 0.98) for i in range(kinds)]
    paper = jnp.asarray(np.round(255 * np.array(hues)), jnp.uint8)[:, None, None]
    return jnp.where((tiles == 255).all(axis=-1, keepdims=True), paper, jnp.asarray(draw.BLACK, jnp.uint8))
