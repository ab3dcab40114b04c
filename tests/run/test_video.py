"""GIFs read back, grids tile, and files stay small."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jaxrl_seq.run.video import grid, write_gif


def film(length, colour=(37, 99, 235), height=10, width=16):
    frames = np.full((length, height, width, 3), 245, np.uint8)
    for t in range(length):
        frames[t, t % height, t % width] = colour
    return frames


def read(path):
    with Image.open(path) as gif:
        frames, durations = [], []
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")))
            durations.append(gif.info["duration"])
        return np.stack(frames), durations, gif.info.get("loop")


def test_round_trip_is_exact_for_few_colours(tmp_path):
    frames = film(12)
    path = write_gif(tmp_path / "videos" / "a.gif", frames, fps=10, scale=3)
    back, durations, loop = read(path)
    np.testing.assert_array_equal(back[:, ::3, ::3], frames)
    np.testing.assert_array_equal(back[:, 2::3, 2::3], frames)
    assert durations == [100] * 11 + [1000] and loop == 0
    assert [p.name for p in path.parent.iterdir()] == ["a.gif"]


def test_one_frame_and_long_videos(tmp_path):
    assert read(write_gif(tmp_path / "one.gif", film(1)))[0].shape == (1, 30, 48, 3)
    frames = film(1001)
    frames[-1] = (200, 0, 0)
    back, durations, _ = read(write_gif(tmp_path / "long.gif", frames, scale=1, max_frames=100))
    assert len(back) <= 100 and durations[0] == 1100  # 11 frames in one, at the same speed
    np.testing.assert_array_equal(back[-1], frames[-1])


def test_a_typical_grid_is_small(tmp_path):
    path = write_gif(tmp_path / "grid.gif", grid([film(200, height=48, width=48) for _ in range(9)]))
    assert path.stat().st_size < 500_000


def test_grid_freezes_ended_videos_and_parts_tiles():
    a, b, c = film(5), film(2, (0, 128, 0)), film(3, (200, 0, 0))
    tiled = grid([a, b, c], columns=2)
    assert tiled.shape == (5, 22, 34, 3) and tiled.dtype == np.uint8
    np.testing.assert_array_equal(tiled[:, :10, :16], a)
    np.testing.assert_array_equal(tiled[4, :10, 18:], b[-1])
    np.testing.assert_array_equal(tiled[2:, 12:, :16], c[[2, 2, 2]])
    assert (tiled[:, 10:12] == 208).all() and (tiled[:, 12:, 18:] == 255).all()
    np.testing.assert_array_equal(grid(np.stack([a, a]), columns=5), grid([a, a], columns=2))
    assert grid([a] * 5).shape == (5, 22, 52, 3)


def test_bad_input(tmp_path):
    for frames in (film(3).astype(np.float32), film(3)[0], film(3)[:0], film(3)[..., :1]):
        with pytest.raises(ValueError, match="uint8"):
            write_gif(tmp_path / "x.gif", frames)
    with pytest.raises(ValueError, match="positive"):
        write_gif(tmp_path / "x.gif", film(2), fps=0)
    with pytest.raises(ValueError, match="one height and width"):
        grid([film(2), film(2, width=5)])
    with pytest.raises(ValueError, match="at least one"):
        grid([])
    assert not list(tmp_path.iterdir())
