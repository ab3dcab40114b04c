"""What a sequence policy is trained to predict: a sum of terms, each a head, a loss per step, and a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_seq.agents.distributions import Policy, parameter_dim, to_env, to_unit
from jaxrl_seq.envs import Box, MultiDiscrete, Space
from jaxrl_seq.types import Array, Metrics, PyTree

Columns = dict[str, PyTree]
"""Name -> [..., ] of steps: what `network.columns_of` makes of a window."""
Head = Literal["auto", "stochastic", "mse", "ce", "gaussian"]
HEADS: tuple[str, ...] = get_args(Head)
_LOG_STD = (-4.0, 1.0)  # spread of a Gaussian head, in units where actions are in [-1, 1]


class Term(Protocol):
    """A head on the hidden state at one of a step's tokens, and its loss. Frozen and hashable."""

    name: ClassVar[str]
    reads: ClassVar[str]
    """A column of the token that it is predicted at; "" for the token that is marked with *."""
    unit: ClassVar[str]
    """The signal in whose units outputs are; "" for none."""

    @property
    def given(self) -> tuple[str, ...]:
        """Columns that the head reads besides, and no token shows to later steps; their mixture is a layer of its
        own."""
        ...

    @property
    def width(self) -> int:
        """P, outputs of the head."""
        ...

    @property
    def weight(self) -> float: ...

    def loss(self, out: Array, columns: Columns) -> Array:
        """float32 [...] of outputs [..., P]."""
        ...


@dataclass(frozen=True)
class ActionTerm:
    """The action. head: "ce" (discrete actions; a box in `bins` equal parts an entry), "mse" (one action, inside of
    the box), or "gaussian" (mean and spread of a diagonal Gaussian). "auto" is mse for a box, "stochastic" gaussian,
    and both are ce for discrete actions.

    Losses are in units where a bounded box is [-1, 1]. entropy: what a nat of entropy is worth, as in Online DT (Zheng
    et al. 2022, arXiv:2202.05607), there with a multiplier that is learnt. Raises ValueError for a head that does not
    fit the space.
    """

    space: Space
    head: str = "auto"
    bins: int = 32
    entropy: float = 0.0
    weight: float = 1.0
    given: tuple[str, ...] = ()

    name: ClassVar[str] = "action"
    reads: ClassVar[str] = ""
    unit: ClassVar[str] = ""

    def __post_init__(self) -> None:
        parameter_dim(self.space)  # refuses spaces that no head serves
        space, box = self.space, isinstance(self.space, Box)
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {self.head!r}.")
        if self.head in ("auto", "stochastic"):
            of_box = "mse" if self.head == "auto" else "gaussian"
            object.__setattr__(self, "head", of_box if box else "ce")
        if not box and self.head != "ce":
            raise ValueError(f"A head {self.head!r} does not fit {space}: use ce for discrete actions.")
        if isinstance(space, Box) and self.head == "ce" and not np.all(np.abs(space.bounds) < 1e9):
            raise ValueError(f"A head ce cuts a box into parts, and {space} has no bounds: use mse or gaussian.")
        if self.bins < 2:
            raise ValueError(f"A head needs at least 2 bins, got {self.bins}.")
        if self.entropy and self.head == "mse":
            raise ValueError("A head mse has no entropy: use gaussian or ce.")

    @property
    def width(self) -> int:
        return self._dim if self.head == "mse" else parameter_dim(self._chosen_from)

    @property
    def _dim(self) -> int:
        return self.space.flat_dim

    @property
    def _chosen_from(self) -> Space:
        """What the head's distribution is over."""
        cut = isinstance(self.space, Box) and self.head == "ce"
        return MultiDiscrete((self.bins,) * self._dim) if cut else self.space

    def loss(self, out: Array, columns: Columns) -> Array:
        action = columns["action"]
        if self.head == "mse":
            return jnp.mean((self.point(out) - to_unit(self.space, action)) ** 2, axis=-1)
        policy = self.distribution(out, columns.get("action_mask"))
        error = -policy.log_prob(self._to_head(action))
        return error - self.entropy * policy.entropy() if self.entropy else error

    def choose(self, out: Array, mask: Array | None = None, key: Array | None = None) -> Array:
        """Actions in the environment's units, of outputs [..., P]: sampled with a key, else the most likely. A head
        mse has but one. The key is consumed."""
        if self.head == "mse":
            return self._from_unit(self.point(out))
        policy = self.distribution(out, mask)
        action = policy.mode() if key is None else policy.sample(key)
        if self._chosen_from == self.space:
            return to_env(self.space, action)
        return self._from_unit((action + 0.5) / self.bins * 2 - 1)

    def point(self, out: Array) -> Array:
        """The one action of a head mse, or the mean of a Gaussian, [..., A]: in [-1, 1] where the box has bounds."""
        assert isinstance(self.space, Box)
        out = out[..., : self._dim]
        return jnp.where(np.all(np.abs(self.space.bounds) < 1e9, axis=0).reshape(-1), jnp.tanh(out), out)

    def distribution(self, out: Array, mask: Array | None = None) -> Policy:
        """Over actions as the head knows them; not for mse."""
        if self.head == "gaussian":
            spread = out[..., self._dim :]
            low, high = _LOG_STD  # smoothly bounded, so that no gradient is lost at the ends
            out = jnp.concatenate([self.point(out), low + (high - low) * jax.nn.sigmoid(spread)], axis=-1)
        return Policy(self._chosen_from, out, mask)

    def _to_head(self, action: Array) -> Array:
        if self._chosen_from != self.space:
            unit = to_unit(self.space, action)
            return jnp.clip(jnp.floor((unit + 1) / 2 * self.bins), 0, self.bins - 1).astype(jnp.int32)
        if isinstance(self.space, Box):
            return to_unit(self.space, action).reshape(action.shape)
        return action

    def _from_unit(self, unit: Array) -> Array:
        assert isinstance(self.space, Box)
        return to_env(self.space, unit.reshape(*unit.shape[:-1], *self.space.shape))


def objective(terms: tuple[Term, ...], outs: dict[str, Array], columns: Columns, mask: Array) -> tuple[Array, Metrics]:
    """(the weighted sum of the terms, each of them): means over the steps that are valid, bool [...]."""
    count = jnp.maximum(jnp.sum(mask), 1)
    parts = {t.name: jnp.sum(jnp.where(mask, t.loss(outs[t.name], columns), 0.0)) / count for t in terms}
    total = sum((t.weight * parts[t.name] for t in terms), jnp.float32(0.0))
    return total, {f"{name}_loss": value for name, value in parts.items()}
