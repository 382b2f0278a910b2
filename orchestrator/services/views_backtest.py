"""What a backtest and a calibration answer. Losses in nats; shares are of 1."""

from typing import Literal

from orchestrator.services.views import View


class EstimateView(View):
    """A figure over the sets with its 95% interval, clustered by config; None where there is none."""

    value: float
    low: float | None
    high: float | None


class ScoreView(View):
    """One policy over the sets."""

    policy: str
    """Its name; of several documents of one name the later ones are numbered."""
    version: int
    hash: str
    sets: int
    coverage: float
    regret_known: float
    cost: EstimateView | None
    slot_hours: EstimateView | None
    regret: EstimateView | None
    regret_p90: EstimateView | None
    best_kept: float | None
    false_stops: float | None
    no_winner: float | None
    unscorable: dict[str, int]


class AtStep(View):
    step: int
    runs: int


class OfConfig(View):
    config: str
    runs: int


class ExampleView(View):
    set: int
    config: str
    run: str
    step: int
    reason: str
    other_step: int
    other_reason: str
    final: float | None


class DifferenceView(View):
    """The variants that `policy` stops earlier than `other` does, over the sets that both are scored on."""

    policy: str
    other: str
    regret: EstimateView | None
    """The regret of `policy` less that of `other` on the same sets, in nats."""
    runs: int
    of: int
    at: list[AtStep]
    configs: list[OfConfig]
    examples: list[ExampleView]


class BacktestView(View):
    """The answer to one backtest."""

    configs: int
    runs: int
    stages: list[int]
    eval_every: int
    sets: int
    size: tuple[int, int]
    seed: int
    control: str | None
    """The config that stands as the control in every set; None: the first drawn of each."""
    scores: list[ScoreView]
    differences: list[DifferenceView]
    notes: list[str]
    """What was done to the history, and left out of it."""


class SigmaView(View):
    """Seed noise of one run at a step: the pooled standard deviation within configs."""

    step: int
    sigma: float
    freedom: int
    """Degrees of freedom: runs less configs, over the configs with two runs or more there."""
    configs: int
    runs: int


class InSigmas(View):
    """A margin in standard deviations at a step; None where there is no noise."""

    step: int
    of_one_run: float | None
    sigmas: float | None
    """Of what the margin is held against."""


class MarginView(View):
    """One margin of a policy beside the noise."""

    field: str
    value: float
    of: Literal["difference of two runs", "one run", "change of a difference"]
    """What the margin is held against: its standard deviation is sqrt(2), 1 or 2 times sigma."""
    at: list[InSigmas]
    text: str


class CalibrationView(View):
    """The answer to one calibration."""

    configs: int
    runs: int
    noise: list[SigmaView]
    policy: str | None
    margins: list[MarginView]
    notes: list[str]
