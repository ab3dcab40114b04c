"""Which tokens a step is made of, as one line of text: the only thing in which most papers' networks differ.

    "rtg | obs* | action"       Decision Transformer: three tokens a step, the action is predicted at the second
    "obs + rtg*"                return-conditioned imitation: one token
    "obs + prev_action + rtg*"  Decision S4: one fused token, for a recurrent model
    "obs | rtg* | reward"       LRAM: the action is no part of the context

`|` separates tokens, `+` what is fused into one, and `*` marks the token that the action is read at. The line gives
the parallel pass of training and the steps of acting alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxrl_seq.envs.core.naming import known

BEFORE = ("obs", "prev_action", "prev_reward")
"""Columns that are known when an action is chosen; signals are too."""
AFTER = ("action", "reward")
"""Columns that are known only once it was taken."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a step. Raises ValueError, with the place, for a line that makes no sense."""

    text: str

    def __post_init__(self) -> None:
        if self.text.count("*") != 1:
            raise ValueError(
                f"Tokens {self.text!r} mark {self.text.count('*')} tokens: put one * behind the token that the action "
                'is read at, as in "rtg | obs* | action".'
            )
        if not all(name for token in self.groups for name in token):
            raise ValueError(f"Tokens {self.text!r} have an empty place: write names between | and +.")
        columns = self.columns
        for name in columns:
            if columns.count(name) > 1:
                raise ValueError(f"Tokens {self.text!r} have {name!r} more than once.")
        for token in self.groups[: self.reads + 1]:
            if late := [name for name in token if name in AFTER]:
                raise ValueError(
                    f"Tokens {self.text!r} show {late[0]!r} before the action is chosen: put it into a token behind "
                    f"the one with *, or use prev_{late[0]}."
                )

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The columns of each token."""
        plain = self.text.replace("*", "")
        return tuple(tuple(name.strip() for name in token.split("+")) for token in plain.split("|"))

    @cached_property
    def reads(self) -> int:
        """The number of the token that the action is predicted at."""
        return self.text[: self.text.index("*")].count("|")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for token in self.groups for name in token)

    @property
    def per_step(self) -> int:
        return len(self.groups)

    def check(self, signals: tuple[str, ...], given: tuple[str, ...] = ()) -> None:
        """ValueError for names that are neither columns nor signals, and for signals that neither a token shows nor a
        head is `given`."""
        for name in self.columns:
            known(name, (*BEFORE, *AFTER, *signals), f"column of the tokens {self.text!r}")
        if unseen := [name for name in signals if name not in (*self.columns, *given)]:
            raise ValueError(
                f"Tokens {self.text!r} do not show the signal {unseen[0]!r}, so that asking would be vain."
            )
