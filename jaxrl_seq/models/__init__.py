"""Sequence models: one set of parameters, a parallel view for training and a recurrent view for acting."""

from jaxrl_seq.models.attention import SlidingWindowAttention, TransformerConfig
from jaxrl_seq.models.base import Carry, ModelConfig, SequenceFns, SequenceModel, as_functions
from jaxrl_seq.models.blocks import FeedForward, FeedForwardBlock, Linear, MixerBlock, RMSNorm
from jaxrl_seq.models.gru import GRU, GRUConfig
from jaxrl_seq.models.mlp import MLPConfig
from jaxrl_seq.models.registry import (
    MODELS,
    config_to_dict,
    make_model,
    model_config,
    model_name,
    register_model,
)
from jaxrl_seq.models.s5 import S5, S5Config
from jaxrl_seq.models.stack import SequenceStack, stack_of

__all__ = [
    "GRU",
    "MODELS",
    "S5",
    "Carry",
    "FeedForward",
    "FeedForwardBlock",
    "GRUConfig",
    "Linear",
    "MLPConfig",
    "MixerBlock",
    "ModelConfig",
    "RMSNorm",
    "S5Config",
    "SequenceFns",
    "SequenceModel",
    "SequenceStack",
    "SlidingWindowAttention",
    "TransformerConfig",
    "as_functions",
    "config_to_dict",
    "make_model",
    "model_config",
    "model_name",
    "register_model",
    "stack_of",
]
