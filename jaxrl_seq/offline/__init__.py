"""Learning from data: data sets of episodes on the device, how they are made, drawn from and checked."""

from jaxrl_seq.offline.check import DatasetCheckError, DatasetReport, check_dataset
from jaxrl_seq.offline.dataset import (
    Dataset,
    Meta,
    Stats,
    build,
    require_env,
    returns_to_go,
    warn_target,
)
from jaxrl_seq.offline.parts import concatenate, take_episodes, top_fraction
from jaxrl_seq.offline.recipes import RECIPES, Teacher, make_dataset
from jaxrl_seq.offline.sampler import Transition, Transitions, Window, Windows
from jaxrl_seq.offline.standardise import Standardise, with_stats

__all__ = [
    "RECIPES",
    "Dataset",
    "DatasetCheckError",
    "DatasetReport",
    "Meta",
    "Standardise",
    "Stats",
    "Teacher",
    "Transition",
    "Transitions",
    "Window",
    "Windows",
    "build",
    "check_dataset",
    "concatenate",
    "make_dataset",
    "require_env",
    "returns_to_go",
    "take_episodes",
    "top_fraction",
    "warn_target",
    "with_stats",
]
