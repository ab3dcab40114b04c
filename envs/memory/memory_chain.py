"""Memory chains of bsuite: bits seen at the start, one of them asked for at the end."""

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

_DARK, _PANEL = (38, 44, 58), (62, 70, 88)


@struct.dataclass
class MemoryChainState:
    context: Array  # int8 [bits], 0 or 1
    query: Array  # int32 [], index of the bit that will be asked for
    right: Array  # bool [], the answer was given and right
    t: Array  # int32 [], steps taken


@dataclass(frozen=True)
class MemoryChain(Env[MemoryChainState, tuple[()]]):
    """Remember `bits` bits for `length` steps, then name the one that is asked for (bsuite, Osband et al. 2020).

    Observation float32 [bits + 2]: the time left, 1 - i / length; the index of the bit asked for, as a number, shown
    at i = length - 1 (0 before); the bits as -1 or 1, shown at i = 0 (0 later). As in bsuite the first step shows
    i = 0 once more: the observation after t steps has i = max(t - 1, 0). Actions: 0 or 1, free until the query is
    seen. The episode lasts `length + 1` steps; the last one pays 1 if its action is the bit asked for, else -1.
    `info["success"]`: it was. No params.
    """

    length: int = 10
    """Steps over which to remember."""
    bits: int = 1
    """Bits to remember."""

    name: ClassVar[str] = "memory_chain"
    paper: ClassVar[str] = "Osband et al. 2020 (arXiv 1908.03568)"

    def __post_init__(self) -> None:
        for field in ("length", "bits"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} must be at least 1, got {getattr(self, field)}.")

    @property
    def horizon(self) -> int:
        return self.length + 1

    def default_params(self) -> tuple[()]:
        return ()

    def reset(self, key: Array, params: tuple[()]) -> tuple[MemoryChainState, TimeStep]:
        key_context, key_query = jax.random.split(key)
        state = MemoryChainState(
            context=jax.random.bernoulli(key_context, 0.5, (self.bits,)).astype(jnp.int8),
            query=jax.random.randint(key_query, (), 0, self.bits, jnp.int32),
            right=jnp.zeros((), bool),
            t=jnp.int32(0),
        )
        return state, opening(self._obs(state), info={"success": state.right})

    def step(
        self, key: Array, state: MemoryChainState, action: Array, params: tuple[()]
    ) -> tuple[MemoryChainState, TimeStep]:
        del key
        over = state.t + 1 >= self.horizon
        right = action == self._answer(state)
        state = replace(state, t=state.t + 1, right=over & right)
        reward = jnp.where(over, jnp.where(right, 1.0, -1.0), 0.0)
        return state, transition(self._obs(state), reward, terminated=over, info={"success": state.right})

    def _answer(self, state: MemoryChainState) -> Array:
        return state.context[state.query].astype(jnp.int32)

    def _shown(self, state: MemoryChainState) -> Array:
        """int32 []: the index i of the observation; it stays at its last value after the end."""
        return jnp.clip(state.t - 1, 0, self.length)

    def _obs(self, state: MemoryChainState) -> Array:
        i = self._shown(state)
        left = (self.length - i).astype(jnp.float32) / self.length
        query = jnp.where(i == self.length - 1, state.query, 0).astype(jnp.float32)
        context = jnp.where(i == 0, 2 * state.context.astype(jnp.float32) - 1, 0.0)
        return jnp.concatenate([left[None], query[None], context])

    def observation_space(self) -> Box:
        bits = (1.0,) * self.bits
        return Box((0.0, 0.0, *(-b for b in bits)), (1.0, max(self.bits - 1.0, 0.0), *bits), (self.bits + 2,))

    def action_space(self) -> Discrete:
        return Discrete(2)

    def expert(self, key: Array, state: MemoryChainState, params: tuple[()]) -> Array:
        """The bit that will be asked for."""
        del key
        return self._answer(state)

    def reference(self) -> dict[str, float]:
        """All exact. Without memory the bit is a coin's side, unless query and bits are seen together."""
        return {"random": 0.0, "reactive": 1.0 if self.length == 1 else 0.0, "expert": 1.0}

    def render(self, state: MemoryChainState, params: tuple[()]) -> Array:
        """uint8 [56, 24 columns + 8, 3] of at least 4 columns: above, a card a bit, up (green) or down (red) while it
        is shown, dark once it is hidden; an orange mark under the bit asked for; below, the time left as a fuse."""
        columns, height, card = max(self.bits, 4), 56, 24
        width = card * columns + 8
        margin = (width - card * self.bits) // 2
        y, x = (a.astype(jnp.int32) for a in draw.grid(height, width))
        inside = (x >= margin) & (x < margin + card * self.bits)
        bit = jnp.clip((x - margin) // card, 0, self.bits - 1)
        across, up = (x - margin) % card, state.context[bit] == 1
        i = self._shown(state)
        open_, asks = i == 0, i == self.length - 1

        image = draw.canvas(height, width, _DARK)
        face = inside & (across >= 2) & (across < card - 2) & (y >= 6) & (y < 34)
        color = jnp.where(up[..., None], jnp.array(draw.GREEN, jnp.uint8), jnp.array(draw.RED, jnp.uint8))
        image = draw.paint(image, face, _PANEL)
        image = jnp.where((face & open_)[..., None], color, image)
        high = jnp.where(up, y - 12, 27 - y)  # rows below the tip of the arrow
        lean = jnp.abs(2 * across - card + 1)
        arrow = (lean <= 2 * high) & (high <= 7) | (lean <= 4) & (high > 7) & (high < 16)
        image = draw.paint(image, face & open_ & arrow, draw.WHITE)
        hidden = (lean <= 3) & (y >= 18) & (y < 22)
        image = draw.paint(image, face & ~open_ & hidden, draw.GREY)
        mark = inside & asks & (bit == state.query) & (lean <= 2 * (y - 36)) & (y < 43) & (y >= 36)
        image = draw.paint(image, mark, draw.ORANGE)
        over = state.t >= self.horizon
        flash = jnp.where(state.right, jnp.array(draw.GREEN, jnp.uint8), jnp.array(draw.RED, jnp.uint8))
        ring = inside & (bit == state.query) & (y >= 4) & (y < 36) & ~face & over
        image = draw.paint(image, ring, flash)

        end = 4 + (width - 8) * (1 - jnp.minimum(state.t, self.horizon) / self.horizon)
        image = draw.paint(image, draw.rectangle(height, width, 48, 4, 51, width - 4), _PANEL)
        image = draw.paint(image, draw.rectangle(height, width, 48, 4, 51, end), draw.GREY)
        return draw.paint(image, draw.disc(height, width, 49.5, jnp.clip(end, 6, width - 6), 3.5), draw.ORANGE)

    def ascii(self, state: MemoryChainState, params: tuple[()]) -> str:
        i, t = int(self._shown(state)), min(int(state.t), self.horizon)
        bits = "".join("01"[int(b)] if i == 0 else "?" for b in np.asarray(state.context))
        mark = " " * int(state.query) + "^" if i == self.length - 1 else ""
        return f"{bits}\n{mark}\nstep {t} of {self.horizon}"


@dataclass(frozen=True)
class MemoryLen(MemoryChain):
    __doc__ = MemoryChain.__doc__

    name: ClassVar[str] = "memory_len"


@dataclass(frozen=True)
class MemorySize(MemoryChain):
    __doc__ = MemoryChain.__doc__

    length: int = 2
    """Steps over which to remember."""
    bits: int = 10
    """Bits to remember."""

    name: ClassVar[str] = "memory_size"
