"""Run by test_sweep_mesh.py in a process with eight fake devices; fails by an assertion."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxrl_seq.envs import VecEnv, make
from jaxrl_seq.models import make_model
from jaxrl_seq.online import PPOHyper, make_ppo
from jaxrl_seq.online.optimiser import init_optimiser, optimiser_step
from jaxrl_seq.run.lanes import Settings, lane
from jaxrl_seq.run.loop import train
from jaxrl_seq.run.mesh import make_mesh

SETTINGS = Settings.grid(
    (3,), lr=(1e-3, 3e-3, 1e-2)
)  # three lanes: no number of devices but one and three divides them


@dataclass(frozen=True)
class Regression:
    """A supervised learner that compiles in no time: a line through noisy points, drawn anew at every update."""

    steps_per_update: int = 16

    def init(self, key, hyper):
        params = {"w": jax.random.normal(key, (4,))}
        return {"params": params, "opt": init_optimiser(params), "key": key, "n": jnp.int32(0)}

    def update(self, state, hyper):
        noise, key = jax.random.split(jax.random.fold_in(state["key"], state["n"]))
        x = jax.random.normal(key, (16, 4))
        y = x @ jnp.arange(4.0) + jax.random.normal(noise, (16,))
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((x @ p["w"] - y) ** 2))(state["params"])
        params, opt, metrics = optimiser_step(state["params"], state["opt"], grads, hyper["lr"], 1e3)
        return {"params": params, "opt": opt, "key": state["key"], "n": state["n"] + 1}, metrics | {"loss": loss}


def ppo(model="mlp", **options):
    env, params = make("tmaze,length=5")
    agent = make_model(model, width=8, **options)
    return make_ppo(VecEnv(env, 4), agent, num_steps=12, epochs=1, minibatches=2), PPOHyper(env_params=params)


class StopAfter(BaseException):
    """As a sink: ends the process' work without a word after so many updates."""

    def __init__(self, update):
        self.update = update

    def write(self, row):
        if row["update"] == self.update:
            raise self

    def close(self):
        pass


def go(learner, hyper, mesh, folder=None, **options):
    steps = 8 * learner.steps_per_update
    defaults = {"total_steps": steps, "evaluations": 0, "progress": False, "checkpoint_seconds": 0.0}
    cut = None if mesh is None else make_mesh(mesh)
    return train(
        learner, hyper, run_dir=folder, settings=SETTINGS, mesh=cut, chunk_seconds=1e-9, **(defaults | options)
    )


def assert_close(a, b, tolerance):
    for i in range(SETTINGS.num):
        for x, y in zip(jax.tree.leaves(lane(a.state, i)), jax.tree.leaves(lane(b.state, i)), strict=True):
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = jax.random.key_data(x), jax.random.key_data(y)
            np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


def killed(learner, hyper, mesh, folder):
    try:
        go(learner, hyper, mesh, folder, sinks=(StopAfter(4),))
    except StopAfter:
        return
    raise AssertionError("was not stopped")


def supervised(folder):
    """One, two and eight devices agree; a run goes on from any number of devices on any other; on the same, exactly."""
    learner, hyper = Regression(), {"lr": 1e-3}
    alone = go(learner, hyper, None)
    whole = go(learner, hyper, "seed=8")
    assert_close(alone, whole, 1e-6)
    assert_close(alone, go(learner, hyper, "seed=2"), 1e-6)
    for at, (before, after) in enumerate(
        [("seed=8", "seed=8"), ("seed=8", "seed=2"), ("seed=2", None), (None, "seed=8")]
    ):
        killed(learner, hyper, before, folder / str(at))
        resumed = go(learner, hyper, after, folder / str(at), resume=True)
        assert_close(resumed, whole, 0 if before == after else 1e-6)


def online(folder, learner_and_hyper=None):
    """Lanes over eight devices, then the environments of each lane over two: the numbers of one device."""
    learner, hyper = learner_and_hyper or ppo()
    alone = go(learner, hyper, None)
    killed(learner, hyper, "seed=8", folder / "ppo")
    resumed = go(learner, hyper, "seed=3,data=2", folder / "ppo", resume=True)
    assert_close(alone, resumed, 1e-4)
    assert P("seed", "data") in {x.sharding.spec for x in jax.tree.leaves(resumed.state.acting)}
    assert all(set(row["frozen"]) == {0.0} and len(row["frozen"]) == 3 for row in resumed.rows)


def refused():
    learner, hyper = ppo()
    for of, mesh, message in (
        (learner, "data=3", "data=3 does not divide the 4 environments"),
        (learner, "data=4", "or the 2 of a minibatch"),
        (Regression(), "data=2", "Regression has none: put the devices on seed"),
        (learner, "seed=3,data=3", "needs 9 devices, but there are 8"),
    ):
        try:
            go(of, hyper if of is learner else {"lr": 1e-3}, mesh)
        except ValueError as error:
            assert message in str(error), error
        else:
            raise AssertionError(mesh)


if __name__ == "__main__":
    assert jax.device_count() == 8
    home = Path(sys.argv[2])
    clocked = {"layers": 1, "heads": 2, "window": 4}  # the clock of a ring of keys is shared by the lanes
    {
        "supervised": lambda: supervised(home),
        "online": lambda: online(home),
        "online-clock": lambda: online(home, ppo("transformer", **clocked)),
        "refused": refused,
    }[sys.argv[1]]()
