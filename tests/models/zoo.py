"""Every registered model, small: what the laws and the general tests of this folder run over."""

from __future__ import annotations

from typing import Any

from jaxrl_seq.models import ModelConfig, make_model, model_config

SMALL: dict[str, dict[str, Any]] = {
    "gru": {},
    "s5": {"state": 8},
    "transformer": {"heads": 4, "kv_heads": 2, "window": 8},
    "galite": {"heads": 2, "eta": 2},
    "agalite": {"heads": 2, "eta": 2},
    "convformer": {"kernel": 5},
    "gmlp": {"kernel": 5},
    "transformer_xl": {"heads": 2, "window": 7},
    "gtrxl": {"heads": 2, "window": 8},
    "gpt": {"heads": 2, "context": 6},
    "rmt": {"heads": 2, "segment": 16, "memory": 2},
    "mlp": {},
    "lstm": {},
    "min_gru": {},
    "min_lstm": {},
    "lru": {"state": 8},
    "ffm": {"traces": 4, "contexts": 2},
    "s4d": {"state": 8},
    "slstm": {},
    "griffin": {"window": 8},
    "linear_attention": {"heads": 2},
    "retnet": {"heads": 2},
    "gated_linear_attention": {"heads": 2},
    "mamba2": {"head_dim": 8, "state": 4},
    "delta_net": {"heads": 2},
    "gated_delta_net": {"heads": 2},
    "mlstm": {"heads": 1},
}
"""Name -> options that make a one-layer model of width 16; windows are below the checker's 19 steps, so they wrap."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt window": ("gpt", {"heads": 1, "context": 5, "inference": "window"}),
    "transformer alibi": ("transformer", {"heads": 2, "window": 7, "positions": "alibi", "sink": True, "gated": True}),
    "transformer clipped": (
        "transformer",
        {"heads": 2, "window": 7, "clipped": True, "sink": True, "qk_norm": True, "block": "post_norm"},
    ),
    "gru 2 layers": ("gru", {"layers": 2}),
    "convformer turns": ("convformer", {"kernel": 4, "filters": 3}),
    "s5 blocks": ("s5", {"layers": 2, "state": 16, "blocks": 2, "discretization": "bilinear", "impl": "associative"}),
    "transformer experts": ("transformer", {"heads": 2, "window": 8, "ffn": "moe"}),
    "agalite waves": ("agalite", {"heads": 1, "frequencies": 3, "impl": "associative"}),
    "transformer 2 layers": ("transformer", {"layers": 2, "heads": 4, "kv_heads": 2, "window": 8, "ffn": "glu"}),
    "transformer rope": ("transformer", {"heads": 2, "window": 7, "positions": "rope", "ffn": "none"}),
    "transformer wide window": ("transformer", {"heads": 2, "window": 64, "positions": "none"}),
    "min_gru chunked": ("min_gru", {"layers": 2, "impl": "chunked"}),
    "lru associative": ("lru", {"state": 8, "impl": "associative"}),
    "s4d recurrence": ("s4d", {"state": 4, "discretization": "bilinear", "impl": "recurrence"}),
    "slstm 2 layers": ("slstm", {"layers": 2, "heads": 2, "ffn": "none"}),
    "griffin with attention": ("griffin", {"layers": 3, "window": 7, "kernel": 3, "ffn": "none"}),
    "linear_attention relu": ("linear_attention", {"heads": 2, "feature_map": "relu", "ffn": "none"}),
    "linear_attention dpfp": ("linear_attention", {"heads": 1, "feature_map": "dpfp", "ffn": "none"}),
    "linear_attention rebased": ("linear_attention", {"heads": 4, "feature_map": "rebased", "ffn": "glu"}),
    "gated_delta_net without convolution": ("gated_delta_net", {"heads": 1, "kernel": 1, "ffn": "none"}),
    "mlstm 2 layers": ("mlstm", {"layers": 2, "heads": 1, "ffn": "none"}),
    "mamba2 wide state": ("mamba2", {"layers": 2, "expand": 1, "head_dim": 16, "state": 24, "kernel": 2}),
    "gated_linear_attention by head": ("gated_linear_attention", {"heads": 2, "gates": "head", "ffn": "none"}),
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
