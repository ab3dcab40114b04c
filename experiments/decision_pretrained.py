"""The Decision-Pretrained Transformer: told what is optimal, a network learns to explore.

Source: Lee et al. 2023 (arXiv:2306.14892). Gaussian bandits of 3 arms, histories of random policies made anew for every
gradient step; and the dark room of 10x10 cells with a fifth of the goals held out. The reader is a GRU: one pass serves
every prefix of a context, and acting costs the same after any number of transitions. Greedy play stops exploring, so
its regret goes on growing: the bar is for the growth late in the trial. Expected: about 10 minutes a seed on two cores.
In the room the bar is near what can be had at all: actions are sampled from a mean over the goals that are left, which
dithers. With the exact posterior that earns 78 from the fifth episode on if the context grows by episodes, as in the
paper and here, and 84 if by steps (400 streams, all goals).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from experiments.common import Arguments, Claim, Findings, as_curve, remembered, run_experiment, train_seeds
from jaxrl_seq.envs import Tasks, TrialEnv, make
from jaxrl_seq.incontext import DPT, Distill, DistillHyper, evaluate_in_context, make_algorithm
from jaxrl_seq.incontext.evaluation import mean_curve
from jaxrl_seq.models import make_model
from jaxrl_seq.run.histories import Source, collect
from jaxrl_seq.run.stats import bootstrap_ci

PULLS, STREAMS = 200, 2048
BANDIT_UPDATES, ROOM_UPDATES = 3000, 2500
SHOWN = (20, 100)
"""Pulls of a random policy after which the best arm is asked for."""
ROOM = "darkroom-dpt"
ROOM_WINDOW, ROOM_EPISODES, GOALS = 400, 10, 0.2


@struct.dataclass
class HandOver:
    """`behaviour` acts for `after` steps while `reader` looks on, which then takes over."""

    behaviour: Any
    reader: Any
    after: Any

    def init(self, key: Any, num: int) -> Any:
        return jnp.int32(0), self.behaviour.init(key, num), self.reader.init(key, num)

    def act(self, key: Any, memory: Any, view: Any) -> Any:
        count, doing, reading = memory
        doing, first, first_prob = self.behaviour.act(key, doing, view)
        reading, second, second_prob = self.reader.act(key, reading, view)
        early = count < self.after
        chosen = jnp.where(early, first, second), jnp.where(early, first_prob, second_prob)
        return (count + 1, doing, reading), *chosen

    def observe(self, key: Any, memory: Any, step: Any) -> Any:
        count, doing, reading = memory
        return count, self.behaviour.observe(key, doing, step), self.reader.observe(key, reading, step)


def learn_bandit(seed: int, updates: int) -> dict[str, Any]:
    """Cumulative regret [PULLS] of the agent and of the anchors; suboptimality after random pulls. Plain data."""
    env, params = make("gaussian_bandit", arms=3, pulls=PULLS)
    trial = TrialEnv(env, episodes=1)
    recipe = DPT(trial, make_model("gru", width=64, layers=1), window=PULLS, queries=1)
    learner = Distill(recipe, trial, 64)
    behaviour = make_algorithm("dpt-behaviour", trial, params)
    hyper = DistillHyper(lr=2e-3, decay_updates=float(updates), source=behaviour, env_params=params)
    steps = updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=1, total_steps=steps, evaluations=0, seed=seed)

    @jax.jit
    def regret(policy: Any) -> Any:
        task_key, key = jax.random.split(jax.random.key(100 + seed))
        tasks = jax.vmap(trial.sample_task, in_axes=(0, None))(jax.random.split(task_key, STREAMS), params)
        lost = evaluate_in_context(policy, trial, tasks, key, params).regret
        assert lost is not None
        return lost.mean(1)

    weights = run.state.params
    names = ("thompson", "ucb", "greedy", "uniform")
    players: dict[str, Any] = {name: make_algorithm(name, trial, params) for name in names}
    players["agent"] = recipe.policy(weights, False)
    curves = {name: np.asarray(regret(policy)).tolist() for name, policy in players.items()}
    readers = {"agent": recipe.policy(weights, True), "greedy": players["greedy"], "behaviour": behaviour}
    offline = {}
    for name, reader in readers.items():
        for shown in SHOWN:
            lost = np.asarray(regret(HandOver(behaviour, reader, jnp.int32(shown))))
            offline[f"{name}/{shown}"] = float(lost[shown] - lost[shown - 1])
    return {"curves": curves, "offline": offline, "wall_s": run.summary["wall_s"], "steps": run.summary["steps"]}


def learn_room(seed: int, updates: int) -> dict[str, Any]:
    """Return per episode on the held-out goals; plain data."""
    env, params = make(ROOM)
    train, test = Tasks(env).split(GOALS, seed)
    trial = TrialEnv(env, train, episodes=ROOM_EPISODES)
    held_out = TrialEnv(env, test, episodes=ROOM_EPISODES)
    recipe = DPT(trial, make_model("gru", width=64, layers=1), ROOM_WINDOW, queries=4, commit="episode")
    learner = Distill(recipe, held_out, 32)
    source = Source("noisy-expert,schedule=stream", source_episodes=ROOM_EPISODES, every=1, streams=64)
    history = collect(source, trial, params, label=True)
    hyper = DistillHyper(lr=2e-3, decay_updates=float(updates), history=history)
    steps = updates * learner.steps_per_update
    run = train_seeds(learner, hyper, seeds=1, total_steps=steps, evaluations=0, seed=seed)

    @jax.jit
    def judge(policy: Any) -> Any:
        tasks = jnp.tile(held_out.tasks(params), 16)
        return evaluate_in_context(policy, held_out, tasks, jax.random.key(seed), params)

    players = {
        "agent": recipe.policy(run.state.params, False),
        "sweeper": make_algorithm("sweeper", held_out, params),
        "posterior": make_algorithm("posterior", held_out, params, commit=recipe.commit),
    }
    curves = {}
    for name, policy in players.items():
        scores = jax.device_get(judge(policy))
        curves[name] = mean_curve(scores.returns, scores.finished).tolist()
    return {"curves": curves, "wall_s": run.summary["wall_s"], "steps": run.summary["steps"]}


def measure(arguments: Arguments) -> Findings:
    gpu = arguments.scale == "gpu"
    seeds, times = arguments.seeds or (8 if gpu else 3), 4 if gpu else 1
    bandits, rooms = [], []
    for seed in range(seeds):

        def bandit(seed: int = seed) -> Any:
            return learn_bandit(seed, times * BANDIT_UPDATES)

        def room(seed: int = seed) -> Any:
            return learn_room(seed, times * ROOM_UPDATES)

        bandits.append(remembered("decision_pretrained", f"bandit {seed} {times * BANDIT_UPDATES}", bandit))
        regret = {name: round(values[-1], 2) for name, values in bandits[-1]["curves"].items()}
        print("bandit", seed, f"{bandits[-1]['wall_s']:.0f} s", regret, bandits[-1]["offline"], flush=True)
        rooms.append(remembered("decision_pretrained", f"room {seed} {times * ROOM_UPDATES} {ROOM_WINDOW}", room))
        print("room", seed, f"{rooms[-1]['wall_s']:.0f} s", np.round(rooms[-1]["curves"]["agent"], 1), flush=True)
    curves = {f"{ROOM}/{name}": as_curve([part["curves"][name] for part in rooms]) for name in rooms[0]["curves"]}
    steps = sum(part["steps"] for part in bandits + rooms)
    tables = {f"Regret of {PULLS} pulls of 3 Gaussian arms, over seeds": _regrets(bandits)}
    return Findings(_claims(bandits, rooms, seeds), seeds, steps, curves, tables)


def _regrets(parts: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for name in parts[0]["curves"]:
        lost = np.array([part["curves"][name] for part in parts]).mean(0)
        row = {"policy": name} | {f"after {n}": round(float(lost[n - 1]), 2) for n in (50, 100, 200)}
        row |= {"of them after 100": round(float(lost[199] - lost[99]), 2)}
        shown = [np.mean([part["offline"].get(f"{name}/{n}", np.nan) for part in parts]) for n in SHOWN]
        rows.append(row | {f"greedy after {n} random": round(float(x), 3) for n, x in zip(SHOWN, shown, strict=True)})
    return rows


def _claims(bandits: list[Any], rooms: list[Any], seeds: int) -> list[Claim]:
    lost = np.array([part["curves"]["agent"] for part in bandits])
    late = bootstrap_ci(lost[:, 199] - lost[:, 99])
    found = [Claim.of("bandit/slope", f"regret of pulls 101 to 200 of 3 arms; {seeds} seeds", late, 1.3, "below")]
    for shown in SHOWN:
        left = [part["offline"][f"agent/{shown}"] / part["offline"][f"behaviour/{shown}"] for part in bandits]
        text = f"suboptimality of the most likely arm after {shown} random pulls, over that of those pulls"
        found.append(Claim.of(f"bandit/offline-{shown}", f"{text}; {seeds} seeds", bootstrap_ci(left), 1.0, "below"))
    fifth = bootstrap_ci([np.mean(part["curves"]["agent"][4:]) for part in rooms])
    text = f"{ROOM}, held-out goals: mean return from the fifth episode on (oracle 92.0, sweeper 50.5 then 92.0)"
    return [*found, Claim.of("room/held-out", f"{text}; {seeds} seeds", fifth, 80.0, "above")]


if __name__ == "__main__":
    run_experiment("decision_pretrained", "Lee et al. 2023", measure)
    from experiments.table import write_table

    write_table()
