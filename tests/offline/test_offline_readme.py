"""The code of offline/README.md runs, in order, and its table has every recipe."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_seq.offline as offline
from jaxrl_seq.envs import make
from jaxrl_seq.offline.critic_losses import CRITICS
from tests.readme_code import ROOT, python_blocks

README = "jaxrl_seq/offline/README.md"


def test_the_code_runs(tmp_path):
    names = {name: getattr(offline, name) for name in offline.__all__}
    names |= dict(jax=jax, jnp=jnp, make=make, folder=str(tmp_path))
    blocks = python_blocks(README)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, README, "exec"), names)
    assert names["data"].steps == 2000 and np.isfinite(names["total"])
    jax.tree.map(np.testing.assert_array_equal, names["again"], names["walks"])


def test_every_recipe_and_method_is_in_its_table():
    text = (ROOT / README).read_text()
    assert all(f"`{name}`" in text for name in [*offline.RECIPES, *offline.METHODS, "tt", *CRITICS])
