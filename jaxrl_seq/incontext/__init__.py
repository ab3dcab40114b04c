"""In-context reinforcement learning: learning histories, the policies that make them, and those distilled from them."""

from jaxrl_seq.incontext.algorithms import ALGORITHMS, make_algorithm
from jaxrl_seq.incontext.distill import Distill, DistillHyper
from jaxrl_seq.incontext.dpt import DPT
from jaxrl_seq.incontext.evaluation import anchors, compare, controls, evaluate_in_context, summary, switched
from jaxrl_seq.incontext.headless import Headless
from jaxrl_seq.incontext.histories import History, episode_returns, join, mix, play, thin
from jaxrl_seq.incontext.imitation import Imitation
from jaxrl_seq.incontext.policies import AgentPolicy, ContextPolicy, Deprived, Streams
from jaxrl_seq.incontext.ppo_source import PPOSource, relabel

__all__ = [
    "ALGORITHMS",
    "DPT",
    "AgentPolicy",
    "ContextPolicy",
    "Deprived",
    "Distill",
    "DistillHyper",
    "Headless",
    "History",
    "Imitation",
    "PPOSource",
    "Streams",
    "anchors",
    "compare",
    "controls",
    "episode_returns",
    "evaluate_in_context",
    "join",
    "make_algorithm",
    "mix",
    "play",
    "relabel",
    "summary",
    "switched",
    "thin",
]
