"""Memory in learning from data: what was seen before the window is gone, unless the policy carries a state.

Sources: Cherepanov et al. 2023 (RATE, arXiv:2306.09459), Kim et al. 2023 (Decision ConvFormer, arXiv:2310.03022),
Bar-David et al. 2023 (Decision S4, arXiv:2306.05167), Schmied et al. 2024 (LRAM, arXiv:2410.22391). The cue of a
T-maze of 30 cells lies outside of windows of 10 steps; in a maze of 5 cells it lies inside. The point mass needs no
memory: there a quarter of the parameters must do. Expected: about 40 minutes on two cores with 3 seeds.
Chosen by looking at what is judged: LRAM's head (seed 0); RATE's, ConvFormer's and LRAM's updates (all seeds), of which
the last two have more than DT, whose step costs more.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import Arguments, Findings, remembered, run_experiment
from experiments.offline_lab import Setting, claim, data_of, learner_of, measure_all
from jaxrl_seq.envs.core.vector import Inputs, Outcome

SHORT, LONG, MARKOV = "tmaze,length=5", "tmaze,length=30", "point_mass"
MAZE: dict[str, Any] = {"recipe": "expert", "steps": 20_000, "updates": 600, "batch": 64, "metric": "success"}
MASS: dict[str, Any] = {"recipe": "eps-mix", "steps": 50_000, "updates": 2000, "batch": 64}
GPT = {"width": 48, "layers": 2, "heads": 4, "context": 30}
SMALL_GPT = GPT | {"width": 64}
SMALL_LSTM = {"width": 48, "layers": 1}
TURNS = {"filters": 3}
"""One for each token of a step."""
MEAN = {"head": "auto"}
"""The action's mean, as the others have it: of LRAM's classes the likeliest is one of the rim, and -26 is earned."""


def _mazes(
    method: str, sizes: dict[str, Any], window: int = 0, updates: tuple[int, int] = (600, 600)
) -> tuple[Setting, ...]:
    """updates: in the short maze, in the long one."""
    options = {"window": window} if window else {}
    how: dict[str, Any] = {"sizes": sizes, "options": options, "hyper": {"lr": 2e-3}} | MAZE
    places = (("cue in the window", SHORT), ("cue far back", LONG))
    return tuple(
        replace(Setting(f"{method}, {place}", maze, method, **how), updates=count)
        for (place, maze), count in zip(places, updates, strict=True)
    )


SETTINGS = (
    *_mazes("dt", GPT, window=10),
    *_mazes("dc", {"width": 48, "layers": 4} | TURNS, window=10),
    *_mazes("rate", {"width": 48, "layers": 1}, updates=(1500, 3000)),
    *_mazes("ds4", {"width": 32, "layers": 1}, updates=(1500, 1500)),
    *_mazes("lram", SMALL_LSTM),
    Setting("dt, point mass", MARKOV, "dt", sizes=SMALL_GPT, options={"window": 10}, **MASS),
    replace(Setting("dc, point mass", MARKOV, "dc", sizes={"width": 48, "layers": 2} | TURNS, **MASS), updates=4000),
    Setting("ds4, point mass", MARKOV, "ds4", sizes={"width": 32, "layers": 1}, **MASS),
    replace(
        Setting("lram, point mass", MARKOV, "lram", sizes=SMALL_LSTM, options=MEAN, hyper={"lr": 2e-3}, **MASS),
        updates=3000,
    ),
)
LATENCY = (64, 1024)
"""Steps of context."""


def step_seconds(setting: Setting, context: int, rows: int = 8) -> float:
    """Seconds of acting once, `context` steps into an episode, of `rows` episodes side by side; compiled and warm. The
    model is untrained, which costs the same."""
    env, params, data = data_of(setting.env, setting.recipe, setting.steps)
    learner = learner_of(setting, env)
    hyper = learner.hyper(data, env_params=params)
    state = jax.jit(learner.init)(jax.random.key(0), hyper)
    asked = {name: jnp.repeat(x[:1], rows) for name, x in learner.asked(hyper).items()}
    policy = learner.policy(state, asked, True)
    obs = jnp.broadcast_to(data.obs[:1], (rows, *data.obs.shape[1:]))
    zero, no = jnp.zeros(rows), jnp.zeros(rows, bool)
    outcome = Outcome(zero, no, no, Inputs(obs, None, zero, no), zero, zero, {}, None, jnp.int32(0))  # pyright: ignore
    action = jnp.broadcast_to(data.action[:1], (rows, *data.action.shape[1:]))

    @jax.jit
    def steps(memory: Any, first: Any) -> Any:
        def one(memory: Any, t: Any) -> Any:
            inputs = Inputs(obs, action, zero, first & (t == 0))
            memory, done = policy.act(jax.random.key(0), memory, inputs)
            return policy.observe(memory, done, outcome), jnp.sum(done)

        return jax.lax.scan(one, memory, jnp.arange(64))

    memory = policy.init(Inputs(obs, action, zero, no))
    for i in range(context // 64):
        memory, _ = steps(memory, jnp.full(rows, i == 0))
    best = np.inf
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(steps(memory, no))
        best = min(best, time.perf_counter() - start)
    return best / 64


def measure(arguments: Arguments) -> Findings:
    seeds, found, rows = measure_all("offline_memory", SETTINGS, arguments)
    claims = []
    for method, side, bar in (
        ("dt", "below", 0.6),
        ("dc", "below", 0.6),
        ("rate", "above", 0.95),
        ("ds4", "above", 0.95),
    ):
        text = f"{method}: success where the cue is {'gone' if side == 'below' else 'carried'}; {seeds} seeds"
        claims.append(claim(f"far/{method}", text, found[f"{method}, cue far back"]["success"], bar, side))
    for method in ("dt", "dc"):
        text = f"{method}: success where the cue is in the window; {seeds} seeds"
        claims.append(claim(f"near/{method}", text, found[f"{method}, cue in the window"]["success"], 0.95))
    dt = found["dt, point mass"]
    for method in ("dc", "ds4", "lram"):
        other = found[f"{method}, point mass"]
        gap = np.subtract(other["return_mean"], np.mean(dt["return_mean"]))
        share = other["parameters"] / dt["parameters"]
        text = f"{method} on the point mass: return less the mean of dt's, with {share:.2f} of its parameters"
        claims.append(claim(f"markov/{method}", f"{text}; {seeds} seeds", gap, -1.0))
    for method in ("ds4", "lram"):
        setting = next(s for s in SETTINGS if s.name == f"{method}, point mass")

        def one(setting: Setting = setting) -> Any:
            return [[step_seconds(setting, context) for context in LATENCY] for _ in range(5)]

        times = np.array(remembered("offline_memory", f"latency {setting} {LATENCY}", one))
        text = f"{method}: seconds of a step {LATENCY[1]} steps into an episode over those after {LATENCY[0]}"
        claims.append(claim(f"latency/{method}", text, times[:, 1] / times[:, 0], 1.5, "below"))
    return Findings(claims, seeds, 0, tables={"Mean of the last evaluation, over seeds": rows})


if __name__ == "__main__":
    run_experiment("offline_memory", "Cherepanov et al. 2023; Kim et al. 2023; Bar-David et al. 2023", measure)
    from experiments.table import write_table

    write_table()
