"""The export to dm_env: its own test fixture, and the ends of episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapter_probe import Probe

from jaxrl_seq.envs import make

dm_env = pytest.importorskip("dm_env")
test_utils = pytest.importorskip("dm_env.test_utils")
absltest = pytest.importorskip("absl.testing.absltest")

from jaxrl_seq.envs.adapters.to_dm_env import to_dm_env  # noqa: E402


class TestProbe(test_utils.EnvironmentTestMixin, absltest.TestCase):
    """dm_env's own tests, over both ways of ending an episode."""

    def make_object_under_test(self) -> Any:
        return to_dm_env(Probe())

    def make_action_sequence(self) -> Any:
        return iter([0, 2, 0, 2, 0, 1, 0, 0])


class TestTree(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self) -> Any:
        return to_dm_env(Probe(acts="tree"))


class TestBox(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self) -> Any:
        return to_dm_env(Probe(acts="box"))


class TestMemory(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self) -> Any:
        return to_dm_env(*make("tmaze-10"))


def test_last_steps():
    env = to_dm_env(Probe())
    first = env.reset()
    steps = [env.step(0) for _ in range(4)]
    assert [s.step_type for s in steps] == [dm_env.StepType.MID] * 3 + [dm_env.StepType.LAST]
    assert [s.discount for s in steps] == [1.0] * 4, "a time limit cut it: its future counts"
    assert [float(s.reward) for s in steps] == [1, 2, 3, 4]
    assert steps[-1].observation["clock"] == 4, "the episode's own last observation"
    assert steps[-1].observation["vector"][0] == first.observation["vector"][0]
    again = env.step(1)
    assert again.first() and again.observation["clock"] == 0, "the action is dropped"
    assert again.observation["vector"][0] != first.observation["vector"][0]
    over = env.step(1)
    assert over.last() and over.discount == 0.0, "a termination"


def test_seeds():
    def tags(seed: int | None) -> list[float]:
        env = to_dm_env(Probe(), seed=seed)
        return [float(env.reset().observation["vector"][0]) for _ in range(3)]

    assert tags(0) == tags(0) and len({*tags(0), *tags(1)}) == 6
    assert tags(None) != tags(None)


def test_specs():
    spec: Any = to_dm_env(Probe()).observation_spec()
    assert spec["clock"].num_values == 5 and spec["pair"].maximum.tolist() == [4, 2]
    assert spec["pixels"].dtype == np.uint8 and spec["vector"].minimum.tolist() == [0, 0, 0, -2]
    action: Any = to_dm_env(Probe(acts="box")).action_spec()
    assert (action.minimum, action.maximum, action.shape) == (-2, 2, (1,))


def test_what_does_not_fit_is_refused_in_words():
    env = to_dm_env(Probe())
    env.reset()
    with pytest.raises(ValueError, match="probe: action 3"):
        env.step(3)
