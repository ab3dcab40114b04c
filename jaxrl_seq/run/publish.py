"""What a finished run shows: a film of the agent and the report."""

from __future__ import annotations

import warnings
from pathlib import Path

import jax

from jaxrl_seq.run import distributed
from jaxrl_seq.run.lanes import lane
from jaxrl_seq.run.loop import Run


def publish(run: Run) -> Path:
    """Write videos/final.gif (where the environment has a renderer), in_context.json (of an agent that learnt in
    trials) and report.html; returns the report's path.

    Raises ValueError for a run without a folder.
    """
    if run.folder is None:
        raise ValueError("This run has no folder: train with run_dir=... to get a report.")
    # of several processes none has all lanes, so that there is nothing to show alone
    for name, show in (
        () if distributed.several() else (("film of the agent", film_run), ("in-context evaluation", judge_run))
    ):
        try:
            show(run)
        except Exception as error:  # a picture must never cost a finished run
            warnings.warn(f"No {name}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
    from jaxrl_seq.run.report import write_report

    return write_report(run.folder) if distributed.is_first() else run.folder / "report.html"


def judge_run(run: Run) -> Path | None:
    """Trials as long as in training beside anchors and controls, as in_context.json; None without trials."""
    from jaxrl_seq.run import in_context

    assert run.folder is not None
    if in_context.trials(run.learner) is None:
        return None
    result = in_context.judge_learner(run.learner, run.hyper, run.state, run.summary["seeds"])
    return in_context.write(run.folder, result)


def film_run(run: Run, num_envs: int = 4) -> Path | None:
    """One greedy episode in `num_envs` environments as a GIF; the first lane's agent if several seeds ran."""
    from jaxrl_seq.run.render import draw
    from jaxrl_seq.run.video import grid, write_gif

    assert run.folder is not None
    learner = run.learner
    if not hasattr(learner, "record") or not learner.world.has("render"):
        return None
    state = lane(run.state, 0) if run.summary["seeds"] > 1 else run.state
    key = jax.random.key(0xF11)

    def play(state, hyper, key):
        return learner.record(state, hyper, key, num_envs=num_envs)

    clips = [clip.frames for clip in draw(learner.world, run.hyper.env_params, jax.jit(play)(state, run.hyper, key))]
    path = run.folder / "videos" / "final.gif"
    path.parent.mkdir(exist_ok=True)
    write_gif(path, grid(clips), fps=15, scale=2)
    return path
