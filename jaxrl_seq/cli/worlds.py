"""Commands about environments, models and data: list, render, check, new-env. Each returns an exit code."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal


# --- list -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class List:
    """Show the environments or the models there are."""

    what: Annotated[Literal["envs", "models"], "positional"]
    """What to list."""
    json: bool = False
    """Print JSON."""


def list_names(words: list[str]) -> int:
    import tyro

    from jaxrl_seq.run.catalogue import env_rows, model_rows, table

    options = tyro.cli(List, args=words, prog="jaxrl-seq list", config=(tyro.conf.PositionalRequiredArgs,))
    rows = env_rows() if options.what == "envs" else model_rows()
    print(json.dumps(rows, indent=2) if options.json else table(rows))
    return 0


# --- environments -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Render:
    """Show episodes of an environment."""

    env: Annotated[str, "positional"]
    """Environment id, as for train."""
    policy: str = "expert"
    """expert, random, or the folder of a run."""
    out: str | None = None
    """File to write, .gif or .html; by default ENV-POLICY.gif."""
    ascii: bool = False
    """Print one episode as text instead."""
    episodes: int = 4
    """How many."""
    seed: int = 0
    """Another seed, other episodes."""
    max_steps: int = 200
    """Longer episodes are cut."""
    fps: float = 8.0
    """Steps a second."""


def render(words: list[str]) -> int:
    import tyro

    from jaxrl_seq.envs import make
    from jaxrl_seq.run.render import draw, record_policy, text_frames, write_clips

    options = tyro.cli(Render, args=words, prog="jaxrl-seq render", config=(tyro.conf.PositionalRequiredArgs,))
    if min(options.episodes, options.max_steps) < 1 or options.fps <= 0:
        raise ValueError("--episodes and --max-steps must be at least 1, --fps above 0.")
    length = {"episodes": options.episodes, "seed": options.seed, "max_steps": options.max_steps}
    if options.policy in ("expert", "random") or not Path(options.policy).is_dir():
        env, params = make(options.env)
        recording = record_policy(env, params, options.policy, **length)
    else:
        from jaxrl_seq.run.config import load
        from jaxrl_seq.run.play import record_run

        folder = Path(options.policy)
        env, params, recording = record_run(load(folder), folder, options.env, **length)
    if options.ascii:
        return _play_text(text_frames(env, params, recording), options.fps)
    policy = Path(options.policy).name
    path = Path(options.out or f"{env.name}-{policy}.gif")
    print(write_clips(path, f"{options.env}, {policy}", draw(env, params, recording), options.fps))
    return 0


def _play_text(frames: list[str], fps: float) -> int:
    """In a terminal one frame after the other in place; into a file or a pipe all below each other."""
    animated = sys.stdout.isatty()
    for frame in frames:
        print(("\033[2J\033[H" if animated else "") + frame + ("" if animated else "\n"), flush=True)
        if animated:
            time.sleep(1 / fps)
    return 0


@dataclass(frozen=True)
class Check:
    """Hold an environment to its contract or a data set to its rules: what is wrong, where, and what to mend."""

    what: Annotated[Literal["env", "dataset"], "positional"]
    """What to check."""
    spec: Annotated[str, "positional"]
    """Environment id, or FILE.py:CLASS; of a data set the file or folder."""
    env: str = ""
    """Of a data set: the environment that it is of, where it does not say so."""
    episodes: int = 1024
    """Episodes by each policy for what whole episodes show."""
    checks: tuple[str, ...] = ()
    """Only these."""


def check(words: list[str]) -> int:
    import tyro

    options = tyro.cli(Check, args=words, prog="jaxrl-seq check", config=(tyro.conf.PositionalRequiredArgs,))
    if options.what == "dataset":
        return _check_dataset(options)
    import jax

    from jaxrl_seq.envs import check_env, make

    with contextlib.suppress(RuntimeError):  # if jax runs already, one check is skipped
        jax.config.update("jax_num_cpu_devices", 8)  # for the check that splits environments over devices

    env, params = make(options.spec)
    report = check_env(env, params, checks=options.checks or None, episodes=options.episodes, raise_on_failure=False)
    print(report)
    return 1 if report.failed else 0


def _check_dataset(options: Check) -> int:
    from jaxrl_seq.run.datasets import check_path

    reports = check_path(options.spec, options.env)
    print("\n".join(map(str, reports)))
    return 1 if any(report.failed for report in reports) else 0


def new_env(words: list[str]) -> int:
    from jaxrl_seq.run.scaffold import new_env

    if not 1 <= len(words) <= 2 or words[0].startswith("-"):
        raise ValueError("Usage: jaxrl-seq new-env NAME [FOLDER]; NAME in lower case, such as my_corridor.")
    env, test = new_env(words[0], Path(words[1] if len(words) == 2 else "."))
    cls = "".join(part.capitalize() for part in words[0].split("_"))
    print(
        f"wrote {env} and {test}\n\n"
        f"  jaxrl-seq check env {env}:{cls}\n"
        f"  jaxrl-seq render {env}:{cls} --ascii\n"
        f"  jaxrl-seq train ppo --env {env}:{cls} --model gru"
    )
    return 0
