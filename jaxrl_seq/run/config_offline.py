"""The settings of `jaxrl-seq train bc | dt | ...`: policies learnt from a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import tyro

from jaxrl_seq.envs import Env, make
from jaxrl_seq.models import ModelConfig
from jaxrl_seq.offline import Dataset, Teacher, top_fraction
from jaxrl_seq.offline.constrained import ConstrainedHyper
from jaxrl_seq.offline.critic_learner import make_critic
from jaxrl_seq.offline.critics import CriticHyper
from jaxrl_seq.offline.learner import OfflineHyper, OfflineLearner
from jaxrl_seq.offline.methods import METHODS, make_method
from jaxrl_seq.offline.planner import Search
from jaxrl_seq.offline.trajectory import make_trajectory
from jaxrl_seq.run.config import Placement, record_of
from jaxrl_seq.run.datasets import Data, is_path, split_name
from jaxrl_seq.run.loop import RunOptions

Model = TypeVar("Model")


@dataclass(frozen=True)
class _TrainOffline(Generic[Model]):
    """What all of them share; a subclass has its own defaults and says what its learner is."""

    LEARNER: ClassVar[str]
    PARTS: ClassVar[dict[str, type]] = {"hyper": OfflineHyper, "run": RunOptions, "data": Data, "teacher": Teacher}

    model: Model
    """Sizes of the model; which flags there are depends on --model."""
    model_name: Annotated[str, tyro.conf.arg(name="model")] = "mlp"
    """Any model of the library: see `jaxrl-seq list models`."""
    env: str = ""
    """Environment id to act in; by default the one that the data is of, with its options."""
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    teacher: Teacher = field(default_factory=Teacher)
    top: float = 1.0
    """Learn from the episodes of highest return only that make up this share of the steps (0.1 with bc: 10 % BC)."""
    batch: int = 64
    """Windows of a gradient step."""
    num_envs: int = 16
    """Environments of an evaluation, for each target."""
    greedy: bool = True
    """Take the most likely action when evaluated."""
    decay_lr: bool = True
    """Let the learning rate fall to zero over the run, as a cosine."""
    hyper: tyro.conf.OmitArgPrefixes[OfflineHyper] = field(default_factory=OfflineHyper)
    run: tyro.conf.OmitArgPrefixes[RunOptions] = field(
        default_factory=lambda: RunOptions(total_steps=5_000_000, evaluations=5)
    )
    placement: tyro.conf.OmitArgPrefixes[Placement] = field(default_factory=Placement)

    def __post_init__(self) -> None:
        if not self.env and not is_path(self.data.dataset):
            object.__setattr__(self, "env", split_name(self.data.dataset)[0])

    def learner(self, env: Env) -> OfflineLearner:
        raise NotImplementedError

    def build(self) -> tuple[OfflineLearner, Any]:
        """The learner and its hyper-parameters, data included. ValueError for anything that cannot work."""
        dataset, env, params = _opened(self.data, self.teacher)
        if self.env:
            env, params = make(self.env)
        learner = self.learner(env)
        if self.top < 1:
            dataset = top_fraction(dataset, self.top)
        updates = -(-self.run.total_steps // learner.steps_per_update)
        numbers = {name: x for name, x in vars(self.hyper).items() if name not in ("data", "env_params")}
        numbers["decay_updates"] = float(updates) if self.decay_lr else self.hyper.decay_updates
        return learner, learner.hyper(dataset, env_params=params, **numbers)

    def record(self) -> dict[str, Any]:
        record = record_of(self, without=("data", "env_params"))
        return record | {"env": self.env or Path(self.data.dataset).stem}

    def shared(self) -> dict[str, Any]:
        """The fields of `OfflineLearner`."""
        return {"batch": self.batch, "num_envs": self.num_envs, "greedy": self.greedy}

    def built(self) -> Any:
        """The model, with the name that reports call it."""
        assert isinstance(self.model, ModelConfig)
        return self.model.build().clone(label=self.model_name)  # pyright: ignore[reportCallIssue]


@lru_cache(maxsize=1)
def _opened(data: Data, teacher: Teacher) -> tuple[Dataset, Env, Any]:
    """Made or read once: commands build a learner several times."""
    return data.open(teacher)


@dataclass(frozen=True)
class TrainSequence(_TrainOffline[Model]):
    """A sequence policy, trained to predict what the data did next."""

    tokens: str = ""
    """What a step shows, such as "rtg | obs* | action"; by default the method's own (see offline/README.md)."""
    mode: Literal["", "window", "cache", "recurrent"] = ""
    """How it acts: from the last steps, from keys and values, or from a state; by default the method's own."""
    window: int = 0
    """Steps of a training sequence; 0: the method's own, or whole episodes in modes cache and recurrent."""
    head: Literal["auto", "stochastic", "mse", "ce", "gaussian"] = "auto"
    """Of the actions: squared error, classes, or a Gaussian (stochastic: what fits); auto: the method's own."""
    bins: int = 32
    """Classes of an entry of a continuous action with --head ce."""
    entropy: float | None = None
    """What a nat of the policy's entropy is worth, with --head ce or gaussian; by default the method's own."""

    def learner(self, env: Env) -> OfflineLearner:
        return make_method(
            self.LEARNER,
            env,
            self.built(),
            tokens=self.tokens or None,
            mode=self.mode or None,
            window=self.window or None,
            head=None if self.head == "auto" else self.head,
            bins=self.bins,
            entropy=self.entropy,
            **self.shared(),
        )


def _row(method: str, doc: str) -> type[TrainSequence]:
    """The settings of a method that is no more than its row."""

    @dataclass(frozen=True)
    class Row(TrainSequence[Model]):
        LEARNER: ClassVar[str] = method

        model_name: Annotated[str, tyro.conf.arg(name="model")] = METHODS[method].model

    Row.__doc__ = doc
    return Row


TrainBC = _row("bc", "Behavioural cloning: imitate the data, or with --top its best share.")
TrainRvS = _row("rvs", "Return-conditioned imitation by a net without memory (Emmons et al. 2022): a control for dt.")
TrainDT = _row("dt", "Decision Transformer (Chen et al. 2021): imitate, given the return that is left to earn.")
TrainDC = _row("dc", "Decision ConvFormer (Kim et al. 2023): the same with short filters instead of attention.")
TrainDS4 = _row(
    "ds4", "Decision S4 (Bar-David et al. 2023): one token a step and a recurrent model, trained on whole episodes."
)
TrainLRAM = _row(
    "lram", "Large recurrent action model (Schmied et al. 2024): no actions in the context, classes for actions."
)
TrainRATE = _row(
    "rate", "Recurrent Action Transformer with Memory (Cherepanov et al. 2023): memory tokens across segments."
)


@dataclass(frozen=True)
class TrainCDT(TrainSequence[Model]):
    """Constrained Decision Transformer (Liu et al. 2023): a return to earn and a cost not to exceed."""

    LEARNER: ClassVar[str] = "cdt"
    PARTS: ClassVar[dict[str, type]] = TrainSequence.PARTS | {"hyper": ConstrainedHyper}

    model_name: Annotated[str, tyro.conf.arg(name="model")] = METHODS["cdt"].model
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=lambda: Data("safe_grid-budgets"))
    augment: float = 0.3
    """Relabelled episodes, as a share of the data's; 0 for none."""
    limits: tuple[float, ...] = ()
    """Cost limits of every evaluation; by default shares of the data's costliest episode."""
    hyper: tyro.conf.OmitArgPrefixes[ConstrainedHyper] = field(default_factory=ConstrainedHyper)

    def shared(self) -> dict[str, Any]:
        return super().shared() | {"augment": self.augment, "limits": self.limits}


@dataclass(frozen=True)
class TrainEDT(TrainSequence[Model]):
    """Elastic Decision Transformer (Wu et al. 2023): acts from the past that promises the highest return."""

    LEARNER: ClassVar[str] = "edt"

    model_name: Annotated[str, tyro.conf.arg(name="model")] = METHODS["edt"].model
    stride: int = 2
    """Pasts that are tried, from the whole window downwards, differ by so many steps; `window` keeps it whole."""

    def shared(self) -> dict[str, Any]:
        return super().shared() | {"stride": self.stride}


@dataclass(frozen=True)
class TrainTT(_TrainOffline[Model]):
    """Trajectory Transformer (Janner et al. 2021): a language model of trajectories, and a beam search for acting."""

    LEARNER: ClassVar[str] = "tt"
    PARTS: ClassVar[dict[str, type]] = _TrainOffline.PARTS | {"search": Search}

    model_name: Annotated[str, tyro.conf.arg(name="model")] = "gpt"
    bins: int = 100
    """Classes of every number of an observation, action or reward."""
    window: int = 0
    """Steps of a training sequence; 0: what the model reads, at most 10."""
    gamma: float = 0.99
    """Discount of a plan's rewards and of the value behind it."""
    search: tyro.conf.OmitArgPrefixes[Search] = field(default_factory=Search)

    def learner(self, env: Env) -> OfflineLearner:
        return make_trajectory(
            env,
            self.built(),
            bins=self.bins,
            window=self.window or None,
            search=self.search,
            gamma=self.gamma,
            **self.shared(),
        )


# --- with value functions ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _TrainCritic(_TrainOffline[Model]):
    PARTS: ClassVar[dict[str, type]] = _TrainOffline.PARTS | {"hyper": CriticHyper}

    tokens: str = "obs*"
    """What networks see of a step; with a memory "obs + prev_action + prev_reward*"."""
    mode: Literal["window", "cache", "recurrent"] = "window"
    """How the policy acts; see `jaxrl-seq train dt`."""
    window: int = 1
    """Steps of a training sequence: 1 for transitions; in modes cache and recurrent whole episodes."""
    value_head: Literal["mse", "two-hot", "hl-gauss"] = "mse"
    """How values are learnt: by squared error, or as classes."""
    value_bins: int = 51
    """Classes of a value."""
    hyper: tyro.conf.OmitArgPrefixes[CriticHyper] = field(default_factory=CriticHyper)

    def learner(self, env: Env) -> OfflineLearner:
        return make_critic(
            self.LEARNER,
            env,
            self.built(),
            tokens=self.tokens,
            mode=self.mode,
            window=self.window,
            value_head=self.value_head,
            bins=self.value_bins,
            **self.shared(),
        )


@dataclass(frozen=True)
class TrainTD3BC(_TrainCritic[Model]):
    """TD3+BC (Fujimoto & Gu 2021): for continuous actions."""

    LEARNER: ClassVar[str] = "td3bc"


@dataclass(frozen=True)
class TrainCQL(_TrainCritic[Model]):
    """Conservative Q-learning (Kumar et al. 2020)."""

    LEARNER: ClassVar[str] = "cql"


@dataclass(frozen=True)
class TrainIQL(_TrainCritic[Model]):
    """Implicit Q-learning (Kostrikov et al. 2022)."""

    LEARNER: ClassVar[str] = "iql"
