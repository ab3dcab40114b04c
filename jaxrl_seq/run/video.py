"""Rollouts as GIFs: several episodes side by side, a small palette, files fit for a report or a README."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_COLOURS = 64
_SEPARATOR = 2  # pixels between tiles
_GREY, _WHITE = 208, 255
_LAST_FRAME_MS = 1000  # the outcome stays readable before the loop starts again


def write_gif(path: str | Path, frames: np.ndarray, fps: float = 10, scale: int = 3, max_frames: int = 300) -> Path:
    """Writes a looping GIF and returns its path.

    frames: uint8 [T, H, W, 3]. scale: each pixel becomes scale x scale (sharp edges, for small pixel
    renderings). Where T > max_frames only every k-th frame is kept, at the same speed, and always the last
    one. One palette of 64 colours serves all frames. Raises ValueError for another dtype or shape, no frames,
    or a senseless fps.
    """
    from PIL import Image

    frames = _checked(frames)
    if fps <= 0 or scale < 1 or max_frames < 1:
        raise ValueError(f"fps {fps}, scale {scale} and max_frames {max_frames} must be positive")
    stride = math.ceil(len(frames) / max_frames)
    kept = frames[::-1][::stride][::-1]
    palette = Image.fromarray(np.concatenate(_sample(kept))).quantize(_COLOURS, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1)).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in kept
    ]
    durations = [max(round(1000 * stride / fps), 20)] * (len(images) - 1) + [_LAST_FRAME_MS]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    images[0].save(
        fresh,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        optimize=True,
    )
    os.replace(fresh, path)  # a report made meanwhile never reads half a file
    return path


def grid(frames: Sequence[np.ndarray] | np.ndarray, columns: int | None = None) -> np.ndarray:
    """Tiles N videos into one: uint8 [T, H', W', 3], T the longest; a video that has ended shows its last
    frame.

    frames: N arrays uint8 [T_n, H, W, 3] (or one [N, T, H, W, 3]). columns: tiles a row (default: about
    square). Tiles are parted by thin grey lines; places without a video are white. Raises ValueError for
    differing sizes.
    """
    videos = [_checked(video) for video in frames]
    if not videos:
        raise ValueError("grid needs at least one video")
    sizes = {video.shape[1:3] for video in videos}
    if len(sizes) > 1:
        raise ValueError(f"videos of one grid must have one height and width: got {sorted(sizes)}")
    height, width = sizes.pop()
    columns = min(columns or math.ceil(math.sqrt(len(videos))), len(videos))
    if columns < 1:
        raise ValueError(f"columns is {columns}: at least 1")
    rows = math.ceil(len(videos) / columns)
    length = max(len(video) for video in videos)
    shape = (
        length,
        rows * (height + _SEPARATOR) - _SEPARATOR,
        columns * (width + _SEPARATOR) - _SEPARATOR,
        3,
    )
    canvas = np.full(shape, _GREY, np.uint8)
    for i in range(rows * columns):
        y, x = (i // columns) * (height + _SEPARATOR), (i % columns) * (width + _SEPARATOR)
        canvas[:, y : y + height, x : x + width] = _frozen(videos[i], length) if i < len(videos) else _WHITE
    return canvas


def _frozen(video: np.ndarray, length: int) -> np.ndarray:
    return video[np.minimum(np.arange(length), len(video) - 1)]


def _sample(frames: np.ndarray) -> np.ndarray:
    """At most 24 frames spread over the video, for the palette: rare colours near the end count too."""
    return frames[np.unique(np.linspace(0, len(frames) - 1, 24).round().astype(int))]


def _checked(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"frames must be uint8 [T, H, W, 3] with T >= 1: got {frames.dtype} {list(frames.shape)}")
    return frames
