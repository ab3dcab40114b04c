"""End-to-end accelerated reinforcement learning for sequence policies, in JAX.

Public names are imported when first used, so that `import jaxrl_seq` costs what `import jax` costs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_seq.agents import ActorCritic
    from jaxrl_seq.envs import VecEnv, make
    from jaxrl_seq.models import make_model
    from jaxrl_seq.online import PPO, PPOHyper, evaluate, make_ppo
    from jaxrl_seq.run.lanes import Lanes, Settings
    from jaxrl_seq.run.loop import Run, train
    from jaxrl_seq.run.publish import publish
    from jaxrl_seq.run.sweep import sweep

__version__ = "0.1.0"

_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"
if importlib.metadata.version("jaxlib").startswith("0.10.") and _SCHEDULER not in os.environ.get("XLA_FLAGS", ""):
    # With this scheduler jaxlib 0.10 can hang for good on a CPU: vmapped training of an LSTM did so every time.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_SCHEDULER}=false".strip()

_HOME = {
    "ActorCritic": "jaxrl_seq.agents",
    "Lanes": "jaxrl_seq.run.lanes",
    "PPO": "jaxrl_seq.online",
    "PPOHyper": "jaxrl_seq.online",
    "Run": "jaxrl_seq.run.loop",
    "Settings": "jaxrl_seq.run.lanes",
    "VecEnv": "jaxrl_seq.envs",
    "evaluate": "jaxrl_seq.online",
    "make": "jaxrl_seq.envs",
    "make_model": "jaxrl_seq.models",
    "make_ppo": "jaxrl_seq.online",
    "publish": "jaxrl_seq.run.publish",
    "sweep": "jaxrl_seq.run.sweep",
    "train": "jaxrl_seq.run.loop",
}

__all__ = [
    "ActorCritic",
    "Lanes",
    "PPO",
    "PPOHyper",
    "Run",
    "Settings",
    "VecEnv",
    "evaluate",
    "make",
    "make_model",
    "make_ppo",
    "publish",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxrl_seq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
