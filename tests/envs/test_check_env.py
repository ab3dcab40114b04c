"""`check_env` lets a sound environment pass and finds each fault of a corpus, by name and in words."""

from __future__ import annotations

import collections

import jax
import pytest
from broken_envs import BROKEN
from recall_env import Recall

from jaxrl_seq.envs import check_env
from jaxrl_seq.envs.checking import CHECKS, EnvCheckError

EPISODES = 256


@pytest.fixture(autouse=True)
def quick_compiles():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_a_sound_environment_passes():
    report = check_env(Recall(), episodes=EPISODES)
    held = [result.check for result in report.results if result.status == "ok"]
    skipped = {result.check for result in report.results if result.status == "skipped"}
    assert set(held) | skipped == set(CHECKS) and skipped <= {"sharding"}
    assert report.cost["state_bytes"] == 8 and report.cost["obs_bytes"] == 16
    assert report.cost["reset_policy"] == "sync"
    assert f"recall: {len(held)} checks hold" in str(report)


def test_every_check_bites():
    faults = collections.Counter(check for check, _, _ in BROKEN)
    # a scan differs from a loop, and devices from one, only if something above is broken as well
    assert set(CHECKS) - set(faults) == {"scan", "sharding"}
    assert len(BROKEN) >= 20


@pytest.mark.parametrize(("check", "words", "broken"), BROKEN, ids=[cls.__name__ for _, _, cls in BROKEN])
def test_fault_is_found(check: str, words: str, broken: type):
    with pytest.raises(EnvCheckError, match="FAILED"):
        check_env(broken(), checks=["structure", check], episodes=EPISODES)
    report = check_env(broken(), checks=["structure", check], episodes=EPISODES, raise_on_failure=False)
    assert report.failed == (check,)
    (message,) = [result.message for result in report.results if result.check == check]
    assert words in message and message.count(".") >= 1, message


def test_what_is_asked_for_must_exist():
    with pytest.raises(ValueError, match=r"Unknown check 'parametres'. Did you mean 'parameters'"):
        check_env(Recall(), checks=["parametres"])
    with pytest.raises(ValueError, match="is no Env"):
        check_env(object())  # pyright: ignore[reportArgumentType]
