"""Every registered environment, with every preset, keeps the contract of `Env` and earns its own reference returns."""

from __future__ import annotations

import jax
import pytest

from jaxrl_seq.envs import check_env, list_envs, make

NAMES = sorted(list_envs())
PRESETS = [f"{name}-{preset}" for name, presets in list_envs().items() for preset in presets]
LONG = {spec for spec in PRESETS if make(spec)[0].horizon > 5000}
# Whole contracts of these here; the others' (ten seconds of compiling each) are slow tests.
SAMPLE = {"darkroom", "tmaze"}
TRACED = ["structure", "flags", "x64", "host_calls", "hashing", "key_reuse", "actions"]
PLAYED = ["structure", "observations", "ends", "after_end", "reference"]


@pytest.fixture(autouse=True)
def quick_compiles():
    """Dozens of environments are compiled once each and run for a moment."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def slow_unless(condition: bool) -> tuple[pytest.MarkDecorator, ...]:
    return () if condition else (pytest.mark.slow,)


@pytest.mark.parametrize("spec", NAMES + PRESETS)
def test_ids_and_presets(spec: str):
    env, params = make(spec)
    assert make(spec)[0] == env and hash(make(spec)[0]) == hash(env)
    assert env.name == spec.split("-")[0] and env.paper
    assert all(env.has(part) for part in ("expert", "reference", "render", "ascii"))
    reference = env.reference()
    assert "expert" in reference or env.horizon > 5000
    assert reference.get("random", 0.0) < reference.get("expert", 1.0)
    made = jax.eval_shape(env.reset, jax.random.key(0), params)
    jax.eval_shape(
        env.step, jax.random.key(0), made[0], jax.eval_shape(env.action_space().sample, jax.random.key(0)), params
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SAMPLE])
def test_what_tracing_shows(name: str):
    check_env(*make(name), checks=TRACED)


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow_unless(n in SAMPLE)) for n in NAMES])
def test_contract(name: str):
    env, params = make(name)
    report = check_env(env, params)
    left_out = {result.check for result in report.results if result.status != "ok"}
    assert left_out <= {"sharding"} | ({"tasks"} if not env.has("sample_task") else set()), str(report)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [spec for spec in PRESETS if spec not in LONG])
def test_presets_earn_their_references(spec: str):
    check_env(*make(spec), checks=PLAYED)


@pytest.mark.parametrize(
    "spec",
    [
        "tmaze,length=1",
        "repeat_previous,k=52",
        "repeat_previous,k=0",
        "repeat_previous,decks=0",
        "associative_recall,pairs=9",
        "associative_recall,queries=5",
        "associative_recall,delay=-1",
        "associative_recall,num_values=1",
        "cartpole,limit=0",
        "pendulum,limit=0",
    ],
)
def test_bad_sizes_are_refused_in_words(spec: str):
    with pytest.raises(ValueError, match=spec.split(",")[0]):
        make(spec)
