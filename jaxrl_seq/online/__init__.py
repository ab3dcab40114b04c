"""Learning by acting: returns, rollouts, PPO and evaluation."""

from jaxrl_seq.online.evaluate import Episodes, Recording, evaluate, record
from jaxrl_seq.online.ppo import PPO, PPOHyper, PPOState, make_ppo
from jaxrl_seq.online.rollout import Trajectory, rollout

__all__ = [
    "PPO",
    "Episodes",
    "PPOHyper",
    "PPOState",
    "Recording",
    "Trajectory",
    "evaluate",
    "make_ppo",
    "record",
    "rollout",
]
