"""What `jaxrl-seq train` understands: frozen dataclasses that tyro turns into flags and config.json keeps."""

from __future__ import annotations

import dataclasses
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import tyro

from jaxrl_seq.envs import Env, Tasks, TrialEnv
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.models import config_to_dict, model_config
from jaxrl_seq.run.loop import RunOptions


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
    mesh: str | None = None
    """Devices to share lanes (seed) and the environments of a lane (data) over, such as seed=4,data=2. By default
    training uses one device, and a sweep puts its lanes on all of them."""


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


LEARNERS = {
    "ppo": "jaxrl_seq.run.config_ppo:TrainPPO",
    "ad": "jaxrl_seq.run.config_distill:TrainAD",
    "ad-eps": "jaxrl_seq.run.config_distill:TrainADEps",
    "dpt": "jaxrl_seq.run.config_distill:TrainDPT",
    "headless-ad": "jaxrl_seq.run.config_distill:TrainHeadlessAD",
    "bc": "jaxrl_seq.run.config_offline:TrainBC",
    "rvs": "jaxrl_seq.run.config_offline:TrainRvS",
    "dt": "jaxrl_seq.run.config_offline:TrainDT",
    "dc": "jaxrl_seq.run.config_offline:TrainDC",
    "ds4": "jaxrl_seq.run.config_offline:TrainDS4",
    "lram": "jaxrl_seq.run.config_offline:TrainLRAM",
    "rate": "jaxrl_seq.run.config_offline:TrainRATE",
    "cdt": "jaxrl_seq.run.config_offline:TrainCDT",
    "edt": "jaxrl_seq.run.config_offline:TrainEDT",
    "tt": "jaxrl_seq.run.config_offline:TrainTT",
    "td3bc": "jaxrl_seq.run.config_offline:TrainTD3BC",
    "cql": "jaxrl_seq.run.config_offline:TrainCQL",
    "iql": "jaxrl_seq.run.config_offline:TrainIQL",
}
"""What `jaxrl-seq train` trains -> the class of its `Config`, which is imported when asked for."""


def check_reach(name: str, model: Any, steps: int) -> None:
    """ValueError where model `name` cannot see over a trial of that many steps."""
    limit = reach(name, model)
    if limit is not None and limit < steps:
        field = _WINDOWS[name]
        raise ValueError(
            f"A trial has {steps} steps, but {name} sees {limit} steps back at most (--model.{field} "
            f"{getattr(model, field)}): what was learnt at the start would be gone. Use --model.{field} {steps}, "
            "fewer episodes, or a model without a limit, such as gru or s5."
        )


class Config(Protocol):
    """What the commands need of a learner's settings: a frozen dataclass, generic in its `model`."""

    LEARNER: ClassVar[str]
    PARTS: ClassVar[dict[str, type]]
    """The fields that are dataclasses, but for model and placement: "hyper", "run", "trial" and what more there is."""
    env: str
    model_name: str
    trial: Trial
    run: RunOptions
    placement: Placement

    def build(self) -> tuple[Any, Any]:
        """The learner and its hyper-parameters. ValueError for anything that cannot work."""
        ...

    def record(self) -> dict[str, Any]:
        """What config.json keeps; see `record_of`."""
        ...


def config_class(learner: str) -> Any:
    """The class of a learner's `Config`. ValueError for an unknown learner."""
    module, _, name = LEARNERS[known(learner, LEARNERS, "learner")].partition(":")
    return getattr(importlib.import_module(module), name)


def parse_train(learner: str, argv: list[str]) -> Any:
    """The `Config` that the flags ask for. The model's own flags are known only once its name is, so that is read
    first."""
    cls = config_class(learner)
    default = next(field.default for field in dataclasses.fields(cls) if field.name == "model_name")
    name = _flag(argv, "--model") or str(default)
    return tyro.cli(
        cls[type(model_config(name))],
        args=argv,
        prog=f"jaxrl-seq train {learner}",
        config=(tyro.conf.SuppressFixed,),
    )


def record_of(config: Any, without: tuple[str, ...]) -> dict[str, Any]:
    """Names for people and everything that `load` needs: all fields but the placement, and but those of the
    hyper-parameters that are named in `without`."""
    kept = (f.name for f in dataclasses.fields(config) if f.name != "placement")
    settings = {name: getattr(config, name) for name in kept}
    settings |= {name: dict(vars(settings[name])) for name in config.PARTS}
    for name in without:
        del settings["hyper"][name]
    settings["model"] = config_to_dict(config.model)
    return {
        "command": f"train {config.LEARNER}",
        "env": config.env,
        "model": config.model_name,
        "learner": config.LEARNER,
        "settings": settings,
    }


def fresh_folder(names: list[str]) -> Path:
    """runs/<names>-<n> with the first number that is free."""
    stem = "-".join("".join(c if c.isalnum() or c == "-" else "_" for c in name) for name in names if name)
    number = 1
    while (path := Path("runs") / f"{stem}-{number:03d}").exists():
        number += 1
    return path


def load(run_dir: str | Path) -> Any:
    """The `Config` that a run folder was made from. ValueError for a folder that is no run, or no run of the CLI."""
    path = Path(run_dir) / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} holds no run (no config.json). Give the folder that `jaxrl-seq train` printed.")
    record = json.loads(path.read_text())
    command, _, learner = record.get("command", "").partition(" ")
    if command != "train" or learner not in LEARNERS:
        raise ValueError(
            f"{run_dir} was not made by `jaxrl-seq train`: go on with train(..., run_dir=..., resume=True) "
            "in the script that made it."
        )
    cls = config_class(learner)
    settings = dict(record["settings"])
    model = dict(settings.pop("model"))
    settings["model"] = model_config(model.pop("name"), **model)
    settings |= {name: _filled(kind, settings.get(name, {})) for name, kind in cls.PARTS.items()}
    return _filled(cls, settings)


def _filled(cls: Any, values: dict[str, Any]) -> Any:
    fields = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        known(name, fields, f"field of {cls.__name__} in config.json")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _flag(argv: list[str], name: str) -> str | None:
    """The value of a flag, as `--name value` or `--name=value`; the last one wins."""
    value = None
    for word, following in zip(argv, [*argv[1:], None], strict=False):
        if word == name:
            value = following
        elif word.startswith(name + "="):
            value = word.partition("=")[2]
    return value
