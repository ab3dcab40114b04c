"""Sequence models: one set of parameters, a parallel view for training and a recurrent view for acting."""

from jaxrl_seq.models.agalite import AGaLiTe, AGaLiTeConfig, GaLiTe, GaLiTeConfig
from jaxrl_seq.models.attention import SlidingWindowAttention, TransformerConfig
from jaxrl_seq.models.base import Carry, ModelConfig, SequenceFns, SequenceModel, as_functions
from jaxrl_seq.models.blocks import (
    FEED_FORWARDS,
    FeedForward,
    FeedForwardBlock,
    FeedForwardKind,
    Linear,
    MixerBlock,
    MixtureOfExperts,
    RMSNorm,
    feed_forward,
)
from jaxrl_seq.models.convolution import CausalConvolution, ConvFormerConfig, GMLPConfig, SpatialGatingUnit
from jaxrl_seq.models.delta_net import DeltaNet, DeltaNetConfig, GatedDeltaNetConfig
from jaxrl_seq.models.diagonal import DiagonalStateSpace
from jaxrl_seq.models.ffm import FFM, FFMConfig
from jaxrl_seq.models.gpt import ContextWindow, GPTConfig
from jaxrl_seq.models.griffin import RGLRU, GriffinConfig
from jaxrl_seq.models.gru import GRU, GRUConfig
from jaxrl_seq.models.linear_attention import (
    FEATURE_MAPS,
    FeatureMap,
    GatedLinearAttention,
    GatedLinearAttentionConfig,
    LinearAttention,
    LinearAttentionConfig,
    MatrixMemory,
    Retention,
    RetNetConfig,
)
from jaxrl_seq.models.lru import LRU, LRUConfig
from jaxrl_seq.models.lstm import LSTM, LSTMConfig
from jaxrl_seq.models.mamba2 import Mamba2, Mamba2Config
from jaxrl_seq.models.memory_tokens import MemoryAttention, RecurrentMemoryConfig
from jaxrl_seq.models.min_rnn import MinGRU, MinGRUConfig, MinLSTM, MinLSTMConfig
from jaxrl_seq.models.mlp import MLPConfig
from jaxrl_seq.models.mlstm import MLSTM, MLSTMConfig
from jaxrl_seq.models.registry import (
    MODELS,
    config_to_dict,
    make_model,
    model_config,
    model_name,
    register_model,
)
from jaxrl_seq.models.s4d import S4D, S4DConfig
from jaxrl_seq.models.s5 import S5, S5Config
from jaxrl_seq.models.slstm import SLSTM, SLSTMConfig
from jaxrl_seq.models.stack import SequenceStack, stack_of
from jaxrl_seq.models.transformer_xl import GTrXLConfig, TransformerXLConfig

__all__ = [
    "FEATURE_MAPS",
    "FEED_FORWARDS",
    "FFM",
    "GRU",
    "LRU",
    "LSTM",
    "MLSTM",
    "MODELS",
    "RGLRU",
    "S4D",
    "S5",
    "SLSTM",
    "AGaLiTe",
    "AGaLiTeConfig",
    "Carry",
    "CausalConvolution",
    "ContextWindow",
    "ConvFormerConfig",
    "DeltaNet",
    "DeltaNetConfig",
    "DiagonalStateSpace",
    "FFMConfig",
    "FeatureMap",
    "FeedForward",
    "FeedForwardBlock",
    "FeedForwardKind",
    "GMLPConfig",
    "GPTConfig",
    "GaLiTe",
    "GaLiTeConfig",
    "GRUConfig",
    "GTrXLConfig",
    "GatedDeltaNetConfig",
    "GatedLinearAttention",
    "GatedLinearAttentionConfig",
    "GriffinConfig",
    "LRUConfig",
    "LSTMConfig",
    "Linear",
    "LinearAttention",
    "LinearAttentionConfig",
    "MLPConfig",
    "MLSTMConfig",
    "Mamba2",
    "Mamba2Config",
    "MatrixMemory",
    "MemoryAttention",
    "MinGRU",
    "MinGRUConfig",
    "MinLSTM",
    "MinLSTMConfig",
    "MixerBlock",
    "MixtureOfExperts",
    "ModelConfig",
    "RMSNorm",
    "RecurrentMemoryConfig",
    "RetNetConfig",
    "Retention",
    "S4DConfig",
    "S5Config",
    "SLSTMConfig",
    "SequenceFns",
    "SequenceModel",
    "SequenceStack",
    "SlidingWindowAttention",
    "SpatialGatingUnit",
    "TransformerConfig",
    "TransformerXLConfig",
    "as_functions",
    "config_to_dict",
    "feed_forward",
    "make_model",
    "model_config",
    "model_name",
    "register_model",
    "stack_of",
]
