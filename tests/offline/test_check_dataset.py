"""The checker of data sets: one fault each, and the message names the place, what is expected and what is there."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from flat_data import META, columns, dataset

from jaxrl_seq.envs import Box, Discrete, make
from jaxrl_seq.offline import Dataset, DatasetCheckError, Meta, build, check_dataset
from jaxrl_seq.offline.check import RULES

LENGTHS = (3, 1, 5, 2, 1, 4)  # episode 2, step 1 is row 5


def put(name: str, row, value, of: str | None = None):
    def change(data: Dataset) -> Dataset:
        column = data.extra[of] if of else getattr(data, name)
        column = column.at[row].set(value)
        return replace(data, **{name: data.extra | {of: column} if of else column})

    return change


def shifted(data: Dataset) -> Dataset:
    stats = replace(data.stats, obs_mean=data.stats.obs_mean + 1)
    return replace(data, stats=stats)


FAULTS = [
    ("shapes", lambda d: replace(d, action=d.action[:-1]), r"action has \(15,\) rows; expected 16, one per step"),
    ("shapes", lambda d: replace(d, final_obs=d.final_obs[1:]), r"final_obs has \(5,\) rows; expected 6, one per epi"),
    ("shapes", lambda d: replace(d, reward=d.reward.astype(jnp.float16)), "reward is float16; expected float32: cast"),
    ("shapes", lambda d: replace(d, terminated=d.terminated.astype(jnp.int32)), "terminated is int32; expected bool"),
    ("episodes", put("length", 3, 0), "episode 3 has 0 steps; expected at least 1: leave it out"),
    ("episodes", put("start", 3, 8), "episode 3 starts at row 8; expected 9, after the one before it"),
    ("episodes", put("length", 5, 3), "the episodes have 15 steps altogether; expected 16"),
    (
        "ends",
        put("truncated", 10, False),
        "episode 3, step 1 is the last one but carries no flag of end; .* set truncated",
    ),
    ("ends", put("truncated", 5, True), "episode 2, step 1 carries a flag of end; expected none before .* split"),
    ("ends", put("terminated", 10, True), "episode 3, step 1 is terminated and truncated; expected one of them"),
    ("clock", put("t", 5, 7), "episode 2, step 1: t is 7; expected 1"),
    ("clock", put("to_end", 5, 7), "episode 2, step 1: to_end is 7; expected 3"),
    ("clock", put("episode", 5, 7), "episode 2, step 1: episode is 7; expected 2"),
    ("finite", put("obs", (5, 1), jnp.nan), r"episode 2, step 1: obs\[1\] is nan; expected a finite number: drop"),
    ("finite", put("reward", 5, jnp.inf), "episode 2, step 1: reward is inf; expected a finite number"),
    ("finite", put("final_obs", (2, 0), jnp.nan), r"episode 2: final_obs\[0\] is nan"),
    ("finite", put("extra", (5, 0), jnp.nan, of="cost"), r"episode 2, step 1: extra.cost\[0\] is nan"),
    ("spaces", put("action", 5, 9), "episode 2, step 1: action is 9; expected 0 to 4: rescale it, or declare"),
    ("spaces", put("obs", (5, 1), 2e6), r"episode 2, step 1: obs\[1\] is 2000000.0; expected -1000000.0 to 1000000.0"),
    ("spaces", put("final_obs", (2, 1), 2e6), r"episode 2: final_obs\[1\] is 2000000.0"),
    (
        "spaces",
        lambda d: replace(d, action=d.action * 1.0),
        r"action is float32\[\] a row; expected int32\[\] of Discrete",
    ),
    ("returns", put("reward", 5, 99.0), "episode 2, step 1: rtg is .*; expected .*, the reward and what follows"),
    ("returns", put("rtg", 6, 99.0), "episode 2, step 1: rtg is "),
    ("stats", shifted, r"stats.obs_mean is .*; expected .*, that of the data: `build` the data set"),
]


@pytest.mark.parametrize(("rule", "fault", "message"), FAULTS, ids=[f"{i}-{x[0]}" for i, x in enumerate(FAULTS)])
def test_each_fault_is_found_named_and_placed(rule, fault, message):
    broken = fault(dataset(LENGTHS))
    with pytest.raises(DatasetCheckError, match=rf"{rule} +FAILED +shard b\.npz, .*{message}"):
        check_dataset(broken, where="b.npz")
    report = check_dataset(broken, raise_on_failure=False)
    # rules that a fault makes meaningless are skipped; a number may also be wrong by another rule
    assert rule in report.failed and set(report.failed) <= {rule, "returns", "stats", "spaces"}


def test_sound_data_holds_every_rule():
    report = check_dataset(dataset(LENGTHS))
    assert report.failed == () and {result.check for result in report.results} == set(RULES)
    assert "steps 16, episodes 6, lengths 1 to 5" in str(report) and "returns" in str(report)


def test_what_is_allowed_but_odd_is_a_warning():
    notes = [result for result in check_dataset(dataset(LENGTHS)).results if result.status == "warning"]
    assert len(notes) == 1 and "episode 1 and 1 more last one step" in notes[0].message
    dull = columns((3, 3)) | {"reward": np.zeros(6, np.float32), "action": np.zeros(6, np.int32)}
    text = str(check_dataset(build(**dull, meta=META)))
    assert "every episode returns 0: returns are no signal" in text and "action is 0 in every step" in text


def test_data_is_held_to_its_environment():
    env, _ = make("point_mass")
    with pytest.raises(DatasetCheckError, match=r"env +FAILED +the data .* and the environment point_mass differ"):
        check_dataset(dataset(LENGTHS), env)
    steps = (51, 3)
    given = columns(steps) | {"action": np.zeros((54, 2), np.float32), "final_obs": np.zeros((2, 4), np.float32)}
    long = build(**(given | {"obs": np.zeros((54, 4), np.float32)}), meta=Meta(Box(-1, 1, (4,)), Box(-1, 1, (2,))))
    with pytest.raises(
        DatasetCheckError, match="episode 0 has 51 steps; expected at most 50, the horizon of point_mass"
    ):
        check_dataset(long, env)


def test_trees_of_observations_are_named_by_their_path():
    from jaxrl_seq.envs import Tree

    given = columns((3, 2))
    tree = {name: {"cell": given[name][:, 0].astype(np.int32)} for name in ("obs", "final_obs")}
    data = build(**(given | tree), meta=Meta(Tree({"cell": Discrete(1)}), Discrete(5)))
    with pytest.raises(DatasetCheckError, match="episode 1, step 0: obs.cell is 1; expected 0 to 0"):
        check_dataset(data)
    other = replace(data, meta=Meta(Tree({"room": Discrete(1)}), Discrete(5)))
    with pytest.raises(DatasetCheckError, match="obs is dict; expected a dictionary of room"):
        check_dataset(other)
