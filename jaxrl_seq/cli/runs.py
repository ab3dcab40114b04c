"""Commands about runs: train, sweep, resume, collect, eval, report. Each takes its words and returns an exit code."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from jaxrl_seq.run.config import Config
    from jaxrl_seq.run.loop import Run
    from jaxrl_seq.run.sweep import Sweep


# --- train and resume -------------------------------------------------------------------------------------------------
def train(words: list[str]) -> int:
    from jaxrl_seq.run.config import LEARNERS, parse_train

    if not words or words[0].startswith("-"):
        raise ValueError(f"Say what to train: jaxrl-seq train {'|'.join(LEARNERS)} [--help]")
    config = parse_train(words[0], words[1:])
    run_dir = config.placement.run_dir
    return _go(config, Path(run_dir) if run_dir else _fresh_folder(config), resume=False)


def sweep(words: list[str]) -> int:
    from jaxrl_seq.run.sweep import start_sweep

    _remember_compilations()
    done = start_sweep(words)
    return 0 if done is None else _swept(done)


def _swept(done: Sweep) -> int:
    from jaxrl_seq.run.distributed import is_first

    if done.stopped_by:
        return _stopped(done.stopped_by, done.folder)
    if not is_first():
        return 0
    print(f"{done.verdict}\nresults {done.folder / 'results.csv'}\nreport {done.folder / 'report.html'}")
    return 0


def _stopped(by: str, folder: Path) -> int:
    print(f"stopped by {by}; go on with: jaxrl-seq resume {folder}")
    return 85 if by == "SIGTERM" else 130


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run or sweep, bit for bit."""

    run: Annotated[str, "positional"]
    """The folder that `train` or `sweep` printed."""
    mesh: str | None = None
    """As for `train` and `sweep`; it need not be what the run began with."""
    memory_gb: float | None = None
    """As for `sweep`."""


def resume(words: list[str]) -> int:
    import tyro

    from jaxrl_seq.run.config import load
    from jaxrl_seq.run.sweep import go
    from jaxrl_seq.run.sweep_results import is_sweep

    if not words:
        raise ValueError("Usage: jaxrl-seq resume RUN [--mesh seed=4], where RUN is a folder of `train` or `sweep`.")
    options = tyro.cli(Resume, args=words, prog="jaxrl-seq resume", config=(tyro.conf.PositionalRequiredArgs,))
    folder = Path(options.run)
    if is_sweep(folder):
        _remember_compilations()
        return _swept(go(folder, mesh=options.mesh, memory_gb=options.memory_gb))
    return _go(load(folder), folder, resume=True, mesh=options.mesh)


def _remember_compilations() -> None:
    """Keep compiled programs between runs, unless the user keeps them elsewhere (JAX_COMPILATION_CACHE_DIR)."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "jaxrl_seq"))


def _go(config: Config, folder: Path, resume: bool, mesh: str | None = None) -> int:
    from jaxrl_seq.run.distributed import is_first
    from jaxrl_seq.run.loop import train
    from jaxrl_seq.run.mesh import make_mesh
    from jaxrl_seq.run.publish import publish

    _remember_compilations()
    mesh = mesh or config.placement.mesh
    devices = None if mesh is None else make_mesh(mesh)
    learner, hyper = config.build()
    print(f"run folder {folder}")
    run = train(
        learner,
        hyper,
        run_dir=folder,
        overwrite=config.placement.overwrite,
        resume=resume,
        config=config.record(),
        sinks=_extra_sinks(config, folder),
        mesh=devices,
        **vars(config.run),
    )
    if run.summary["stopped_by"]:
        return _stopped(run.summary["stopped_by"], folder)
    report = publish(run)
    if is_first():
        _print_summary(run)
        print(f"report {report}")
    return 0


def _print_summary(run: Run) -> None:
    s = run.summary
    speed = f"{s['steps_per_second']:,.0f} steps/s on {s['device']}"
    print(f"{s['steps'] * s['seeds']:,} steps in {s['wall_s']:.1f} s: {speed}")
    if s["eval_return_mean"] is None:
        return
    low, high = s["eval_return_ci"]
    text = f"final evaluation: return {s['eval_return_mean']:.3f} [{low:.3f}, {high:.3f}]"
    if s["eval_success"] is not None:
        text += f", success {s['eval_success']:.1%}"
    if s["reference"]:
        text += "  (" + ", ".join(f"{name} {value:.3g}" for name, value in s["reference"].items()) + ")"
    print(text)


def _fresh_folder(config: Config) -> Path:
    from jaxrl_seq.run.config import fresh_folder

    return fresh_folder([config.env, *([] if config.LEARNER == "ppo" else [config.LEARNER]), config.model_name])


def _extra_sinks(config: Config, folder: Path) -> tuple[Any, ...]:
    from jaxrl_seq.run import sinks

    chosen: list[Any] = []
    if config.placement.tensorboard:
        chosen.append(sinks.TensorBoardSink(folder / "tensorboard"))
    if config.placement.wandb:
        chosen.append(sinks.WandbSink(name=folder.name))
    return tuple(chosen)


# --- learning histories and data sets ---------------------------------------------------------------------------------
def collect(words: list[str]) -> int:
    import tyro

    from jaxrl_seq.run.datasets import CollectDataset
    from jaxrl_seq.run.histories import Collect

    kinds: dict[str, Any] = {"histories": Collect, "dataset": CollectDataset}
    if not words or words[0] not in kinds:
        raise ValueError(
            "Say what to collect: jaxrl-seq collect histories --env darkroom --source q-learning, or jaxrl-seq collect "
            "dataset --env point_mass --recipe medium-replay"
        )
    options = tyro.cli(kinds[words[0]], args=words[1:], prog=f"jaxrl-seq collect {words[0]}")
    _remember_compilations()
    print(options.run())
    return 0


# --- eval and report --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Eval:
    """Play episodes with a trained agent, greedily and with sampled actions."""

    run: Annotated[str, "positional"]
    """The run folder."""
    episodes: int = 16
    """Episodes per environment."""
    seed: int = 0
    """Seed of the evaluation; training never sees its keys."""
    in_context: int | None = None
    """Play trials of that many episodes instead, on held-out tasks, beside anchors and controls; for runs with --trial.
    The report shows them."""
    temperature: float = 1.0
    """With --in-context: logits are divided by it; below 1 samples keep less of the noise of what was imitated."""
    warm_episodes: int = 0
    """With --temperature: episodes of a trial that are sampled at temperature 1 before it holds."""
    json: bool = False
    """Print JSON."""


def evaluate(words: list[str]) -> int:
    import tyro

    from jaxrl_seq.run.config import load
    from jaxrl_seq.run.play import play_run

    options = tyro.cli(Eval, args=words, prog="jaxrl-seq eval", config=(tyro.conf.PositionalRequiredArgs,))
    if options.in_context is not None:
        return _eval_in_context(options)
    if (options.temperature, options.warm_episodes) != (1.0, 0):
        raise ValueError("--temperature and --warm-episodes are for trials: add --in-context N.")
    results = play_run(load(options.run), Path(options.run), options.episodes, options.seed)
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for name, row in results.items():
        low, high = row["return_ci"]
        success = "" if row["success"] is None else f"  success {row['success']:.1%}"
        print(
            f"{name:8} return {row['return_mean']:.3f} [{low:.3f}, {high:.3f}]{success}"
            f"  length {row['length_mean']:.1f}  unfinished {row['unfinished']:.1%}  ({row['episodes']} episodes)"
        )
    return 0


def _eval_in_context(options: Eval) -> int:
    from jaxrl_seq.run.config import load
    from jaxrl_seq.run.in_context import show, write
    from jaxrl_seq.run.play import judge_run
    from jaxrl_seq.run.report import write_report
    from jaxrl_seq.run.sinks import jsonable

    episodes = options.in_context
    if episodes is None or episodes < 1:
        raise ValueError(f"--in-context {episodes}: give at least 1 episode.")
    folder = Path(options.run)
    result = judge_run(load(folder), folder, episodes, options.seed, options.temperature, options.warm_episodes)
    write(folder, result)
    write_report(folder)
    print(json.dumps(jsonable(result), indent=2) if options.json else show(result))
    return 0


def report(words: list[str]) -> int:
    from jaxrl_seq.run.report import write_report

    folder = _run_folder(words, "report")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no run (no config.json).")
    print(write_report(folder))
    return 0


def _run_folder(words: list[str], command: str) -> Path:
    if len(words) != 1 or words[0].startswith("-"):
        raise ValueError(f"Usage: jaxrl-seq {command} RUN, where RUN is the folder that `jaxrl-seq train` printed.")
    return Path(words[0])
