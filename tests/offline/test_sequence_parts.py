"""Tokens, signals, heads and learners refuse what makes no sense, and signals move as their labels do."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequence_lab import HORIZON, World, columns, recorded

from jaxrl_seq.envs import Box, Discrete
from jaxrl_seq.envs.core.vector import Outcome
from jaxrl_seq.models import make_model
from jaxrl_seq.offline.methods import make_method
from jaxrl_seq.offline.objectives import ActionTerm
from jaxrl_seq.offline.signals import CostToGo, ReturnToGo
from jaxrl_seq.offline.tokens import Tokens


def test_a_line_says_what_tokens_are():
    tokens = Tokens("rtg | obs + prev_reward* | action")
    assert tokens.groups == (("rtg",), ("obs", "prev_reward"), ("action",))
    assert tokens.reads == 1 and tokens.per_step == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rtg | obs | action", "0 tokens"),
        ("rtg* | obs* | action", "2 tokens"),
        ("rtg | obs + action*", "before the action is chosen"),
        ("rtg | reward | obs*", "prev_reward"),
        ("rtg | obs* | ", "empty place"),
        ("obs | obs*", "more than once"),
    ],
)
def test_tokens_that_make_no_sense_are_refused(line, words):
    with pytest.raises(ValueError, match=words):
        Tokens(line)


@pytest.mark.parametrize("signal", [ReturnToGo(), ReturnToGo(delayed=True), CostToGo()])
def test_a_signal_moves_along_the_data_as_its_label_does(signal):
    data = recorded(World())
    labels = np.asarray(signal.column(data))
    for episode in (0, 2, 3):
        shown = columns(data, (episode,), int(data.length[episode]))
        now = signal.start(jnp.asarray(labels[data.start[episode]]))
        for t, label in enumerate(labels[int(data.start[episode]) :][: len(shown["reward"])]):
            np.testing.assert_allclose(now[0], label, atol=1e-5)
            reward, cost = shown["reward"][t], shown["cost"][t]
            no = jnp.zeros(1, bool)
            outcome = Outcome(reward, no, no, None, reward, reward, {}, cost, jnp.int32(0))
            now = signal.update(now, outcome)
        if not getattr(signal, "delayed", False):
            np.testing.assert_allclose(now, 0.0, atol=1e-5)  # nothing is left after the last step


def test_costs_are_needed_to_count_them():
    data = recorded(World())
    with pytest.raises(ValueError, match="no column `cost`"):
        CostToGo().column(data.replace(extra={}))


@pytest.mark.parametrize(
    ("space", "head", "words"),
    [
        (Discrete(3), "mse", "use ce"),
        (Box(-np.inf, np.inf, (2,)), "ce", "no bounds"),
        (Box(-1.0, 1.0, (2,)), "normal", "must be one of"),
    ],
)
def test_heads_that_do_not_fit_are_refused(space, head, words):
    with pytest.raises(ValueError, match=words):
        ActionTerm(space, head)


def test_classes_of_a_box_are_its_equal_parts():
    term = ActionTerm(Box(-2.0, 6.0, (2,)), "ce", bins=8)
    action = jnp.array([[-2.0, 5.9], [1.2, 2.0], [6.0, -1.5]])
    sure = 50.0 * jax.nn.one_hot(jnp.array([[0, 7], [3, 4], [7, 0]]), 8).reshape(3, 16)
    np.testing.assert_allclose(term.choose(sure), action, atol=0.5)
    np.testing.assert_allclose(term.loss(sure, {"action": action}), 0.0, atol=1e-5)
    np.testing.assert_allclose(term.loss(jnp.zeros((3, 16)), {"action": action}), 2 * np.log(8), rtol=1e-5)


def dt(model: Any = None, **options: Any) -> Any:
    return make_method("dt", World(), model or make_model("gpt", width=8, layers=1, heads=2, context=21), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 8}, "24 tokens, but the model reads 21.*window of 7 steps"),
        ({"mode": "recurrent"}, "use mode cache"),
        ({"mode": "cache", "model": make_model("gru", width=8)}, "use mode recurrent"),
        ({"mode": "rolling"}, "must be one of"),
        ({"tokens": "obs* | action"}, "do not show the signal 'rtg'"),
        ({"tokens": "rtg | obz* | action"}, "Did you mean 'obs'"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_learners_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        dt(**({"window": 7} | options))


def test_data_that_does_not_fit_is_refused():
    learner = dt(mode="cache")
    with pytest.raises(ValueError, match="longest of the data has 9 steps"):
        learner.hyper(recorded(World(), lengths=(3, 9)))
    with pytest.raises(ValueError, match="7 positions, but the data has an episode of 9 steps"):
        dt(window=5).hyper(recorded(World(), lengths=(3, 9)))
    with pytest.raises(ValueError, match="differ in actions"):
        learner.hyper(recorded(World(continuous=True)))
    with pytest.raises(ValueError, match="there is no data"):
        learner.init(jax.random.key(0), learner.default_hyper())


def test_a_target_beyond_the_data_is_warned_of():
    learner, data = dt(window=HORIZON), recorded(World())
    with pytest.warns(UserWarning, match="target return 1000 is outside of the data's range"):
        learner.hyper(data, target=1000.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hyper = learner.hyper(data)
    assert hyper.target == data.stats.return_high
    low, high = -1.0, float(data.stats.return_high)  # from random play's reference on
    np.testing.assert_allclose(learner.targets(hyper)[1:], low + np.array([0, 0.25, 0.5, 0.75, 1, 1.25]) * (high - low))
