"""The settings of `jaxrl-seq train ppo`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import tyro

from jaxrl_seq.envs import TrialEnv, VecEnv, make
from jaxrl_seq.models import ModelConfig
from jaxrl_seq.online import PPO, PPOHyper, make_ppo
from jaxrl_seq.run.config import Placement, Trial, check_reach, record_of
from jaxrl_seq.run.loop import RunOptions

Model = TypeVar("Model")


@dataclass(frozen=True)
class TrainPPO(Generic[Model]):
    """Train PPO with a memory on an environment, all on the device."""

    LEARNER: ClassVar[str] = "ppo"
    PARTS: ClassVar[dict[str, type]] = {"hyper": PPOHyper, "run": RunOptions, "trial": Trial}

    model: Model
    """Sizes of the memory; which flags there are depends on --model."""
    model_name: Annotated[str, tyro.conf.arg(name="model")] = "s5"
    """The memory: see `jaxrl-seq list models`."""
    env: str = "tmaze"
    """Environment id: name[-preset][,option=value ...] or gymnax:ID; see `jaxrl-seq list envs`."""
    num_envs: int = 64
    """Environments stepped together."""
    num_steps: int | None = None
    """Steps of each environment per update; a multiple of a fixed episode length wastes nothing. By default 102, or
    one whole trial."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 4
    """Parts of each pass: whole environments, so num_envs must be divisible by it."""
    reset_policy: Literal["auto", "sync", "select", "pool"] = "auto"
    """How finished episodes are replaced."""
    anneal_lr: bool = True
    """Let the learning rate fall linearly to zero over the run."""
    trial: Trial = field(default_factory=Trial)
    hyper: tyro.conf.OmitArgPrefixes[PPOHyper] = field(default_factory=PPOHyper)
    run: tyro.conf.OmitArgPrefixes[RunOptions] = field(default_factory=RunOptions)
    placement: tyro.conf.OmitArgPrefixes[Placement] = field(default_factory=Placement)

    def build(self) -> tuple[PPO, PPOHyper]:
        """The learner and its hyper-parameters. ValueError for anything that cannot work."""
        inner, params = make(self.env)
        env, eval_env = self.trial.around(inner)
        num_steps = self.num_steps or (env.horizon if self.trial.given else 102)
        if isinstance(env, TrialEnv):
            _check_trial(env, num_steps, self.model_name, self.model)
        vec = VecEnv(env, self.num_envs, self.reset_policy)
        assert isinstance(self.model, ModelConfig)
        learner = make_ppo(
            vec,
            self.model.build(),
            num_steps=num_steps,
            epochs=self.epochs,
            minibatches=self.minibatches,
            eval_env=eval_env,
        )
        updates = -(-self.run.total_steps // learner.steps_per_update)
        anneal = float(updates) if self.anneal_lr else self.hyper.anneal_updates
        return learner, dataclasses.replace(self.hyper, env_params=params, anneal_updates=anneal)

    def record(self) -> dict[str, Any]:
        return record_of(self, without=("env_params",))


def _check_trial(trial: TrialEnv, num_steps: int, name: str, model: Any) -> None:
    """ValueError where a trial fits neither the rollouts nor the model."""
    horizon = trial.horizon
    if trial.fixed_length and num_steps % horizon and horizon % num_steps:
        raise ValueError(
            f"--num-steps {num_steps} cuts trials of {horizon} steps anywhere: leave it out for whole trials, or use a "
            f"multiple of {horizon} or a number that divides it."
        )
    check_reach(name, model, horizon)
