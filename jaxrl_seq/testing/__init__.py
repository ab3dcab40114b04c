"""Checkers for your own models."""

from jaxrl_seq.testing.check_model import LAWS, ModelLawError, ModelReport, check_model

__all__ = ["LAWS", "ModelLawError", "ModelReport", "check_model"]
