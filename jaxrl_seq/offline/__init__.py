"""Learning from data: data sets of episodes on the device, and policies that are learnt from them."""

from jaxrl_seq.offline.check import DatasetCheckError, DatasetReport, check_dataset
from jaxrl_seq.offline.critic_learner import CriticLearner, make_critic
from jaxrl_seq.offline.critics import CriticHyper
from jaxrl_seq.offline.dataset import (
    Dataset,
    Meta,
    Stats,
    build,
    require_env,
    returns_to_go,
    warn_target,
)
from jaxrl_seq.offline.learner import OfflineHyper, SequenceLearner
from jaxrl_seq.offline.methods import METHODS, make_method
from jaxrl_seq.offline.parts import concatenate, take_episodes, top_fraction
from jaxrl_seq.offline.planner import Search
from jaxrl_seq.offline.recipes import RECIPES, Teacher, make_dataset
from jaxrl_seq.offline.sampler import Transition, Transitions, Window, Windows
from jaxrl_seq.offline.standardise import Standardise, with_stats
from jaxrl_seq.offline.tokens import Tokens
from jaxrl_seq.offline.trajectory import TrajectoryLearner, make_trajectory

__all__ = [
    "METHODS",
    "RECIPES",
    "CriticHyper",
    "CriticLearner",
    "Dataset",
    "DatasetCheckError",
    "DatasetReport",
    "Meta",
    "OfflineHyper",
    "Search",
    "SequenceLearner",
    "Standardise",
    "Stats",
    "Teacher",
    "Tokens",
    "TrajectoryLearner",
    "Transition",
    "Transitions",
    "Window",
    "Windows",
    "build",
    "check_dataset",
    "concatenate",
    "make_critic",
    "make_dataset",
    "make_method",
    "make_trajectory",
    "require_env",
    "returns_to_go",
    "take_episodes",
    "top_fraction",
    "warn_target",
    "with_stats",
]
