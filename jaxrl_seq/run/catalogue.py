"""What there is: rows about every environment and every model, for people and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_seq.envs import list_envs, make
from jaxrl_seq.models import MODELS


def env_rows() -> list[dict[str, Any]]:
    """One row per registered environment, at its default size."""
    rows = []
    for name, presets in list_envs().items():
        env, _ = make(name)
        reference = env.reference() if env.has("reference") else {}
        rows.append(
            {
                "env": name,
                "presets": list(presets),
                "observation": str(env.observation_space()),
                "action": str(env.action_space()),
                "horizon": env.horizon,
                "time_limit": env.time_limit,
                **{k: reference.get(k) for k in ("random", "reactive", "expert")},
                "paper": env.paper,
            }
        )
    return rows


def model_rows(width: int = 64) -> list[dict[str, Any]]:
    """One row per model, at its defaults with this width (also the input's): sizes measured, not estimated."""
    rows = []
    for name, config in MODELS.items():
        model = config(width=width).build()
        carry = jax.eval_shape(lambda model=model: model.initialize_carry((1,)))
        x, reset = jnp.zeros((1, 1, width)), jnp.zeros((1, 1), bool)
        params = jax.eval_shape(model.init, jax.random.key(0), carry, x, reset)
        step = jax.jit(lambda p, c, x, r, model=model: model.apply(p, c, x, r, method="step"))
        cost = step.lower(params, carry, x[0], reset[0]).cost_analysis() or {}
        rows.append(
            {
                "model": name,
                "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(params)),
                "carry_bytes": sum(math.prod(c.shape) * c.dtype.itemsize for c in jax.tree.leaves(carry)),
                "flops_per_step": int(cost.get("flops", 0)),
                "options": [f.name for f in dataclasses.fields(config)],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned text; lists are joined, None and what a row lacks is a dash."""

    def text(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, float):
            return f"{value:.3g}"
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    if not rows:
        return "nothing registered"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns] + [[text(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
