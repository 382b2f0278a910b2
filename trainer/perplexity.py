"""Perplexity. Imports nothing heavy."""

from math import exp, inf

LARGEST = 700.0  # nats; e^710 is no float


def perplexity(loss: float) -> float:
    """`e ** loss` for a loss in nats per token; infinite where no float holds it."""
    return exp(loss) if loss < LARGEST else inf
