"""The settings of `jaxrl-seq train ad | ad-eps | dpt | headless-ad`: policies distilled from learning histories."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import tyro

from jaxrl_seq.agents import ActorCritic
from jaxrl_seq.envs import TrialEnv, make
from jaxrl_seq.incontext.algorithms import make_algorithm
from jaxrl_seq.incontext.distill import Distill, DistillHyper
from jaxrl_seq.incontext.dpt import DPT
from jaxrl_seq.incontext.headless import Headless
from jaxrl_seq.incontext.histories import History, mix
from jaxrl_seq.incontext.imitation import Imitation, Order
from jaxrl_seq.models import ModelConfig, SequenceModel
from jaxrl_seq.run.config import Placement, Trial, check_reach, record_of
from jaxrl_seq.run.histories import Source, collect, load_history
from jaxrl_seq.run.loop import RunOptions

Model = TypeVar("Model")


@dataclass(frozen=True)
class _TrainDistill(Generic[Model]):
    """What all of them share; a subclass has its own defaults and says what its recipe is."""

    LEARNER: ClassVar[str]
    PARTS: ClassVar[dict[str, type]] = {
        "hyper": DistillHyper,
        "run": RunOptions,
        "trial": Trial,
        "origin": Source,
    }
    LABEL: ClassVar[bool] = False
    """Whether histories need the optimal actions."""

    model: Model
    """Sizes of the memory; which flags there are depends on --model."""
    model_name: Annotated[str, tyro.conf.arg(name="model")] = "gru"
    """The memory: see `jaxrl-seq list models`."""
    env: str = "darkroom"
    """Environment id of one that has tasks."""
    window: int = 200
    """Steps of a training sequence."""
    batch: int = 64
    """Sequences of a gradient step."""
    histories: str | None = None
    """File of `jaxrl-seq collect histories`, instead of the source below."""
    origin: tyro.conf.OmitArgPrefixes[Source] = field(default_factory=Source)
    trial: Trial = field(default_factory=lambda: Trial(episodes=50, held_out=0.1))
    decay_lr: bool = True
    """Let the learning rate fall to zero over the run, as a cosine."""
    hyper: tyro.conf.OmitArgPrefixes[DistillHyper] = field(default_factory=DistillHyper)
    run: tyro.conf.OmitArgPrefixes[RunOptions] = field(
        default_factory=lambda: RunOptions(total_steps=50_000_000, evaluations=5, eval_episodes=2)
    )
    placement: tyro.conf.OmitArgPrefixes[Placement] = field(default_factory=Placement)

    def recipe(self, trial: TrialEnv, model: SequenceModel) -> Any:
        raise NotImplementedError

    def data(self, trial: TrialEnv, params: Any) -> dict[str, Any]:
        """The fields of the hyper-parameters that say where sequences come from."""
        return {"history": collect(self.origin, trial, params, label=self.LABEL)}

    def build(self) -> tuple[Distill, DistillHyper]:
        """The learner and its hyper-parameters, histories included. ValueError for anything that cannot work."""
        env, params = make(self.env)
        if not self.trial.given:
            raise ValueError(f"train {self.LEARNER} learns from and plays trials: --trial.episodes must be at least 1.")
        trial, held_out = self.trial.around(env)
        assert isinstance(self.model, ModelConfig) and isinstance(trial, TrialEnv)
        assert held_out is None or isinstance(held_out, TrialEnv)
        check_reach(self.model_name, self.model, min(self.window, env.horizon))
        learner = Distill(self.recipe(trial, self.model.build()), held_out or trial, self.batch)
        data = self.data(trial, params) if self.histories is None else {"history": self._read(env)}
        if data.get("history") is not None:
            learner.recipe.check(data["history"])
        updates = -(-self.run.total_steps // learner.steps_per_update)
        decay = float(updates) if self.decay_lr else self.hyper.decay_updates
        return learner, dataclasses.replace(self.hyper, env_params=params, decay_updates=decay, **data)

    def record(self) -> dict[str, Any]:
        return record_of(self, without=("history", "source", "env_params"))

    def _read(self, env: Any) -> History:
        assert self.histories is not None
        history, header = load_history(self.histories)
        if make(header["env"])[0] != env:
            raise ValueError(f"{self.histories} was made in {header['env']}, not in {self.env}.")
        held = Trial(**header["trial"])
        if (held.held_out, held.seed, held.draws) != (self.trial.held_out, self.trial.seed, self.trial.draws):
            raise ValueError(
                f"{self.histories} holds out {held.held_out} of the tasks (seed {held.seed}, draws {held.draws}), this "
                f"run {self.trial.held_out} ({self.trial.seed}, {self.trial.draws}): it would be tested on what it "
                "learnt from. Give the same --trial flags to both."
            )
        return history


@dataclass(frozen=True)
class TrainAD(_TrainDistill[Model]):
    """Algorithm Distillation (Laskin et al. 2022): predict what a learning algorithm did next, across its episodes."""

    LEARNER: ClassVar[str] = "ad"

    order: Order = "time"
    """Of the episodes in a sequence; "shuffled" and "single" are controls."""

    def recipe(self, trial: TrialEnv, model: SequenceModel) -> Imitation:
        agent = ActorCritic.for_env(trial, model)
        return Imitation(trial, agent, self.window, order=self.order, name=self.LEARNER)


@dataclass(frozen=True)
class TrainADEps(TrainAD[Model]):
    """AD^eps (Zisman et al. 2024): Algorithm Distillation from a demonstrator whose noise fades, without any RL."""

    LEARNER: ClassVar[str] = "ad-eps"

    origin: tyro.conf.OmitArgPrefixes[Source] = field(default_factory=lambda: Source("noisy-expert", 50, 1))


@dataclass(frozen=True)
class TrainDPT(_TrainDistill[Model]):
    """Decision-Pretrained Transformer (Lee et al. 2023): predict what is optimal, given a set of transitions."""

    LEARNER: ClassVar[str] = "dpt"
    LABEL: ClassVar[bool] = True

    queries: int = 4
    """States a sequence whose optimal actions are asked for."""
    commit: Literal["step", "episode"] = "step"
    """Whether the context of an acting agent grows at every step, or when an episode ends."""
    fresh: bool = False
    """Play new histories of the source for every gradient step, instead of keeping some."""
    origin: tyro.conf.OmitArgPrefixes[Source] = field(
        default_factory=lambda: Source("noisy-expert,schedule=stream", 10, 1)
    )

    def recipe(self, trial: TrialEnv, model: SequenceModel) -> DPT:
        return DPT(trial, model, self.window, self.queries, self.commit)

    def data(self, trial: TrialEnv, params: Any) -> dict[str, Any]:
        if not self.fresh:
            return super().data(trial, params)
        name, options = self.origin.named
        return {"source": make_algorithm(name, trial, params, **options)}


@dataclass(frozen=True)
class TrainHeadlessAD(_TrainDistill[Model]):
    """Headless-AD (Sinii et al. 2024): Algorithm Distillation that carries over to other numbers of actions."""

    LEARNER: ClassVar[str] = "headless-ad"

    env: str = "bernoulli_bandit,arms=12,pulls=60"
    """The bandit that is evaluated."""
    arms: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """Arms of the bandits that are learnt from; all else as in --env."""
    window: int = 60
    origin: tyro.conf.OmitArgPrefixes[Source] = field(default_factory=lambda: Source("thompson", 1, 1, 2000))
    trial: Trial = field(default_factory=lambda: Trial(episodes=1))

    def recipe(self, trial: TrialEnv, model: SequenceModel) -> Headless:
        return Headless(trial, model, self.window)

    def data(self, trial: TrialEnv, params: Any) -> dict[str, Any]:
        histories = {}
        for arms in self.arms:
            env, params = make(self.env, arms=arms)
            histories[arms] = collect(self.origin, TrialEnv(env, episodes=1), params)
        return {"history": mix(histories)}
