"""A page of every registered environment with its picture and numbers: `python -m jaxrl_seq.run.gallery FOLDER`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from jaxrl_seq.envs import Box, Discrete, Env, list_envs, make
from jaxrl_seq.run.render import draw, record_policy
from jaxrl_seq.run.video import write_gif

FRAMES, WIDTH = 60, 240  # of a picture: steps and about as many pixels
HEAD = """# Gallery

Every environment of this library, played by its expert. Observations and actions are sizes of boxes or numbers of
choices. Returns are means over episodes at the default parameters: of uniform actions, of the best policy that sees the
present observation only (a dash where it is not known), and of the expert, which sees the state. Steps with an asterisk
are a time limit that merely cuts. Written by `python -m jaxrl_seq.run.gallery envs/gallery`.
"""


def write_gallery(folder: Path, pictures: bool = True) -> Path:
    """FOLDER/README.md, and FOLDER/NAME.gif of every environment unless `pictures` is False; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "README.md"
    page.write_text(gallery_text())
    for name in list_envs() if pictures else ():
        env, params = make(name)
        clip = draw(env, params, record_policy(env, params, "expert", episodes=1, max_steps=FRAMES))[0]
        write_gif(folder / f"{name}.gif", clip.frames, fps=8, scale=max(1, WIDTH // clip.frames.shape[2]))
    return page


def gallery_text() -> str:
    """The page: environments by family, in the order of their ids."""
    families: dict[str, list[str]] = {}
    for name, presets in list_envs().items():
        env, _ = make(name)
        families.setdefault(type(env).__module__.split(".")[-2], []).append(_row(name, presets, env))
    columns = ["", "environment", "observation", "actions", "steps", "random", "reactive", "expert"]
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    parts = [f"\n## {family.capitalize()}\n\n{head}" + "\n".join(rows) + "\n" for family, rows in families.items()]
    return HEAD + "".join(parts)


def _row(name: str, presets: tuple[str, ...], env: Env) -> str:
    reference = env.reference()
    said = f"<br>presets: {' '.join(f'`{preset}`' for preset in presets)}" if presets else ""
    text = f"**`{name}`** {_summary(env)}{said}<br>*{env.paper}*"
    steps = f"{env.horizon}{'*' if env.time_limit == 'truncate' else ''}"
    returns = [_number(reference[k]) if k in reference else "-" for k in ("random", "reactive", "expert")]
    cells = [f'<img src="{name}.gif" width="{WIDTH // 2}">', text, _size(env.observation_space())]
    return f"| {' | '.join([*cells, _size(env.action_space()), steps, *returns])} |"


def _number(value: float) -> str:
    """Three digits. What a linear solve leaves of a zero differs between processors, so it is written as 0."""
    return f"{0.0 if abs(value) < 1e-9 else value:.3g}"


def _summary(env: Env) -> str:
    """The first paragraph of the class's docstring, on one line."""
    return " ".join((inspect.getdoc(type(env)) or "").split("\n\n")[0].split()).replace("|", "\\|")


def _size(space: Any) -> str:
    if isinstance(space, Discrete):
        return f"{space.n} choices"
    if isinstance(space, Box):
        return "box of " + " x ".join(map(str, space.shape)) if space.shape else "box"
    return str(space)


if __name__ == "__main__":
    print(write_gallery(Path(sys.argv[1] if len(sys.argv) > 1 else "envs/gallery")))
