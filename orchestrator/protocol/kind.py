"""What the service asks of a trainer kind before a config is accepted."""

from collections.abc import Callable

from orchestrator.protocol.wire import Count, JsonObject, Ordinal, WireModel


class ConfigFacts(WireModel):
    """What a valid config amounts to, computed without building the model."""

    config: JsonObject
    """The config with every default filled in: what is stored, hashed and trained."""
    parameters_total: Count
    parameters_active: Count
    flops_per_token: float
    """Forward pass, active parameters alone."""
    tokens_per_step: Ordinal
    schedule_family: str
    rows_per_pass: Ordinal | None = None
    """Of one process: a step may be divided into passes of fewer, down to one (`Assignment.memory_factor`).
    None when the trainer does not divide its steps."""


class ConfigProblem(ValueError):
    """A config that the trainer would refuse: `problems` holds (dotted field, message with the fix)."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__(
            "; ".join(f"{field}: {message}" if field else message for field, message in problems)
        )


CheckConfig = Callable[[JsonObject], ConfigFacts]
"""A trainer kind names one of these by import path. It loads no tensor library and raises `ConfigProblem`."""
