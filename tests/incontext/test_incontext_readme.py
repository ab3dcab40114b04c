"""The code of incontext/README.md runs, in order; its commands are understood."""

from pathlib import Path

import jax
import numpy as np

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import Tasks, TrialEnv, make
from jaxrl_seq.incontext import Distill, DistillHyper, Imitation, __all__
from jaxrl_seq.models import make_model
from jaxrl_seq.run.config import parse_train
from tests.readme_code import python_blocks


def test_the_code_runs():
    import jaxrl_seq.incontext as incontext

    names = {name: getattr(incontext, name) for name in __all__}
    names |= dict(jax=jax, make=make, Tasks=Tasks, TrialEnv=TrialEnv, ActorCritic=ActorCritic, make_model=make_model)
    blocks = python_blocks("jaxrl_seq/incontext/README.md")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "incontext/README.md", "exec"), names)
    curve = np.asarray(names["curve"])
    assert curve.shape == (30,) and curve[-5:].mean() > curve[:5].mean() + 2
    assert np.isfinite(names["metrics"]["loss"]) and -0.2 < names["numbers"]["normalised"] < 0.4
    assert isinstance(names["learner"], Distill) and isinstance(names["recipe"], Imitation)
    assert isinstance(names["hyper"], DistillHyper)


def test_commands_are_understood():
    text = (Path(__file__).parents[2] / "jaxrl_seq/incontext/README.md").read_text()
    commands = [line.split()[2:] for line in text.splitlines() if line.startswith("    jaxrl-seq train")]
    assert len(commands) == 1
    config = parse_train(commands[0][0], commands[0][1:])
    assert config.model.width == 512 and config.origin.source_episodes // config.origin.every >= config.trial.episodes
