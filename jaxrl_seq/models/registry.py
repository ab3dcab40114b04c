"""Models by name: one frozen config dataclass each, checked in words before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import jax.numpy as jnp

from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.models.base import ModelConfig, SequenceModel

C = TypeVar("C")

_MODELS: dict[str, type] = {}
MODELS: Mapping[str, type] = MappingProxyType(_MODELS)
"""Name -> config class, in order of registration (read-only view)."""


def register_model(name: str) -> Callable[[type[C]], type[C]]:
    """Class decorator that makes a frozen config dataclass known as `name`. ValueError if the name is taken."""

    def register(cls: type[C]) -> type[C]:
        if name in _MODELS and _MODELS[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"model name {name!r} is taken by {_MODELS[name].__qualname__}")
        if not (hasattr(cls, "__dataclass_fields__") and hasattr(cls, "build")):
            raise ValueError(f"{cls.__name__} must be a dataclass with a build() method to be registered as a model")
        _MODELS[name] = cls
        return cls

    return register


def model_config(name: str, **options: Any) -> ModelConfig:
    """The config of model `name`. ValueError, with the nearest names, for an unknown model or option."""
    cls = _MODELS[known(name, _MODELS, "model")]
    fields = [field.name for field in dataclasses.fields(cls)]
    for option in options:
        known(option, fields, f"option of model {name}")
    return cls(**options)


def make_model(name: str, **options: Any) -> SequenceModel:
    """The flax module of model `name`: `make_model("s5", width=64, layers=2)`."""
    model = model_config(name, **options).build()
    return model.clone(label=name) if hasattr(model, "label") else model


def model_name(config: ModelConfig) -> str:
    """The name a config's class is registered under. ValueError if it is not."""
    for name, cls in _MODELS.items():
        if type(config) is cls:
            return name
    raise ValueError(f"{type(config).__name__} is not a registered model config; known: {', '.join(_MODELS)}")


def config_to_dict(config: Any) -> dict[str, Any]:
    """A config as plain data, `{"name": ..., **options}`; `model_config(**data)` makes it again."""
    return {"name": model_name(config), **dataclasses.asdict(config)}


def operand_dtype(name: str) -> Any:
    """The `dtype` option of a config as modules take it: None for "float32" (operands as they are)."""
    require_choice("dtype", name, ("float32", "bfloat16"))
    return None if name == "float32" else jnp.dtype(name)


def require_positive(**numbers: float) -> None:
    """ValueError unless every number is above zero."""
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def require_multiple(name: str, value: int, of_name: str, of: int) -> None:
    """ValueError unless `of` divides `value`; the message gives the nearest values that work."""
    if value % of == 0:
        return
    below, above = value - value % of, value - value % of + of
    nearest = f"{below} or {above}" if below else f"{above}"
    raise ValueError(f"{name}={value} must be a multiple of {of_name}={of}; nearest: {nearest}")


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """ValueError unless value is one of `choices`."""
    known(value, choices, name)
