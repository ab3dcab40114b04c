"""Small pure-JAX drawing helpers shared by the pixel renderers: everything is a mask over a pixel grid."""

import jax
import jax.numpy as jnp

Array = jax.Array
Scalar = Array | float

WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 24), (200, 200, 206)
BLUE, ORANGE, GREEN, RED = (46, 104, 192), (230, 126, 34), (39, 155, 88), (205, 56, 48)


def canvas(height: int, width: int, color: tuple[int, int, int] = WHITE) -> Array:
    """uint8 [height, width, 3] of one colour."""
    return jnp.broadcast_to(jnp.array(color, jnp.uint8), (height, width, 3))


def paint(image: Array, mask: Array, color: tuple[int, int, int] | Array) -> Array:
    """`image` with `color` (uint8 [3]) where `mask` (bool [height, width]) holds."""
    return jnp.where(mask[..., None], jnp.asarray(color, jnp.uint8), image)


def grid(height: int, width: int) -> tuple[Array, Array]:
    """Pixel centres as (y, x), float32 [height, 1] and [1, width]."""
    return jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5, jnp.arange(width, dtype=jnp.float32)[None] + 0.5


def rectangle(height: int, width: int, top: Scalar, left: Scalar, bottom: Scalar, right: Scalar) -> Array:
    """bool [height, width]: the pixels of an axis-aligned rectangle (bounds in pixels)."""
    y, x = grid(height, width)
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def disc(height: int, width: int, y0: Scalar, x0: Scalar, radius: float) -> Array:
    """bool [height, width]: the pixels within `radius` of (y0, x0)."""
    y, x = grid(height, width)
    return (y - y0) ** 2 + (x - x0) ** 2 <= radius**2


def segment(height: int, width: int, y0: Scalar, x0: Scalar, y1: Scalar, x1: Scalar, thickness: float) -> Array:
    """bool [height, width]: the pixels within `thickness` / 2 of the line from (y0, x0) to (y1, x1)."""
    y, x = grid(height, width)
    dy, dx = y1 - y0, x1 - x0
    along = jnp.clip(((y - y0) * dy + (x - x0) * dx) / jnp.maximum(dy**2 + dx**2, 1e-6), 0.0, 1.0)
    return (y - y0 - along * dy) ** 2 + (x - x0 - along * dx) ** 2 <= (thickness / 2) ** 2
