"""Every registered model, small: what the laws and the general tests of this folder run over."""

from __future__ import annotations

from typing import Any

from jaxrl_seq.models import ModelConfig, make_model, model_config

SMALL: dict[str, dict[str, Any]] = {
    "gru": {},
    "s5": {"state": 8},
    "transformer": {"heads": 4, "kv_heads": 2, "window": 8},
    "mlp": {},
}
"""Name -> options that make a one-layer model of width 16; windows are below the checker's 19 steps, so they wrap."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gru 2 layers": ("gru", {"layers": 2}),
    "s5 blocks": ("s5", {"layers": 2, "state": 16, "blocks": 2, "discretization": "bilinear", "impl": "associative"}),
    "transformer 2 layers": ("transformer", {"layers": 2, "heads": 4, "kv_heads": 2, "window": 8, "ffn": "glu"}),
    "transformer rope": ("transformer", {"heads": 2, "window": 7, "positions": "rope", "ffn": "none"}),
    "transformer wide window": ("transformer", {"heads": 2, "window": 64, "positions": "none"}),
}
"""Other choices that take another path through the code; the laws run over them in the slow tests."""


def small(name: str, **options: Any):
    """The small model `name`."""
    return make_model(name, **({"width": 16, "layers": 1} | SMALL[name] | options))


def small_config(name: str) -> ModelConfig:
    return model_config(name, **({"width": 16, "layers": 1} | SMALL[name]))


def variant_config(name: str) -> ModelConfig:
    model, options = VARIANTS[name]
    return model_config(model, **({"width": 16, "layers": 1} | options))
