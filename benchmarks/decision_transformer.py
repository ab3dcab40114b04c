"""Decision Transformers: ours beside a plain PyTorch one in one process (`pip install torch`).

Training: gradient steps per second at the paper's size (20 steps of 3 tokens, width 128, 3 layers, batch 64) on the
same data; the peer draws its windows from arrays in host memory, as the published codes do. Evaluation: ten targets of
twenty episodes in one compiled call, beside one environment in a Python loop around the peer's network. Data: how much
memory a gradient step needs besides a data set of a million steps. Runs are taken in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import publish
from jaxrl_seq.envs import Env, make
from jaxrl_seq.models import make_model
from jaxrl_seq.offline import Dataset, make_dataset, make_method
from jaxrl_seq.offline.evaluate import evaluate_policy
from jaxrl_seq.run.timing import compile_timed, race

WINDOW, WIDTH, LAYERS, HEADS, BATCH, STEPS = 20, 128, 3, 4, 64, 10
TARGETS, EPISODES = 10, 20


@dataclass(frozen=True)
class Options:
    """Measure ours and the peer in turns."""

    data_steps: int = 1_000_000
    """Of the data set."""
    rounds: int = 5
    """Measured runs; the median counts."""
    peer: bool = True
    """Measure PyTorch too."""


def main() -> None:
    options = tyro.cli(Options)
    env, params = make("point_mass")
    data = make_dataset("expert", env, params, jax.random.key(0), options.data_steps)
    model = make_model("gpt", width=WIDTH, layers=LAYERS, heads=HEADS, context=3 * WINDOW)
    learner = make_method("dt", env, model, window=WINDOW, batch=BATCH, steps=STEPS)
    hyper = learner.hyper(data, env_params=params)
    state = jax.jit(learner.init)(jax.random.key(0), hyper)
    update, compile_s = compile_timed(jax.jit(learner.update), state, hyper)
    evaluate = evaluation(learner, env, params, state)
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: update(state, hyper)}
    peer = Peer(data, env) if options.peer else None
    if peer:
        calls["peer"] = lambda: [peer.train_step() for _ in range(STEPS)]
    seconds = race(calls, options.rounds)
    rows = [
        {"what": f"{who}: gradient steps/s", "value": round(STEPS / elapsed, 2), "ratio": ratio(seconds, who)}
        for who, elapsed in seconds.items()
    ]
    whole = make_model("gpt", width=WIDTH, layers=LAYERS, heads=HEADS, context=3 * env.horizon)
    cached = make_method("dt", env, whole, mode="cache")
    fresh = jax.jit(cached.init)(jax.random.key(0), cached.hyper(data, env_params=params))
    calls = {"ours": evaluate, "ours, mode cache": evaluation(cached, env, params, fresh)}
    seconds = race(calls | ({"peer": lambda: peer.play(2)} if peer else {}), 3)
    per_episode = {who: elapsed / (2 if who == "peer" else TARGETS * EPISODES) for who, elapsed in seconds.items()}
    rows += [
        {"what": f"{who}: evaluation episodes/s", "value": round(1 / elapsed, 2), "ratio": ratio(per_episode, who)}
        for who, elapsed in per_episode.items()
    ]
    rows += memory(update, data) + [{"what": "compilation of an update, s", "value": round(compile_s, 1)}]
    publish(
        "decision_transformer",
        rows,
        f"ratio: the peer's time over ours. point_mass, {options.data_steps:,} steps of data; window {WINDOW}, width "
        f"{WIDTH}, {LAYERS} layers, {HEADS} heads, batch {BATCH}. Evaluation: {TARGETS} targets x {EPISODES} episodes "
        f"of {env.horizon} steps.",
    )


def ratio(seconds: dict[str, float], who: str) -> float | None:
    return round(seconds["peer"] / seconds[who], 2) if "peer" in seconds else None


def evaluation(learner: Any, env: Env, params: Any, state: Any) -> Callable[[], Any]:
    """A compiled call that plays all targets."""
    asked = {"rtg": jnp.repeat(jnp.linspace(-60.0, -7.0, TARGETS), EPISODES)}

    def play(state: Any, key: Any) -> Any:
        policy = learner.policy(state, asked, True)
        return evaluate_policy(policy, env, key, params, num_envs=EPISODES, groups=TARGETS, episodes=1)

    compiled, _ = compile_timed(jax.jit(play), state, jax.random.key(1))
    return lambda: compiled(state, jax.random.key(1))


def memory(update: Any, data: Dataset) -> list[dict[str, Any]]:
    analysis = update.memory_analysis()
    return [
        {"what": "data on the device, MB", "value": round(data.nbytes / 1e6, 1)},
        {"what": "temporary memory of an update, MB", "value": round(analysis.temp_size_in_bytes / 1e6, 1)},
    ]


class Peer:
    """A Decision Transformer as it is usually written in PyTorch: pre-norm blocks, AdamW, clipping, host-side draws."""

    def __init__(self, data: Dataset, env: Env) -> None:
        import torch  # pyright: ignore[reportMissingImports]

        self.torch, self.env, torch_nn = torch, env, torch.nn
        self.columns = {
            "rtg": np.asarray(data.rtg)[:, None],
            "obs": np.asarray(data.stats.normalise(data.obs)),
            "action": np.asarray(data.action),
        }
        self.stats = jax.device_get(data.stats)
        self.t, self.to_end = np.asarray(data.t), np.asarray(data.to_end)
        self.scale = float(np.abs(self.columns["rtg"]).max())
        self.rng = np.random.default_rng(0)
        block = torch_nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.net = torch_nn.ModuleDict(
            {name: torch_nn.Linear(column.shape[1], WIDTH) for name, column in self.columns.items()}
        )
        self.net["time"] = torch_nn.Embedding(env.horizon, WIDTH)
        self.net["blocks"] = torch_nn.TransformerEncoder(block, LAYERS, enable_nested_tensor=False)
        self.net["norm"] = torch_nn.LayerNorm(WIDTH)
        self.net["head"] = torch_nn.Linear(WIDTH, self.columns["action"].shape[1])
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=1e-4, weight_decay=1e-4)
        self.causal = torch_nn.Transformer.generate_square_subsequent_mask(3 * WINDOW)

    def predict(self, rtg: Any, obs: Any, action: Any, t: Any) -> Any:
        """Actions [B, K, A] at the tokens of the observations."""
        net, steps = self.net, t.shape[1]
        when = net["time"](t)
        tokens = [net[name](x) + when for name, x in (("rtg", rtg / self.scale), ("obs", obs), ("action", action))]
        x = self.torch.stack(tokens, dim=2).reshape(t.shape[0], 3 * steps, WIDTH)
        x = net["blocks"](x, mask=self.causal[: 3 * steps, : 3 * steps], is_causal=True)
        return self.torch.tanh(net["head"](net["norm"](x)[:, 1::3]))

    def train_step(self) -> float:
        torch = self.torch
        row = self.rng.integers(0, len(self.t), BATCH)
        steps = np.arange(WINDOW)
        mask = steps <= self.to_end[row][:, None]
        index = row[:, None] + np.minimum(steps, self.to_end[row][:, None])
        rtg, obs, action = (torch.from_numpy(self.columns[name][index]) for name in ("rtg", "obs", "action"))
        t, valid = torch.from_numpy(self.t[index]).long(), torch.from_numpy(mask)
        error = ((self.predict(rtg, obs, action, t) - action) ** 2).mean(-1)
        loss = (error * valid).sum() / valid.sum()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 0.25)
        self.optimiser.step()
        return loss.item()

    def play(self, episodes: int) -> float:
        """The return of episodes played one after the other, the window read anew at every step."""
        torch, total = self.torch, 0.0
        reset, step = self._world
        for number in range(episodes):
            state, obs = reset(jax.random.key(number))
            target, lines = -7.0, {name: [] for name in ("rtg", "obs", "action", "t")}
            for t in range(self.env.horizon):
                seen = (np.asarray(obs) - self.stats.obs_mean) / self.stats.obs_std
                now = {"rtg": [target], "obs": seen, "action": np.zeros(self.columns["action"].shape[1]), "t": t}
                for name, line in lines.items():
                    lines[name] = [*line, now[name]][-WINDOW:]
                rtg, seen, action = (
                    torch.tensor(np.array(lines[name], np.float32))[None] for name in ("rtg", "obs", "action")
                )
                with torch.no_grad():
                    chosen = self.predict(rtg, seen, action, torch.tensor(lines["t"])[None])[0, -1].numpy()
                lines["action"][-1] = chosen
                state, obs, reward = step(jax.random.key(t), state, jnp.asarray(chosen))
                target, total = target - float(reward), total + float(reward)
        return total / episodes

    @cached_property
    def _world(self) -> tuple[Any, Any]:
        env, params = self.env, self.env.default_params()

        @jax.jit
        def reset(key: Any) -> Any:
            state, seen = env.reset(key, params)
            return state, seen.obs

        @jax.jit
        def step(key: Any, state: Any, action: Any) -> Any:
            state, seen = env.step(key, state, action, params)
            return state, seen.obs, seen.reward

        return reset, step


if __name__ == "__main__":
    main()
