"""What `jaxrl-seq train` understands: frozen dataclasses that tyro turns into flags and config.json keeps."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from jaxrl_seq.envs import Env, Tasks, TrialEnv, VecEnv, make
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.models import ModelConfig, config_to_dict, model_config
from jaxrl_seq.online import PPO, PPOHyper, make_ppo
from jaxrl_seq.run.loop import RunOptions

Model = TypeVar("Model")


@dataclass(frozen=True)
class Placement:
    """Where a run goes."""

    run_dir: str | None = None
    """Folder of the run; by default a fresh one under runs/."""
    overwrite: bool = False
    """Replace an earlier run in --run-dir."""
    tensorboard: bool = False
    """Also log to TensorBoard (needs the extra `tensorboard`)."""
    wandb: bool = False
    """Also log to Weights & Biases (needs the extra `wandb`)."""


@dataclass(frozen=True)
class Trial:
    """Episodes of one hidden task in a row, through which memory is kept, so that an agent may learn in it (RL^2)."""

    episodes: int = 0
    """Episodes of a trial; 0 for no trials."""
    steps: int = 0
    """Its steps, instead of episodes."""
    held_out: float = 0.0
    """Share of the tasks that is kept for evaluation; with 0 all of them are learnt from and evaluated on."""
    draws: int = 0
    """Tasks that are drawn of an infinite family, once and for all; 0: a new one for every trial."""
    seed: int = 0
    """Of the tasks that are held out, and of the draws."""

    @property
    def given(self) -> bool:
        return bool(self.episodes or self.steps)

    def around(self, env: Env) -> tuple[Env, Env | None]:
        """(what to learn from, what to evaluate on where that is another): `env` itself without trials."""
        if not self.given:
            if self.held_out or self.draws:
                raise ValueError("--trial.held-out and --trial.draws need --trial.episodes (or --trial.steps).")
            return env, None
        if not 0 <= self.held_out < 1:
            raise ValueError(f"--trial.held-out is {self.held_out}: a share of the tasks, at least 0 and below 1.")
        if not self.held_out:
            tasks = Tasks(env, seed=self.seed, draws=self.draws)
            return TrialEnv(env, tasks, self.episodes, self.steps), None
        train, test = Tasks(env).split(self.held_out, self.seed, self.draws)
        return TrialEnv(env, train, self.episodes, self.steps), TrialEnv(env, test, self.episodes, self.steps)


@dataclass(frozen=True)
class TrainPPO(Generic[Model]):
    """Train PPO with a memory on an environment, all on the device."""

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
        """What config.json keeps: names for people and everything that `load` needs."""
        kept = (f.name for f in dataclasses.fields(self) if f.name != "placement")
        settings = {name: getattr(self, name) for name in kept}
        settings["hyper"] = {k: v for k, v in vars(self.hyper).items() if k != "env_params"}
        settings["run"], settings["trial"] = dataclasses.asdict(self.run), dataclasses.asdict(self.trial)
        settings["model"] = config_to_dict(self.model)
        return {
            "command": "train ppo",
            "env": self.env,
            "model": self.model_name,
            "learner": "ppo",
            "settings": settings,
        }


_WINDOWS = {
    **dict.fromkeys(("transformer", "transformer_xl", "gtrxl"), "window"),
    **dict.fromkeys(("convformer", "gmlp"), "kernel"),
    "gpt": "context",
}
"""Models that see only so far back, and the field that says how far a layer does."""


def reach(name: str, model: Any) -> int | None:
    """How many steps, the present one included, the output of model `name` can depend on; None for no limit."""
    if name not in _WINDOWS:
        return None
    window = getattr(model, _WINDOWS[name])
    return window if getattr(model, "inference", "") == "window" else model.layers * (window - 1) + 1


def _check_trial(trial: TrialEnv, num_steps: int, name: str, model: Any) -> None:
    """ValueError where a trial fits neither the rollouts nor the model."""
    horizon, limit = trial.horizon, reach(name, model)
    if trial.fixed_length and num_steps % horizon and horizon % num_steps:
        raise ValueError(
            f"--num-steps {num_steps} cuts trials of {horizon} steps anywhere: leave it out for whole trials, or use a "
            f"multiple of {horizon} or a number that divides it."
        )
    if limit is not None and limit < horizon:
        field = _WINDOWS[name]
        raise ValueError(
            f"A trial has {horizon} steps, but {name} sees {limit} steps back at most (--model.{field} "
            f"{getattr(model, field)}): what was learnt at the start would be gone. Use --model.{field} {horizon}, "
            "fewer episodes, or a model without a limit, such as gru or s5."
        )


def parse_train(argv: list[str]) -> TrainPPO[Any]:
    """What the flags ask for. The model's own flags are known only once its name is, so that is read first."""
    name = _flag(argv, "--model") or "s5"
    return tyro.cli(
        TrainPPO[type(model_config(name))],
        args=argv,
        prog="jaxrl-seq train ppo",
        config=(tyro.conf.SuppressFixed,),
    )


def load(run_dir: str | Path) -> TrainPPO[Any]:
    """The config that a run folder was made from. ValueError for a folder that is no run, or no run of the CLI."""
    path = Path(run_dir) / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} holds no run (no config.json). Give the folder that `jaxrl-seq train` printed.")
    record = json.loads(path.read_text())
    if record.get("command") != "train ppo":
        raise ValueError(
            f"{run_dir} was not made by `jaxrl-seq train ppo`: go on with train(..., run_dir=..., resume=True) "
            "in the script that made it."
        )
    settings = dict(record["settings"])
    model = dict(settings.pop("model"))
    settings["model"] = model_config(model.pop("name"), **model)
    settings["hyper"] = _filled(PPOHyper, settings["hyper"])
    settings["run"] = _filled(RunOptions, settings["run"])
    settings["trial"] = _filled(Trial, settings.get("trial", {}))
    return _filled(TrainPPO, settings)


def _filled(cls: Any, values: dict[str, Any]) -> Any:
    fields = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        known(name, fields, f"field of {cls.__name__} in config.json")
    return cls(**values)


def _flag(argv: list[str], name: str) -> str | None:
    """The value of a flag, as `--name value` or `--name=value`; the last one wins."""
    value = None
    for word, following in zip(argv, [*argv[1:], None], strict=False):
        if word == name:
            value = following
        elif word.startswith(name + "="):
            value = word.partition("=")[2]
    return value
