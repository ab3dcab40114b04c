"""Papers as rows of choices: what a token is, what is asked for, how the policy acts, and around which model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxrl_seq.envs import Env
from jaxrl_seq.envs.core.naming import known
from jaxrl_seq.models import SequenceModel
from jaxrl_seq.offline.constrained import ConstrainedLearner, CostTerm
from jaxrl_seq.offline.elastic import ElasticLearner, PromiseTerm
from jaxrl_seq.offline.learner import SequenceLearner
from jaxrl_seq.offline.network import TokenNet
from jaxrl_seq.offline.objectives import ActionTerm, Term
from jaxrl_seq.offline.policy import Mode
from jaxrl_seq.offline.signals import CostToGo, ReturnToGo, Signal
from jaxrl_seq.offline.tokens import Tokens


@dataclass(frozen=True)
class Method:
    """One paper."""

    tokens: str
    """See `Tokens`."""
    signals: tuple[Signal, ...] = ()
    mode: Mode = "window"
    window: int = 20
    """Steps; in the other modes whole episodes."""
    model: str = "gpt"
    """What the paper has; any other will do."""
    timestep: bool = False
    """Whether tokens carry an embedding of the time in the episode."""
    head: str = "auto"
    """Of the action; see `ActionTerm`."""
    entropy: float = 0.0
    """What a nat of the policy's entropy is worth."""
    given: tuple[str, ...] = ()
    """What the action's head reads besides."""
    further: tuple[Term, ...] = ()
    """What is predicted besides the action."""
    learner: type[SequenceLearner] = SequenceLearner


_RTG = (ReturnToGo(),)
METHODS: dict[str, Method] = {
    "bc": Method("obs*", window=1, model="mlp"),
    "rvs": Method("obs + rtg*", _RTG, window=1, model="mlp"),
    "dt": Method("rtg | obs* | action", _RTG, timestep=True),
    "dc": Method("rtg | obs* | action", _RTG, window=8, model="convformer", timestep=True),
    "ds4": Method("obs + prev_action + rtg*", _RTG, mode="recurrent", model="s5"),
    "lram": Method("obs + prev_reward + rtg*", _RTG, mode="recurrent", model="mlstm", head="ce"),
    "rate": Method("rtg | obs* | action", _RTG, mode="recurrent", model="rmt"),
    "cdt": Method(
        "rtg | ctg | obs* | action",
        (ReturnToGo(), CostToGo()),
        window=10,
        timestep=True,
        head="stochastic",
        entropy=0.1,
        further=(CostTerm(),),
        learner=ConstrainedLearner,
    ),
    "edt": Method(
        "obs* | action",
        _RTG,
        timestep=True,
        given=("rtg",),
        further=(PromiseTerm(),),
        learner=ElasticLearner,
    ),
}
"""name -> its row.

bc     behavioural cloning; on `top_fraction` of the data %BC (Chen et al. 2021)
rvs    return-conditioned imitation by a memoryless net (Emmons et al. 2022, arXiv:2112.10751)
dt     Decision Transformer (Chen et al. 2021, arXiv:2106.01345); mode cache: over the whole history
dc     Decision ConvFormer (Kim et al. 2023, arXiv:2310.03022); with `filters` of the model 3, one for each token
ds4    Decision S4 (Bar-David et al. 2023, arXiv:2306.05167): one fused token a step, whole episodes
lram   large recurrent action models (Schmied et al. 2024, arXiv:2410.22391): no actions in the context
cdt    Constrained Decision Transformer (Liu et al. 2023, arXiv:2302.07351): see `constrained`
edt    Elastic Decision Transformer (Wu et al. 2023, arXiv:2307.02484): see `elastic`
rate   Recurrent Action Transformer with Memory (Cherepanov et al. 2023, arXiv:2306.09459)
"""


def make_method(
    name: str,
    env: Env,
    model: SequenceModel,
    *,
    tokens: str | None = None,
    mode: Mode | None = None,
    window: int | None = None,
    head: str | None = None,
    bins: int = 32,
    entropy: float | None = None,
    **options: Any,
) -> SequenceLearner:
    """The learner of a row for `env`, around `model`; what is given replaces the row's choice, `options` are further
    fields of `SequenceLearner`. Raises ValueError for unknown names and for choices that do not go together."""
    row = METHODS[known(name, METHODS, "method")]
    mode = mode or row.mode
    entropy = row.entropy if entropy is None else entropy
    action = ActionTerm(env.action_space(), head or row.head, bins, entropy, given=row.given)
    net = TokenNet(
        env.observation_space(),
        env.action_space(),
        model,
        Tokens(tokens or row.tokens),
        tuple((signal.name, signal.width) for signal in row.signals),
        (action, *row.further),
        env.horizon if row.timestep else 0,
    )
    return row.learner(
        env=env,
        name=name,
        model_name=getattr(model, "label", type(model).__name__),
        net=net,
        signals=row.signals,
        mode=mode,
        window=window or (row.window if mode == "window" else env.horizon),
        **options,
    )
