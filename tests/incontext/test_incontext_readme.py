"""The code of incontext/README.md runs, in order."""

import jax
import numpy as np

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import Tasks, TrialEnv, make
from jaxrl_seq.incontext import Distill, DistillHyper, Imitation, __all__
from jaxrl_seq.models import make_model
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
