"""What the registry knows of an environment before it is imported."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered environment: where its class or factory is, and its named presets (option dictionaries)."""

    factory: str | Callable[..., Any]
    presets: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        if not isinstance(self.factory, str):
            return self.factory
        module, _, name = self.factory.partition(":")
        return getattr(importlib.import_module(module), name)
