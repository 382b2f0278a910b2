"""A trainer kind whose workers do nothing: whoever measures the service reports in their place."""

from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.wire import JsonObject

SECONDS = 300
"""After which a worker that was left behind goes by itself."""
TRAINERS = {
    "idle": {
        "argv": ["sh", "-c", f"exec sleep {SECONDS}", "{assignment}"],
        "check": "benchmarks.idle:check",
    }
}
"""For `ASSAY_TRAINERS`."""


def check(config: JsonObject) -> ConfigFacts:
    """Any config is sound."""
    return ConfigFacts(
        config=config,
        parameters_total=1000,
        parameters_active=1000,
        flops_per_token=2000.0,
        tokens_per_step=128,
        schedule_family="cosine",
    )
