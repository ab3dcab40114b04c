"""A slow, obvious twin of the grid worlds: walks on the characters of a drawing."""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import strategies as st

WAYS = {0: (-1, 0), 1: (0, 1), 2: (1, 0), 3: (0, -1), 4: (0, 0)}
ACTIONS = st.lists(st.integers(0, 3), min_size=12, max_size=12)


class TextWalk:
    """Walks on the characters of a drawing."""

    def __init__(self, drawing: list[str], at: str | tuple[int, int]):
        self.drawing = drawing
        self.at = self.find(at) if isinstance(at, str) else at

    def find(self, letter: str) -> tuple[int, int]:
        return next((y, row.index(letter)) for y, row in enumerate(self.drawing) if letter in row)

    def walk(self, action: int) -> str:
        """Take a step; the character one stands on then."""
        y, x = self.at[0] + WAYS[action][0], self.at[1] + WAYS[action][1]
        if 0 <= y < len(self.drawing) and 0 <= x < len(self.drawing[0]) and self.drawing[y][x] != "#":
            self.at = y, x
        return self.drawing[self.at[0]][self.at[1]]

    def look(self) -> np.ndarray:
        cells = [(y, x) for y, row in enumerate(self.drawing) for x, letter in enumerate(row) if letter != "#"]
        return np.array([cell == self.at for cell in cells], np.float32)


def search(walk: TextWalk, goal: str, allowed: str | None = None) -> int | None:
    """Steps of a shortest way, by breadth-first search over places."""
    seen, queue = {walk.at}, deque([(walk.at, 0)])
    while queue:
        at, steps = queue.popleft()
        if walk.drawing[at[0]][at[1]] == goal:
            return steps
        for action in range(4):
            other = TextWalk(walk.drawing, at)
            letter = other.walk(action)
            if other.at not in seen and (allowed is None or letter in allowed):
                seen.add(other.at)
                queue.append((other.at, steps + 1))
    return None


CROSSING = ["##G##", "##.##", "A.M.X", "##.##", "##B##"]
CORRIDORS = ["T.##.D", "#....#", "S.##.G"]
STAIRS = [".....", ".x...", ".xx..", "SxxxG"]
