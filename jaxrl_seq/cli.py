"""The command line: `jaxrl-seq train | sweep | resume | collect | eval | report | list | render | check | new-env`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from jaxrl_seq.run.config import Config
    from jaxrl_seq.run.loop import Run
    from jaxrl_seq.run.sweep import Sweep

USAGE = """\
jaxrl-seq: reinforcement learning with sequence models, end to end on the device

  jaxrl-seq train ppo --env tmaze --model s5   train; add --help for every setting
  jaxrl-seq train ad|ad-eps|dpt|headless-ad    distil a policy that learns in its context from learning histories
  jaxrl-seq collect histories --env darkroom   record such histories in a file
  jaxrl-seq collect dataset --recipe expert    make a data set of episodes to learn from
  jaxrl-seq sweep ppo --lr 1e-4 1e-3 ...       every combination of values, as lanes of one program; --dry-run
  jaxrl-seq resume RUN                         go on with an interrupted run or sweep, bit for bit
  jaxrl-seq eval RUN                           play episodes with a trained agent; --in-context 50: long trials
  jaxrl-seq report RUN                         write RUN/report.html again
  jaxrl-seq list envs|models [--json]          what there is
  jaxrl-seq render ENV --policy expert         episodes as GIF, HTML player or text; also random, or a RUN
  jaxrl-seq check env my_env.py:MyEnv          hold an environment to its contract
  jaxrl-seq check dataset PATH                 hold a data set to its rules: native, Minari or D4RL
  jaxrl-seq new-env NAME                       write an environment of your own, with its test

RUN is the folder that `train` prints. On several hosts: the same command on each, with --hosts auto."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors of use end as one line on stderr and code 2."""
    words = sys.argv[1:] if argv is None else argv
    from jaxrl_seq.envs.core.naming import known

    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "sweep": _sweep,
        "resume": _resume,
        "collect": _collect,
        "eval": _eval,
        "report": _report,
        "list": _list,
        "render": _render,
        "check": _check,
        "new-env": _new_env,
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    try:
        command = commands[known(words[0], commands, "command")]
        if "--hosts" not in words:
            return command(words[1:])
        from jaxrl_seq.run import distributed

        rest = distributed.join(words[1:])
        with distributed.guarded("jaxrl-seq resume RUN --hosts ..."):
            return command(rest)
    except (ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


# --- train and resume -------------------------------------------------------------------------------------------------
def _train(words: list[str]) -> int:
    from jaxrl_seq.run.config import LEARNERS, parse_train

    if not words or words[0].startswith("-"):
        raise ValueError(f"Say what to train: jaxrl-seq train {'|'.join(LEARNERS)} [--help]")
    config = parse_train(words[0], words[1:])
    run_dir = config.placement.run_dir
    return _go(config, Path(run_dir) if run_dir else _fresh_folder(config), resume=False)


def _sweep(words: list[str]) -> int:
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


def _resume(words: list[str]) -> int:
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
def _collect(words: list[str]) -> int:
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
    json: bool = False
    """Print JSON."""


def _eval(words: list[str]) -> int:
    import tyro

    from jaxrl_seq.run.config import load
    from jaxrl_seq.run.play import play_run

    options = tyro.cli(Eval, args=words, prog="jaxrl-seq eval", config=(tyro.conf.PositionalRequiredArgs,))
    if options.in_context is not None:
        return _eval_in_context(options)
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
    result = judge_run(load(folder), folder, episodes, options.seed)
    write(folder, result)
    write_report(folder)
    print(json.dumps(jsonable(result), indent=2) if options.json else show(result))
    return 0


def _report(words: list[str]) -> int:
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


# --- list -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class List:
    """Show the environments or the models there are."""

    what: Annotated[Literal["envs", "models"], "positional"]
    """What to list."""
    json: bool = False
    """Print JSON."""


def _list(words: list[str]) -> int:
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


def _render(words: list[str]) -> int:
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


def _check(words: list[str]) -> int:
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


def _new_env(words: list[str]) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
