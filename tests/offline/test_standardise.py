"""Normalisation travels with the parameters: a network without its data's numbers says nothing."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_data import META, columns

from jaxrl_seq.envs import Box, Discrete, Tree
from jaxrl_seq.offline import Meta, Standardise, build, with_stats


class Net(nn.Module):
    space: Any

    @nn.compact
    def __call__(self, obs):
        x = Standardise(self.space, name="norm")(obs)
        return nn.Dense(3)(x["a"] if isinstance(x, dict) else x)


def test_a_network_acts_in_the_units_it_learnt_in():
    given = columns((3, 1, 5, 2, 1, 4))
    space = Tree({"a": Box(-9, 9, (2,)), "b": Discrete(3)})
    tree = {name: {"a": given[name] * 10, "b": given[name][:, 0].astype(np.int32) % 3} for name in ("obs", "final_obs")}
    data = build(**(given | tree), meta=Meta(space, Discrete(5)))
    net = Net(space)
    variables = net.init(jax.random.key(0), data.obs)
    assert np.isnan(net.apply(variables, data.obs)).all()  # forgotten
    ready = with_stats(variables, data.stats)
    seen = net.apply(ready, data.obs)
    want = data.stats.normalise(data.obs)["a"] @ ready["params"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(seen, want, rtol=1e-4, atol=1e-5)
    # nothing is learnt of the numbers, and they are leaves like others, which checkpoints keep
    assert "norm" not in ready["params"] and len(jax.tree.leaves(ready["stats"])) == 4
    assert jnp.isfinite(seen).all()


def test_a_network_without_the_layer_is_refused():
    variables = nn.Dense(3).init(jax.random.key(0), jnp.zeros(2))
    with pytest.raises(ValueError, match="has no layer `Standardise`"):
        with_stats(variables, build(**columns((3, 2)), meta=META).stats)
