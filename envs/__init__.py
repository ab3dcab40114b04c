"""Pure-JAX environments, imported as `jaxrl_seq.envs`."""

if __name__ == "envs":
    raise ImportError("This folder is the package jaxrl_seq.envs: write `import jaxrl_seq.envs`, not `import envs`.")

from jaxrl_seq.envs.checking import check_env
from jaxrl_seq.envs.core.protocol import Env, TaskEnv
from jaxrl_seq.envs.core.registry import list_envs, make, register
from jaxrl_seq.envs.core.spaces import Box, Discrete, MultiDiscrete, Space, Tree
from jaxrl_seq.envs.core.timestep import TimeStep, opening, transition
from jaxrl_seq.envs.core.trials import Tasks, TrialEnv
from jaxrl_seq.envs.core.vector import VecEnv
from jaxrl_seq.envs.core.wrappers import PixelObs, RandomProjection

__all__ = [
    "Box",
    "Discrete",
    "Env",
    "MultiDiscrete",
    "PixelObs",
    "RandomProjection",
    "Space",
    "TaskEnv",
    "Tasks",
    "TimeStep",
    "Tree",
    "TrialEnv",
    "VecEnv",
    "check_env",
    "list_envs",
    "make",
    "opening",
    "register",
    "transition",
]
