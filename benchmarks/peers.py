"""Our layers beside other libraries' in one process: `pip install memax equinox`, then `python -m benchmarks.peers`.

One layer each, no norm and no residual, the same T, B, D, parameters of the same shapes where the architectures
agree, random resets; forward and backward, and `step` in a loop. Runs are taken in turns, so a ratio does not see the
machine drift.

Peers: memax (pip), flax's own cells under `lax.scan`, full causal attention of `jax.nn`, and S5 as the field's code
has it (complex numbers, `associative_scan` with a reset channel: popjaxrl), written anew here from its formulas.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import tyro

from benchmarks import lab
from benchmarks.common import publish
from jaxrl_seq import models
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.run.timing import compile_timed, race


@dataclass(frozen=True)
class Options:
    """Measure us and the peers in turns."""

    layers: tuple[str, ...] = ()
    """Rows by name (default: all)."""
    width: int = 128
    """D."""
    steps: int = 1024
    """T of a training pass."""
    batch: int = 8
    """B of a training pass."""
    acting: tuple[int, ...] = (1, 64)
    """Numbers of environments to act in."""
    acting_steps: int = 128
    """Steps of an acting loop."""
    races: int = 3
    """Races of each program, spread over the row's time; the median of their ratios counts."""
    rounds: int = 2
    """Measured runs of a race."""


Programs = dict[str, Callable[[], Any]]
"""`train` and `act_bN` as compiled calls."""


def ours(model: SequenceModel, options: Options) -> Programs:
    """A layer of this library."""
    params, carry = lab.initial(model, options.batch, options.width)
    x, reset = lab.inputs(options.steps, options.batch, options.width)
    programs = {"train": _compiled(lab.training_pass(model), params, carry, x, reset)}
    for batch in options.acting:
        x, reset = lab.inputs(options.acting_steps, batch, options.width)
        carry = model.initialize_carry((batch,))
        programs[f"act_b{batch}"] = _compiled(lab.acting_loop(model), params, carry, x, reset)
    return programs


def memax(name: str, extra: dict[str, Any], options: Options) -> Programs:
    """A layer of memax (equinox flavour), vmapped over environments as its training code does."""
    import equinox as eqx  # pyright: ignore[reportMissingImports]
    from memax.equinox import train_utils  # pyright: ignore[reportMissingImports]

    layer = getattr(train_utils, name)(key=jax.random.key(1), **extra)
    params, static = eqx.partition(layer, eqx.is_inexact_array)

    def fresh(batch: int) -> Any:
        return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], batch, 0), layer.initialize_carry(None))

    def loss(params, x, carry, reset):
        run = eqx.combine(params, static)
        y = jax.vmap(lambda carry, x, reset: run(carry, (x, reset))[1])(carry, x, reset)
        return jnp.mean(jnp.square(y))

    def train(params, carry, x, reset):
        return jax.grad(loss, argnums=(0, 1))(params, x, carry, reset)

    def act(params, carry, x, reset):
        run = eqx.combine(params, static)

        def one(carry, x, reset):
            carry, y = run(carry, (x[None], reset[None]))
            return run.latest_recurrent_state(carry), y[0]

        def body(state, now):
            carry, y = jax.vmap(one)(state[0], *now)
            return (carry, state[1] + y.sum()), None

        return jax.lax.scan(body, (carry, jnp.zeros(())), (x, reset))[0]

    x, reset = (leaf.swapaxes(0, 1) for leaf in lab.inputs(options.steps, options.batch, options.width))
    programs = {"train": _compiled(train, params, fresh(options.batch), x, reset)}
    for batch in options.acting:
        x, reset = lab.inputs(options.acting_steps, batch, options.width)
        programs[f"act_b{batch}"] = _compiled(act, params, fresh(batch), x, reset)
    return programs


class FlaxCell(SequenceModel):
    """A flax cell under `lax.scan`, its state zeroed at resets: how recurrent PPO is usually written."""

    features: int
    cell: Any

    def step(self, carry: Any, x: jax.Array, reset: jax.Array) -> tuple[Any, jax.Array]:
        carry = jax.tree.map(lambda leaf: jnp.where(reset[:, None], 0, leaf), carry)
        return self.cell(carry, x)

    def __call__(self, carry: Any, x: jax.Array, reset: jax.Array) -> tuple[Any, jax.Array]:
        scan = nn.scan(FlaxCell.step, variable_broadcast="params", split_rngs={"params": False})
        return scan(self, carry, x, reset)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Any:
        zeros = jnp.zeros((*batch, self.features))
        return (zeros, zeros) if "LSTM" in type(self.cell).__name__ else zeros


class ComplexS5(SequenceModel):
    """S5 in complex64 with the three-channel reset operator of Lu et al. 2023; P complex states, half-GLU."""

    features: int
    state: int

    def setup(self) -> None:
        size, width = self.state, self.features
        normal = nn.initializers.normal(0.1)
        self.frequency = self.param("frequency", normal, (size,))
        self.log_dt = self.param("log_dt", nn.initializers.constant(-4.0), (size,))
        self.b = self.param("b", normal, (size, width, 2))
        self.c = self.param("c", normal, (width, size, 2))
        self.skip = self.param("skip", normal, (width,))
        self.gate = nn.Dense(width)

    def __call__(self, carry: jax.Array, x: jax.Array, reset: jax.Array) -> tuple[jax.Array, jax.Array]:
        dt = jnp.exp(self.log_dt)
        rate = -0.5 + 1j * self.frequency
        decay = jnp.exp(rate * dt)
        b = ((decay - 1) / rate)[:, None] * (self.b[..., 0] + 1j * self.b[..., 1])
        drive = jnp.einsum("pd,tbd->tbp", b, x.astype(jnp.complex64))
        decays = jnp.broadcast_to(decay, drive.shape)
        decays = jnp.concatenate([jnp.ones_like(decays[:1]), decays])
        drive = jnp.concatenate([carry[None], drive])
        flags = jnp.concatenate([jnp.zeros_like(reset[:1]), reset]).astype(jnp.float32)[..., None]

        def combine(left, right):
            (a_i, b_i, c_i), (a_j, b_j, c_j) = left, right
            a = a_j * a_i * (1 - c_j) + a_j * c_j
            return a, (a_j * b_i + b_j) * (1 - c_j) + b_j * c_j, c_i * (1 - c_j) + c_j

        h = jax.lax.associative_scan(combine, (decays, drive, flags))[1][1:]
        c = self.c[..., 0] + 1j * self.c[..., 1]
        y = nn.gelu(2 * jnp.einsum("dp,tbp->tbd", c, h).real + self.skip * x)
        return h[-1], y * nn.sigmoid(self.gate(y))

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((*batch, self.state), jnp.complex64)


class FullAttention(SequenceModel):
    """Causal attention of `jax.nn` over all T steps, no window and no resets; cannot act in a loop."""

    features: int
    heads: int = 4

    @nn.compact
    def __call__(self, carry: Any, x: jax.Array, reset: jax.Array) -> tuple[Any, jax.Array]:
        size = self.features // self.heads
        q, k, v = jnp.split(nn.Dense(3 * self.features)(x.swapaxes(0, 1)), 3, axis=-1)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, size) for y in (q, k, v))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(*q.shape[:2], -1)
        return carry, nn.Dense(self.features)(y).swapaxes(0, 1)

    @nn.nowrap
    def initialize_carry(self, batch: tuple[int, ...]) -> Any:
        return ()


def contests(width: int) -> dict[str, tuple[SequenceModel, Callable[[Options], Programs], float]]:
    """Row -> our layer, the peer's programs, the ratio (peer over us) in training that we aim at."""
    same = {"recurrent_size": width}
    both = same | {"hidden_size": width}

    def peer(name: str, extra: dict[str, Any]) -> Callable[[Options], Programs]:
        return lambda options: memax(name, extra, options)

    def cell(cls: Any) -> Callable[[Options], Programs]:
        return lambda options: ours(FlaxCell(width, cls(width)), options)

    return {
        "gru / flax": (models.GRU(width), cell(nn.GRUCell), 1.3),
        "lstm / flax": (models.LSTM(width), cell(nn.OptimizedLSTMCell), 1.3),
        "gru / memax": (models.GRU(width), peer("GRU", same), 2),
        "lstm / memax": (models.LSTM(width), peer("LSTM", same), 2),
        "lru / memax": (models.LRU(width, state=2 * width), peer("LRU", both), 2),
        "ffm / memax": (
            models.FFM(width, traces=32, contexts=4),
            peer("FFM", {"hidden_size": width, "trace_size": 32, "context_size": 4}),
            2,
        ),
        "mamba2 / memax s6": (models.Mamba2(width), peer("S6", both), 2),
        "linear_attention / memax": (models.LinearAttention(width, heads=1), peer("FART", both), 2),
        "delta_net / memax": (models.DeltaNet(width, heads=1), peer("DeltaNet", both), 2),
        "gated_delta_net / memax": (models.DeltaNet(width, heads=1, gated=True), peer("GDN", both), 2),
        "transformer / memax": (
            models.SlidingWindowAttention(width, heads=1, kv_heads=1, window=128),
            peer("Attention", same | {"window_size": 128, "positional_embedding": "rope"}),
            2,
        ),
        "s5 / complex s5": (
            models.S5(width, state=2 * width),
            lambda options: ours(ComplexS5(width, width), options),
            4,
        ),
        "transformer / full causal": (
            models.SlidingWindowAttention(width, heads=4, kv_heads=4, window=128),
            lambda options: {"train": ours(FullAttention(width), options)["train"]},
            4,
        ),
    }


def _compiled(program: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    compiled, _ = compile_timed(jax.jit(program), *arguments)
    return lambda: compiled(*arguments)


def contest(us: Programs, them: Programs, options: Options) -> dict[str, Any]:
    """For each program our time, the peer's over it, and how far races disagree about that."""
    races = [
        {program: race({"us": us[program], "them": them[program]}, options.rounds) for program in them}
        for _ in range(options.races)
    ]
    row: dict[str, Any] = {}
    for program in them:
        unit, scale = ("ms", 1e3) if program == "train" else ("us", 1e6 / options.acting_steps)
        ratios = [found[program]["them"] / found[program]["us"] for found in races]
        row[f"{program}_{unit}"] = round(scale * statistics.median(found[program]["us"] for found in races), 1)
        row |= {f"{program}_ratio": round(statistics.median(ratios), 2)}
        row |= {f"{program}_low": round(min(ratios), 2), f"{program}_high": round(max(ratios), 2)}
    return row


def main() -> None:
    options = tyro.cli(Options)
    table = contests(options.width)
    rows = []
    for name in options.layers or tuple(table):
        layer, make_peer, aim = table[name]
        rows.append({"ours / peer": name} | contest(ours(layer, options), make_peer(options), options) | {"aim": aim})
        print(rows[-1], flush=True)
    publish(
        "peers",
        rows,
        f"one layer, D={options.width}, T={options.steps}, B={options.batch}, float32; ratio: the peer over us, "
        "forward and backward (train) and one step of N environments in a loop (act_bN), median of "
        f"{options.races} races; low, high: the lowest and highest of them; aim: for train_ratio.",
    )


if __name__ == "__main__":
    main()
