"""Long recall: what every model of the registry remembers over 64, 256 and 1024 steps, and what that costs.

One network learns two supervised probes at once (Hochreiter & Schmidhuber 1997; Graves et al. 2014; Ba et al. 2016),
each with all the delay that the length allows at the end:

cue: one symbol at the start; whenever asked, that symbol.
recall: three key-value pairs at the start; whenever asked for a key, its value.

Questions come at about eight random times, which teaches short delays before long ones, and at the very end, which
alone is what accuracy counts. There are eight symbols, so chance is 1/8 (1/3 for "one of the three values"). Models
have the registry's defaults at width 64 and two layers; a transformer's window is therefore 128 steps and its reach
at most 255. Training is short: the table shows what is learnt at once, not what could be. Expected: two and a half
hours on one core with 3 seeds. Models with gates that can be told how long to remember at first (`horizon`) have a
second row, told the length. Claims: gates that choose what to keep (Gu & Dao 2023; Feng et al. 2024) hold the cue
at every length, and so do gates that begin with memories of that length (Tallec & Ollivier 2018); the control is at
chance.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.common import Arguments, Claim, Findings, remembered, run_experiment, with_horizons
from jaxrl_seq.models import MODELS, make_model
from jaxrl_seq.run.stats import Interval, bootstrap_ci

Array = jax.Array

SYMBOLS, PAIRS, QUESTIONS = 8, 3, 8
SILENCE, GO = -1, 2 * SYMBOLS  # silence is a vector of zeros
CHANNELS = 2 * SYMBOLS + 1  # symbols, keys, go
WIDTH, LAYERS = 64, 2
LEARNING_RATE = 3e-3
SELECTIVE = ("gru", "min_gru", "mamba2")
"""Models whose gates see the input, for the claims; the table has all."""


@dataclass(frozen=True)
class Size:
    """T and B of a batch (half of it for each probe), and how long to train."""

    steps: int
    batch: int
    updates: int


SIZES = (Size(64, 16, 300), Size(256, 16, 200), Size(1024, 8, 150))


class Batch(NamedTuple):
    """Inputs, answers, and which of them are asked for; the last one always is."""

    x: Array  # [T, B, CHANNELS]
    answers: Array  # [T, B] int32
    asked: Array  # [T, B] bool


def cue(key: Array, steps: int, batch: int) -> Batch:
    key_symbol, key_asked = jax.random.split(key)
    symbol = jax.random.randint(key_symbol, (batch,), 0, SYMBOLS)
    asked = jax.random.bernoulli(key_asked, QUESTIONS / steps, (steps, batch)).at[0].set(False).at[-1].set(True)
    x = jnp.where(asked, GO, SILENCE).at[0].set(symbol)
    return Batch(jax.nn.one_hot(x, CHANNELS), jnp.tile(symbol, (steps, 1)), asked)


def recall(key: Array, steps: int, batch: int) -> Batch:
    key_keys, key_values, key_asked, key_which = jax.random.split(key, 4)
    orders = jax.vmap(lambda k: jax.random.permutation(k, SYMBOLS))(jax.random.split(key_keys, batch))
    keys = SYMBOLS + orders[:, :PAIRS].T
    values = jax.random.randint(key_values, (PAIRS, batch), 0, SYMBOLS)
    pairs = jnp.stack([keys, values], axis=1).reshape(2 * PAIRS, batch)
    which = jax.random.randint(key_which, (steps, batch), 0, PAIRS)
    questions, answers = (jnp.take_along_axis(row, which, axis=0) for row in (keys, values))
    asked = jax.random.bernoulli(key_asked, QUESTIONS / steps, (steps, batch))
    asked = asked.at[: 2 * PAIRS].set(False).at[-1].set(True)
    x = jnp.where(asked, questions, SILENCE).at[: 2 * PAIRS].set(pairs)
    return Batch(jax.nn.one_hot(x, CHANNELS), answers, asked)


PROBES = (cue, recall)


def both(key: Array, size: Size) -> Batch:
    """Half a batch of each probe, side by side."""
    halves = [probe(key, size.steps, size.batch // len(PROBES)) for probe in PROBES]
    return Batch(*(jnp.concatenate(parts, axis=1) for parts in zip(*halves, strict=True)))


def learn(name: str, size: Size, seeds: int, **options: Any) -> dict[str, Any]:
    """Train all seeds side by side: accuracies [S] of each probe, parameters, seconds an update of one seed
    (of the processor on a CPU, of the clock elsewhere)."""
    model = make_model(name, width=WIDTH, layers=LAYERS, **options)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LEARNING_RATE))
    carry = model.initialize_carry((size.batch,))
    first = jnp.zeros((size.steps, size.batch), bool).at[0].set(True)

    def logits(params, x):
        return model.apply(params["model"], carry, x, first)[1] @ params["head"]

    def init(key):
        params = model.init(key, carry, jnp.zeros((1, size.batch, CHANNELS)), first[:1])
        params = {"model": params, "head": jnp.zeros((WIDTH, SYMBOLS))}
        return params, optimiser.init(params)

    def loss(params, key):
        x, answers, asked = both(key, size)
        errors = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), answers)
        # every sequence counts alike, whatever the number of its answers
        return (errors * asked / asked.sum(0)).sum(0).mean()

    def update(state, key):
        params, memory = state
        changes, memory = optimiser.update(jax.grad(loss)(params, key), memory)
        return (optax.apply_updates(params, changes), memory), None

    def train(state, key):
        return jax.lax.scan(update, state, jax.random.split(key, size.updates))[0]

    def accuracy(params, key):
        x, answers, _ = both(key, size)
        right = jnp.argmax(logits(params, x)[-1], -1) == answers[-1]
        return right.reshape(len(PROBES), -1).mean(1)

    keys = jax.random.split(jax.random.key(0), seeds)
    state = jax.jit(jax.vmap(init))(keys)
    program = jax.jit(jax.vmap(train)).lower(state, keys).compile()
    # processor time where the processor computes: it does not mind what else the machine does
    clock = time.process_time if jax.default_backend() == "cpu" else time.monotonic
    start = clock()
    params, _ = jax.block_until_ready(program(state, keys))
    seconds = clock() - start
    tests = jax.random.split(jax.random.key(1), 32)
    right = jax.jit(lambda p: jax.lax.map(lambda k: jax.vmap(accuracy, in_axes=(0, None))(p, k), tests))(params)
    return {
        "accuracy": dict(zip((probe.__name__ for probe in PROBES), np.asarray(right.mean(0)).T, strict=True)),
        "parameters": sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(params["model"])),
        "seconds": seconds / size.updates / seeds,
        "wall_s": seconds,
    }


def measure(arguments: Arguments) -> Findings:
    seeds = arguments.seeds or (3 if arguments.scale == "cpu" else 8)
    longer = 1 if arguments.scale == "cpu" else 5
    claims, tables = [], {}
    for size in SIZES:
        size = dataclasses.replace(size, updates=longer * size.updates)
        rows = []
        for label, name, options in with_horizons(MODELS, size.steps):
            program = functools.partial(learn, name, size, seeds, **options)
            found = remembered("long_recall", f"{label}, {size}, {seeds} seeds", program)
            row: dict[str, Any] = {"model": label}
            for probe, accuracies in found["accuracy"].items():
                interval = bootstrap_ci(np.array(accuracies))
                row |= {probe: str(interval)}
                claims += _claims(label, probe, size.steps, interval)
            row |= {"parameters": found["parameters"], "ms an update": round(1e3 * found["seconds"], 1)}
            rows.append(row)
            print(size.steps, row, flush=True)
        budget = f"{size.updates} updates of {size.batch} sequences, {seeds} seeds"
        tables[f"Long recall: accuracy at {size.steps} steps after {budget}"] = rows
    return Findings(claims, seeds, 0, tables=tables)


def _claims(label: str, probe: str, steps: int, interval: Interval) -> list[Claim]:
    what, key = f"{label}, {probe} over {steps} steps, accuracy", f"{label}/{probe}/{steps}"
    if label == "mlp":
        return [Claim.of(key, f"{what}: the control is at chance", interval, 0.17, "below")]
    if probe == "cue" and (label in SELECTIVE or label.endswith("horizon")):
        return [Claim.of(key, f"{what}: gates hold it", interval, 0.9, "above")]
    return []


if __name__ == "__main__":
    run_experiment("long_recall", "Gu & Dao 2023; Feng et al. 2024", measure)
    from experiments.table import write_table

    write_table()
