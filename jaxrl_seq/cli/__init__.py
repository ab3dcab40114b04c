"""The command line: `jaxrl-seq train | sweep | resume | collect | eval | report | list | render | check | new-env`.

What starts, resumes and judges runs is in `runs`, what shows and checks environments and data in `worlds`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from jaxrl_seq.cli import runs, worlds

USAGE = """\
jaxrl-seq: reinforcement learning with sequence models, end to end on the device

  jaxrl-seq train ppo --env tmaze --model s5   train; add --help for every setting
  jaxrl-seq train ad|ad-eps|dpt|headless-ad    distil a policy that learns in its context from learning histories
  jaxrl-seq train bc|dt|iql|... --dataset ID   learn from a data set, such as point_mass-medium-replay
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
        "train": runs.train,
        "sweep": runs.sweep,
        "resume": runs.resume,
        "collect": runs.collect,
        "eval": runs.evaluate,
        "report": runs.report,
        "list": worlds.list_names,
        "render": worlds.render,
        "check": worlds.check,
        "new-env": worlds.new_env,
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
