"""Learning histories: made by name, and kept in one .npz with a header that says what made them."""

from __future__ import annotations

import json
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxrl_seq.envs import Tasks, TrialEnv, make
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.envs.core.registry import parse_option
from jaxrl_seq.incontext.algorithms import make_algorithm
from jaxrl_seq.incontext.histories import History, play, thin
from jaxrl_seq.incontext.ppo_source import PPOSource, relabel
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper
from jaxrl_seq.run.config import Trial

VERSION = 1


@dataclass(frozen=True)
class Source:
    """Where learning histories come from: `streams` copies of an algorithm on every task, recorded while they learn."""

    source: str = "q-learning"
    """The algorithm: uniform, expert, noisy-expert, sweeper, roamer, posterior, thompson, ucb, greedy, lin-ucb,
    lin-thompson, q-learning, psrl, ucb-vi, dpt-behaviour, ppo; options as in noisy-expert,max_performance=0.5 or
    ppo,lr=1e-3."""
    source_episodes: int = 200
    """Episodes that it learns for; of ppo, updates, after each of which it plays one."""
    every: int = 4
    """Keep every so many-th of them."""
    streams: int = 32
    """Copies on every task; where tasks are infinitely many, streams in all, a task each."""
    source_seed: int = 0
    """Of tasks and copies."""

    @property
    def named(self) -> tuple[str, dict[str, Any]]:
        """The algorithm's name and options."""
        name, *pairs = self.source.split(",")
        return name, dict(map(parse_option, pairs))


def collect(source: Source, trial: TrialEnv, params: Any, *, label: bool = False) -> History:
    """The histories of `source` on the tasks of `trial`, by one device program. ValueError for impossible sizes."""
    if min(source.source_episodes, source.every, source.streams) < 1:
        raise ValueError(
            f"source_episodes ({source.source_episodes}), every ({source.every}) and streams ({source.streams}) must "
            "be at least 1."
        )
    name, options = source.named
    record = _of_ppo if name == "ppo" else _of_algorithm
    made = record(source, trial, params, label, **options)

    def run(key: Any) -> History:
        task_key, key = jax.random.split(key)
        if trial.has("tasks"):
            tasks = jax.tree.map(lambda x: jnp.repeat(x, source.streams, axis=0), trial.tasks(params))
        else:
            keys = jax.random.split(task_key, source.streams)
            tasks = jax.vmap(trial.sample_task, in_axes=(0, None))(keys, params)
        return made(tasks, key)

    return jax.jit(run)(jax.random.key(source.source_seed))


def _of_algorithm(
    source: Source, trial: TrialEnv, params: Any, label: bool, **options: Any
) -> Callable[[Any, Any], History]:
    name, _ = source.named
    learning = replace(trial, episodes=source.source_episodes, steps=0)
    policy = make_algorithm(name, learning, params, **options)

    def made(tasks: Any, key: Any) -> History:
        history = play(policy, learning, tasks, key, params, label=label)
        return history if source.every == 1 else thin(history, source.every, trial.env.horizon)

    return made


def _of_ppo(
    source: Source, trial: TrialEnv, params: Any, label: bool, width: int = 32, num_envs: int = 16, **options: Any
) -> Callable[[Any, Any], History]:
    """An episode after each of `source_episodes` updates; labels are the final policy's where there is no oracle."""
    numbers = [field.name for field in fields(PPOHyper) if field.name != "env_params"]
    for option in options:
        known(option, [*numbers, "width", "num_envs"], "option of ppo")
    hyper = PPOHyper(env_params=params, **({"lr": 3e-3, "entropy_coef": 0.02} | options))
    ppo = PPOSource(trial, make_model("mlp", width=int(width)), int(num_envs))
    oracle = any(trial.env.has(name) for name in ("optimal_actions", "expert"))

    def made(tasks: Any, key: Any) -> History:
        history, weights = ppo.histories(
            tasks, key, hyper, updates=source.source_episodes, every=source.every, label=label and oracle
        )
        return relabel(history, ppo.agent, weights) if label and not oracle else history

    return made


_HEADER = "header"


@dataclass(frozen=True)
class Collect:
    """Record learning histories on the device and keep them in a file."""

    env: str = "darkroom"
    """Environment id of one that has tasks."""
    out: str = "histories.npz"
    """The file."""
    label: bool = False
    """Keep the optimal actions of every step too, as `train dpt` needs them."""
    origin: tyro.conf.OmitArgPrefixes[Source] = field(default_factory=Source)
    trial: Trial = field(default_factory=lambda: Trial(episodes=1, held_out=0.1))

    def run(self) -> str:
        """Record and write; returns a line that says what there is."""
        env, params = make(self.env)
        trial, _ = self.trial.around(env)
        if not isinstance(trial, TrialEnv):
            raise ValueError("--trial.episodes must be at least 1.")
        if Path(self.out).suffix != ".npz":
            raise ValueError(f"--out {self.out}: histories are kept in a .npz file.")
        start = time.monotonic()
        history = jax.block_until_ready(collect(self.origin, trial, params, label=self.label))
        seconds = time.monotonic() - start
        header = {"env": self.env, "label": self.label} | asdict(self.origin) | {"trial": asdict(self.trial)}
        path = save_history(self.out, history, header)
        return (
            f"{path}: {history.streams:,} streams of {history.length:,} steps, {history.nbytes / 1e6:.1f} MB "
            f"({path.stat().st_size / 1e6:.1f} MB on disk), recorded in {seconds:.1f} s, compilation included"
        )


def save_history(path: str | Path, history: History, header: dict[str, Any]) -> Path:
    """Write `history` and `header` (JSON; needs "env" and "label", see `load_history`). The file appears at once,
    whole. Raises ValueError for a header that lacks them."""
    for name in ("env", "label"):
        if name not in header:
            raise ValueError(f"The header of a history needs {name!r}, got {sorted(header)}.")
    path = Path(path)
    text = json.dumps({"version": VERSION} | header)
    arrays = {name: np.asarray(leaf) for name, leaf in _named(history).items()}
    fresh = path.with_suffix(".new.npz")
    np.savez_compressed(fresh, **{_HEADER: np.array(text)}, **arrays)  # pyright: ignore[reportArgumentType]
    fresh.replace(path)
    return path


def load_history(path: str | Path) -> tuple[History, dict[str, Any]]:
    """(history, header) of a file that `save_history` wrote.

    Raises ValueError for a file that is missing, damaged, of another version, or whose arrays are not what its
    environment makes.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop(_HEADER)))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} holds no histories, or is damaged: {error}") from None
    if header.get("version") != VERSION:
        raise ValueError(f"{path} is of version {header.get('version')}; this library reads version {VERSION}.")
    like = _example(header)
    named = _named(like)
    if set(named) != set(arrays):
        raise ValueError(f"{path} has arrays {sorted(arrays)}, but histories of {header['env']} have {sorted(named)}.")
    for name, leaf in named.items():
        lead = 1 if name.startswith("task") else 2
        if arrays[name].shape[lead:] != leaf.shape[lead:] or arrays[name].dtype != leaf.dtype:
            raise ValueError(
                f"{path}: {name} is {arrays[name].dtype}{list(arrays[name].shape)}; {header['env']} makes "
                f"{leaf.dtype} with {list(leaf.shape[lead:])} at the end."
            )
    leaves = [jnp.asarray(arrays[name]) for name in named]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), header


def _named(history: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(history)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _example(header: dict[str, Any]) -> Any:
    """The shapes of a history of one stream and one episode."""
    env, params = make(header["env"])
    trial = TrialEnv(env, Tasks(env), episodes=1)

    def one(key: Any) -> History:
        tasks = jax.tree.map(lambda x: x[None], trial.sample_task(key, params))
        return play(make_algorithm("uniform", trial, params), trial, tasks, key, params, label=header["label"])

    return jax.eval_shape(one, jax.random.key(0))
