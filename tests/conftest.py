"""What all tests share: a compilation cache on disk, small models, and strict dtype promotion on request."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

_CACHE = str(Path(__file__).resolve().parents[1] / ".cache" / "jax")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE)  # for processes that tests start
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # small programs are many
# Tests are mostly compilation: LLVM's first level, which is what training uses on CPU too (run/programs.py), and no
# MLIR pipeline for every fusion, which is half of the time. jaxlib 0.11 has no such flag, and dies of unknown ones.
_FLAGS = " --xla_backend_optimization_level=1"
if version("jaxlib") < "0.11":
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + _FLAGS

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

_SMALL = {"width": 8, "layers": 1, "state": 4, "heads": 2, "kv_heads": 1, "window": 4, "context": 4, "segment": 4}
_SMALL |= {"eta": 2, "expand": 1, "traces": 4, "contexts": 2, "head_dim": 4, "kernel": 4}


@pytest.fixture
def strict() -> Iterator[None]:
    """Promotion between dtypes is an error: for tests of formulas."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers, or loads from a file of its own, is gone after it."""
    from jaxrl_seq.envs.core import registry, user_file

    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.setattr(user_file, "_MODULES", {})


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Hundreds of files' programs would fill the memory, and slow down every garbage collection."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def small_model() -> Callable:
    """`small_model(name)`: any registered model with one layer of width 8, and a window of 4 where it has one."""
    from jaxrl_seq.models import MODELS, make_model

    def build(name: str, **options):
        known = {field.name for field in dataclasses.fields(MODELS[name])}
        return make_model(name, **{k: v for k, v in (_SMALL | options).items() if k in known})

    return build


@pytest.fixture(scope="session")
def random_params() -> Callable:
    """`random_params(agent, env, seed=0)`: parameters that make a lively policy, without compiling an initialiser.

    Fresh ones would make it almost uniform, and then probability ratios are 1 whatever a model does.
    """
    import numpy as np

    from jaxrl_seq.agents.actor_critic import example_inputs

    def build(agent, env, seed: int = 0):
        rng = np.random.default_rng(seed)
        inputs = example_inputs(env, (1, 1))
        carry = agent.initialize_carry((1,))
        shapes = jax.eval_shape(agent.init, jax.random.key(0), carry, inputs, inputs.first)

        def draw(leaf):
            fan_in = leaf.shape[-2] if len(leaf.shape) > 1 else 4
            return jax.numpy.asarray(rng.normal(0.0, fan_in**-0.5, leaf.shape), leaf.dtype)

        params = jax.tree.map(draw, shapes)
        head = params["params"]["policy_head"]
        head["kernel"] = 4.0 * head["kernel"]
        return params

    return build
