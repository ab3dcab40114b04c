"""What is known of dark rooms: a sweep that finds the goal, a walk that tells nothing of it, and exact inference.

All are `Algorithm`s: one stream, no batch axis.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_seq.envs.gridworlds.darkroom import DarkRoom
from jaxrl_seq.envs.gridworlds.grid import MOVES
from jaxrl_seq.incontext.algorithms.scripted import alike, allowed, draw, mixed
from jaxrl_seq.incontext.policies import Step, View
from jaxrl_seq.types import Array

ACTIONS = len(MOVES)


def cell_of(env: DarkRoom, view: View) -> Array:
    """int32 []: the own cell, as the observation has it."""
    scale = env.size - 1 if env.coordinates else 1
    row, col = jnp.round(view.obs * scale).astype(jnp.int32)
    return row * env.size + col


def reached(env: DarkRoom, step: Step) -> Array:
    """int32 []: the cell that the action led to; what is seen after an episode's last step is the next one's."""
    return env.moved(cell_of(env, step.view), step.action)


# --- a plan -----------------------------------------------------------------------------------------------------------
@struct.dataclass
class Sweep:
    goal: Array  # int32 [], -1 until it has paid
    seen: Array  # bool [cells], stood on


@struct.dataclass
class Sweeper:
    """Explores a dark room by a plan until the goal has paid, then takes a shortest way there in every episode.

    The plan is an order of the cells (`sweep_order`); always go to the first one not seen yet. In rooms of 9 x 9 with
    20 steps and of 5 x 5 with 12, every step of the search reaches a new cell: no policy finds goals sooner. It does
    not fit rooms whose actions are permuted, where the goal is known.
    """

    env: DarkRoom = struct.field(pytree_node=False)

    def init(self, key: Array) -> Sweep:
        return Sweep(goal=jnp.int32(-1), seen=jnp.zeros(self.env.cells, bool))

    def act(self, key: Array, memory: Sweep, view: View) -> tuple[Sweep, Array, Array]:
        order = jnp.asarray(sweep_order(self.env.size, self.env.start))
        fresh = order[jnp.argmin(memory.seen[order])]
        target = jnp.where(memory.goal >= 0, memory.goal, fresh)
        return memory, self.env.toward(cell_of(self.env, view), target), jnp.float32(0)

    def observe(self, key: Array, memory: Sweep, step: Step) -> Sweep:
        cell = reached(self.env, step)
        goal = jnp.where((step.reward > 0) & (memory.goal < 0), cell, memory.goal)
        return Sweep(goal=goal, seen=memory.seen.at[cell].set(True))


def sweep_order(size: int, start: int) -> np.ndarray:
    """int32 [cells]: all cells of a room of size x size, the start last.

    The rest of the room is four rectangles about the start, turned by 90 degrees each, that are walked one by one: out
    from the start along one side, then back and forth on the way home. From the corner it is one walk along the rows.
    """
    row, col = divmod(start, size)
    if start == 0:
        rows = np.arange(size**2).reshape(size, size)
        rows[1::2] = rows[1::2, ::-1]
        return np.roll(rows.ravel(), -1).astype(np.int32)
    walk: list[int] = []
    out, side = np.array([-1, 0]), np.array([0, 1])
    for _ in range(4):
        far, wide = (_room_towards(row, col, way, size) for way in (out, side))
        steps = [(k, 0) for k in range(1, far + 1)]
        for back, k in enumerate(range(far, 0, -1)):
            across = range(1, wide + 1)
            steps += [(k, j) for j in (across if back % 2 == 0 else reversed(across))]
        walk += [int((np.array([row, col]) + k * out + j * side) @ [size, 1]) for k, j in steps]
        out, side = side, -out
    return np.array([*walk, start], np.int32)


def _room_towards(row: int, col: int, way: np.ndarray, size: int) -> int:
    """Cells between a place and the wall that way."""
    at, step = (row, way[0]) if way[0] else (col, way[1])
    return size - 1 - at if step > 0 else at


# --- a walk -----------------------------------------------------------------------------------------------------------
@struct.dataclass
class Roamer:
    """Walks to cells drawn at random, one after the other: nothing that it does tells where the goal is.

    For the contexts of `dpt`. Who learns from an expert's contexts reads the goal off its actions, and when acting
    takes its own for such hints (a delusion: Ortega et al. 2021, arXiv:2110.10819). `log_prob` is exact given the cell.
    """

    env: DarkRoom = struct.field(pytree_node=False)
    restless: Array | float = 0.1
    """Chance of another cell at every step."""
    eps: Array | float = 0.1
    """Chance of a uniform action."""

    def init(self, key: Array) -> Array:
        """int32 []: where to."""
        return jax.random.randint(key, (), 0, self.env.cells, jnp.int32)

    def act(self, key: Array, memory: Array, view: View) -> tuple[Array, Array, Array]:
        change_key, target_key, key = jax.random.split(key, 3)
        memory = jnp.where(jax.random.bernoulli(change_key, self.restless), self.init(target_key), memory)
        way = jax.nn.one_hot(self.env.toward(cell_of(self.env, view), memory), ACTIONS)
        return memory, *draw(key, mixed(way, self.eps, allowed(view, ACTIONS)))

    def observe(self, key: Array, memory: Array, step: Step) -> Array:
        return memory


# --- inference --------------------------------------------------------------------------------------------------------
@struct.dataclass
class Belief:
    possible: Array  # bool [cells], where the goal may be
    shown: Array  # bool [cells], the same as it is acted on


@struct.dataclass
class Posterior:
    """Takes every action as often as it is optimal in the rooms that are still possible: what a Decision-Pretrained
    Transformer (Lee et al. 2023, arXiv:2306.14892) becomes with endless data and a network that can hold it. It draws
    anew at every step, where posterior sampling keeps to one room for an episode, and so it dithers.

    The goal is uniform over all cells until one pays; cells that did not pay are ruled out. `commit`: as `DPT`'s, the
    belief that is acted on is renewed with every "step", or when an "episode" ends.
    """

    env: DarkRoom = struct.field(pytree_node=False)
    commit: str = struct.field(pytree_node=False, default="step")

    def init(self, key: Array) -> Belief:
        anywhere = jnp.ones(self.env.cells, bool)
        return Belief(anywhere, anywhere)

    def act(self, key: Array, memory: Belief, view: View) -> tuple[Belief, Array, Array]:
        goals = jnp.arange(self.env.cells)
        best = jax.vmap(self.env.all_toward, in_axes=(None, 0))(cell_of(self.env, view), goals)
        chances = alike(memory.shown) @ jax.vmap(alike)(best)
        return memory, *draw(key, chances)

    def observe(self, key: Array, memory: Belief, step: Step) -> Belief:
        here = jnp.arange(self.env.cells) == reached(self.env, step)
        known = memory.possible.sum() == 1  # with `once` the goal itself stops paying
        possible = jnp.where(step.reward > 0, here, memory.possible & (known | ~here))
        renew = step.done if self.commit == "episode" else True
        return Belief(possible, jnp.where(renew, possible, memory.shown))
