"""Encoders, heads and distributions around a sequence model."""

from jaxrl_seq.agents.actor_critic import ActorCritic, Decision
from jaxrl_seq.agents.distributions import Policy

__all__ = ["ActorCritic", "Decision", "Policy"]
