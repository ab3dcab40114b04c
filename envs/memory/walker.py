"""The character of the grid environments of Memory Gym: it turns on the spot and walks forward."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_seq.envs.core import rendering as draw

Array = jax.Array

NORTH, WEST, SOUTH, EAST = range(4)
STAY, LEFT, RIGHT, FORWARD = range(4)
DY, DX = (-1, 0, 1, 0), (0, -1, 0, 1)
_TURN = (0, 1, 3, 0)
_SKIN, _DARK = (246, 190, 120), (56, 40, 34)


def walk(row: Array, col: Array, facing: Array, action: Array, size: int) -> tuple[Array, Array, Array]:
    """(row, column, facing), int32 [] each, after an action on a square board; its border stops the walker."""
    facing = (facing + jnp.array(_TURN, jnp.int32)[action]) % 4
    forward = (action == FORWARD).astype(jnp.int32)
    row = jnp.clip(row + forward * jnp.array(DY, jnp.int32)[facing], 0, size - 1)
    col = jnp.clip(col + forward * jnp.array(DX, jnp.int32)[facing], 0, size - 1)
    return row, col, facing


def head_for(facing: Array, want: Array) -> Array:
    """int32 []: the action that turns towards `want` the shorter way, or walks if that is ahead."""
    return jnp.array((FORWARD, LEFT, LEFT, RIGHT), jnp.int32)[(want - facing) % 4]


def draw_walker(image: Array, y: Array, x: Array, facing: Array, radius: float) -> Array:
    """The walker at pixel (y, x), its two hands in front of it."""
    height, width = image.shape[:2]
    dy, dx = jnp.array(DY, jnp.float32)[facing], jnp.array(DX, jnp.float32)[facing]
    for side in (-1, 1):
        hand = y + radius * (0.95 * dy + 0.6 * side * dx), x + radius * (0.95 * dx - 0.6 * side * dy)
        image = draw.paint(image, draw.disc(height, width, *hand, 0.46 * radius), _DARK)
        image = draw.paint(image, draw.disc(height, width, *hand, 0.46 * radius - 1), draw.WHITE)
    image = draw.paint(image, draw.disc(height, width, y, x, radius), _DARK)
    return draw.paint(image, draw.disc(height, width, y, x, radius - 1), _SKIN)
