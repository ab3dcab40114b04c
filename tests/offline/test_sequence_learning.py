"""Sequence policies in their world: evaluation over targets, the run loop, and what is learnt."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_seq import train
from jaxrl_seq.cli import main
from jaxrl_seq.envs import make
from jaxrl_seq.models import make_model
from jaxrl_seq.offline import make_dataset, top_fraction
from jaxrl_seq.offline.methods import make_method


@pytest.fixture(scope="module")
def gamble() -> Any:
    """Every arm equally often."""
    env, params = make("gamble")
    return env, params, make_dataset("random", env, params, jax.random.key(0), 600)


def test_targets_are_played_side_by_side_in_the_same_episodes(gamble):
    """A policy that cannot be told from its target earns the same for each: chance is common to all of them."""
    env, params, data = gamble
    learner = make_method("rvs", env, make_model("mlp", width=8, layers=1), num_envs=32)
    hyper = learner.hyper(data, env_params=params, target=1.0)

    @jax.jit
    def play(hyper: Any) -> Any:
        state = learner.init(jax.random.key(0), hyper)
        first = state.params["heads_0"]
        blunt = first | {"kernel": jnp.zeros_like(first["kernel"]), "bias": jnp.array([0.0, 1.0, 0.0])}
        blind = state.replace(params=state.params | {"heads_0": blunt})
        return learner.evaluate(blind, hyper, jax.random.key(1), episodes=3)

    played = play(hyper)
    numbers = {name: float(x) for name, x in played.numbers.items()}
    returns = {value for name, value in numbers.items() if name.startswith("return_at")}
    assert played.returns.shape == (32, 3) and played.finished.all()
    assert set(np.unique(played.returns)) == {-6.0, 1.0} and returns == {float(played.means()["return_mean"])}
    assert numbers["online_episodes"] == 7 * 32 * 3
    low = dict(data.meta.reference)["random"]
    assert numbers["target_at_100"] == 5.0 and numbers["target_at_50"] == pytest.approx((low + 5) / 2)


def test_a_run_trains_resumes_and_reports(tmp_path, capsys):
    folder, data = tmp_path / "run", "gamble-random"
    words = f"train rvs --dataset {data} --dataset-steps 200 --model mlp --model.width 8 --model.layers 1 --batch 16"
    words += f" --total-steps 640 --evaluations 1 --eval-episodes 1 --num-envs 4 --run-dir {folder}"
    assert main(words.split()) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["env"] == "gamble" and summary["learner"] == "rvs" and summary["finished"]
    assert summary["numbers"]["target_at_100"] == 5.0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert last["kind"] == "eval" and last["target_at_100"] == 5.0 and last["online_episodes"] == 7 * 4
    assert (folder / "report.html").is_file()
    assert main(["resume", str(folder)]) == 0
    assert main(["eval", str(folder), "--episodes", "1", "--json"]) == 0
    assert '"greedy"' in capsys.readouterr().out


def test_data_of_another_environment_is_refused_in_words(capsys):
    words = ["train", "dt", "--dataset", "gamble-random", "--dataset-steps", "50", "--env", "tmaze"]
    assert main(words) == 2
    assert "differ in" in capsys.readouterr().err


# --- known answers ----------------------------------------------------------------------------------------------------
def score(name: str, env: Any, params: Any, data: Any, model: Any, updates: int, **options: Any) -> Any:
    hyper = options.pop("hyper", {})
    learner = make_method(name, env, model, num_envs=64, **options)
    hyper = learner.hyper(data, env_params=params, decay_updates=float(updates), **hyper)
    total = updates * learner.steps_per_update
    return train(learner, hyper, total_steps=total, evaluations=1, eval_episodes=16, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("target", [1.0, 5.0])
def test_return_conditioned_imitation_takes_luck_for_skill(target):
    """Its exact value is known (Paster et al. 2022): -1/6 for a target of 1, -5 for a target of 5."""
    env, params = make("gamble")
    data = make_dataset("random", env, params, jax.random.key(0), 20_000)
    model = make_model("gpt", width=16, layers=1, heads=2, context=8)
    run = score("dt", env, params, data, model, 600, window=1, greedy=False, hyper={"target": target, "lr": 3e-3})
    low, high = run.summary["eval_return_ci"]  # over episodes, and some room for what was learnt
    assert low - 0.3 < env.conditioned(target)[1] < high + 0.3, (low, high)


@pytest.mark.slow
def test_a_graph_is_walked_by_short_ways_where_imitation_wanders():
    """The motivating example of Chen et al. 2021, from random walks: nearly shortest ways, 2.26 steps on average."""
    env, params = make("graph_walk")
    data = make_dataset("random", env, params, jax.random.key(0), 30_000)
    model = make_model("gpt", width=32, layers=2, heads=2, context=30)
    asked = score("dt", env, params, data, model, 1200, window=10, hyper={"lr": 2e-3})
    assert asked.summary["eval_return_mean"] > -2.26 - 0.6
    imitated = score("bc", env, params, top_fraction(data, 1.0), make_model("mlp", width=32), 1200, greedy=False)
    assert imitated.summary["eval_return_mean"] < -6.0
