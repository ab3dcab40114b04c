"""Associative recall: learn a table of pairs within the episode, then answer questions about it."""

from __future__ import annotations

import colorsys
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


@struct.dataclass
class AssociativeRecallState:
    keys: Array  # int32 [pairs], distinct
    values: Array  # int32 [pairs]
    order: Array  # int32 [queries], distinct indices of the pairs that are asked for
    mistakes: Array  # int32 [], wrong answers so far
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class AssociativeRecall(Env[AssociativeRecallState, tuple[()]]):
    """See `pairs` (key, value) pairs, wait `delay` steps, then name the values of `queries` of the keys.

    The task of multi-query associative recall (Arora et al. 2023) as an episode. Observations 0 .. 2 pairs - 1 show
    key, value, key, value, ...; then `delay` blanks; then `queries` keys, each answered by the action taken on it.
    Keys are distinct, values are independent and uniform, no key is asked twice. Observation float32
    [num_keys + num_values + 1]: the key and the value shown, one-hot each (zeros if none), and a flag that asks.
    Actions: the values. An answer pays +-1 / queries. The episode lasts 2 pairs + delay + queries steps.
    `info["success"]`: every question was answered rightly. No params.
    """

    pairs: int = 4
    """Pairs shown."""
    delay: int = 0
    """Blank steps between the last pair and the first question."""
    queries: int = 4
    """Questions, at most one a pair."""
    num_keys: int = 8
    """Symbols that keys are drawn from."""
    num_values: int = 8
    """Symbols that values are drawn from; also the number of actions."""

    name: ClassVar[str] = "associative_recall"
    paper: ClassVar[str] = "Arora et al. 2023 (arXiv 2312.04927)"

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= self.num_keys:
            raise ValueError(f"associative_recall: pairs must be in 1 .. num_keys = {self.num_keys}, got {self.pairs}.")
        if not 1 <= self.queries <= self.pairs:
            raise ValueError(f"associative_recall: queries must be in 1 .. pairs = {self.pairs}, got {self.queries}.")
        if self.delay < 0 or self.num_values < 2:
            raise ValueError(
                f"associative_recall: delay must be at least 0 and num_values at least 2, "
                f"got {self.delay} and {self.num_values}."
            )

    @property
    def first_query(self) -> int:
        """The step whose observation asks the first question."""
        return 2 * self.pairs + self.delay

    @property
    def horizon(self) -> int:
        return self.first_query + self.queries

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[AssociativeRecallState, TimeStep]:
        key_keys, key_values, key_order = jax.random.split(key, 3)
        state = AssociativeRecallState(
            keys=jax.random.permutation(key_keys, self.num_keys)[: self.pairs].astype(jnp.int32),
            values=jax.random.randint(key_values, (self.pairs,), 0, self.num_values, jnp.int32),
            order=jax.random.permutation(key_order, self.pairs)[: self.queries].astype(jnp.int32),
            mistakes=jnp.int32(0),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": jnp.zeros((), bool)})

    def step(
        self, key: Array, state: AssociativeRecallState, action: Array, params: tuple[()]
    ) -> tuple[AssociativeRecallState, TimeStep]:
        del key
        right = action == state.values[self._asked_pair(state)]
        asks = self._asks(state)
        reward = jnp.where(asks, jnp.where(right, 1.0, -1.0) / self.queries, 0.0)
        state = replace(state, t=state.t + 1, mistakes=state.mistakes + (asks & ~right))
        over = state.t >= self.horizon
        success = over & (state.mistakes == 0)
        return state, transition(self._obs(state), reward, terminated=over, info={"success": success})

    def _asks(self, state: AssociativeRecallState) -> Array:
        return (state.t >= self.first_query) & (state.t < self.horizon)

    def _asked_pair(self, state: AssociativeRecallState) -> Array:
        """int32 []: the pair now asked for; the first question's before that, the last one's after it."""
        return state.order[jnp.clip(state.t - self.first_query, 0, self.queries - 1)]

    def _shown_pair(self, state: AssociativeRecallState) -> Array:
        return jnp.clip(state.t // 2, 0, self.pairs - 1)

    def _obs(self, state: AssociativeRecallState) -> Array:
        showing, asks = state.t < 2 * self.pairs, self._asks(state)
        pair = jnp.where(asks, self._asked_pair(state), self._shown_pair(state))
        key_visible = asks | (showing & (state.t % 2 == 0))
        value_visible = showing & (state.t % 2 == 1)
        key = jax.nn.one_hot(state.keys[pair], self.num_keys, dtype=jnp.float32) * key_visible
        value = jax.nn.one_hot(state.values[pair], self.num_values, dtype=jnp.float32) * value_visible
        return jnp.concatenate([key, value, asks[None].astype(jnp.float32)])

    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (self.num_keys + self.num_values + 1,))

    def action_space(self) -> Discrete:
        return Discrete(self.num_values)

    def expert(self, key: Array, state: AssociativeRecallState, params: tuple[()]) -> Array:
        """The right answer."""
        del key
        return state.values[self._asked_pair(state)]

    def reference(self) -> dict[str, float]:
        """All exact. A key says nothing about its value, so without memory every guess is as good as another."""
        guess = 2 / self.num_values - 1
        return {"random": guess, "reactive": guess, "expert": 1.0}

    def render(self, state: AssociativeRecallState, params: tuple[()]) -> Array:
        """uint8 [48, 16 pairs + 4, 3]: a column a pair (key above value), grey until shown; orange frames what is
        shown, blue what is asked; the bar below is the progress."""
        height, width = 48, 16 * self.pairs + 4
        y, x = (a.astype(jnp.int32) for a in draw.grid(height, width))
        column = jnp.clip((x - 2) // 16, 0, self.pairs - 1)
        across = (x - 2) % 16
        in_key, in_value = (y >= 4) & (y < 20), (y >= 24) & (y < 40)
        inside = (x >= 2) & (x < width - 2) & (across >= 2) & (across < 14)
        key_cell, value_cell = inside & (y >= 6) & (y < 18), inside & (y >= 26) & (y < 38)

        shown = self._shown_pair(state)
        showing, asks = state.t < 2 * self.pairs, self._asks(state)
        frame_key = (column == jnp.where(asks, self._asked_pair(state), shown)) & (
            asks | (showing & (state.t % 2 == 0))
        )
        frame_value = (column == shown) & showing & (state.t % 2 == 1)
        within = (x >= 2) & (x < width - 2)
        image = draw.canvas(height, width)
        frames = (in_key & frame_key | in_value & frame_value) & within
        image = draw.paint(image, frames, jnp.where(asks, jnp.array(draw.BLUE), jnp.array(draw.ORANGE)))

        keys, values = jnp.array(_palette(self.num_keys)), jnp.array(_palette(self.num_values))
        grey = jnp.array(draw.GREY, jnp.uint8)
        key_color = jnp.where((state.t >= 2 * column)[..., None], keys[state.keys[column]], grey)
        value_color = jnp.where((state.t > 2 * column)[..., None], values[state.values[column]], grey)
        image = jnp.where(key_cell[..., None], key_color, image)
        image = jnp.where(value_cell[..., None], value_color, image)
        return draw.paint(image, draw.rectangle(height, width, 44, 0, 48, width * state.t / self.horizon), draw.ORANGE)

    def ascii(self, state: AssociativeRecallState, params: tuple[()]) -> str:
        t, asked = (
            int(state.t),
            int(state.order[max(0, min(int(state.t) - self.first_query, self.queries - 1))]),
        )
        pairs = [
            f"{int(k)}:{int(v) if t > 2 * i else '?'}" if t >= 2 * i else "?:?"
            for i, (k, v) in enumerate(zip(state.keys, state.values, strict=True))
        ]
        question = f"  {int(state.keys[asked])} -> ?" if self.first_query <= t < self.horizon else ""
        return " ".join(pairs) + question


def _palette(n: int) -> np.ndarray:
    """uint8 [n, 3]: n hues around the wheel."""
    return np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(i / n, 0.75, 0.85)] for i in range(n)], np.uint8)
