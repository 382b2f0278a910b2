"""Comparisons with the control: of each run at each evaluation, of each variant over its seeds."""

from typing import Literal

from orchestrator.services.views import View


class ComparePoint(View):
    """One run at one step (or number of tokens) beside the control of the same seed."""

    at: int
    eval_loss: float
    control_loss: float | None
    gap: float | None
    quality_drop_percent: float | None
    """`100 * (loss / loss_control - 1)`."""
    perplexity_change_percent: float | None
    band: str | None
    """Verdict band; only for 40-60% fewer parameters than the control."""
    invalid: str | None
    """Why the comparison is not sound, if it is not."""
    waiting: str | None = None
    """Why there is nothing to compare with yet, where there may still be."""


class CompareRow(View):
    run_id: str
    variant: str
    seed: int
    is_control: bool
    status: str
    params_total: int
    params_active: int
    flops_per_token: float
    tokens_per_second: float | None
    """Median of its evaluations."""
    peak_memory_bytes: int | None
    wall_seconds: float | None
    """Training alone, up to its last evaluation."""
    device: str | None
    points: list[ComparePoint]


class IntervalView(View):
    """A mean over seeds, and its 95% confidence interval where there are two seeds or more."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


class MeasureView(View):
    """A number of a variant beside the control's; a mean over the seeds that are compared."""

    value: float | None
    control: float | None
    percent: float | None
    """`100 * (value / control - 1)`; None where one is not known, or the hardware differs."""


class TimeToTarget(View):
    """Training seconds until the control's loss at the last step where both were measured."""

    target_loss: float
    seconds: float | None
    """None where the variant has not come to that loss."""
    control_seconds: float | None
    percent: float | None
    at_most: bool
    """A time is known only as one by which the loss had been reached."""


class VariantPoint(View):
    """A variant at one step, over the seeds that have an evaluation there."""

    at: int
    step: int
    eval_loss: float | None
    control_loss: float | None
    gap: IntervalView | None
    invalid: str | None
    waiting: str | None


class VariantCompare(View):
    """One variant against the control: paired means over seeds at the last step where all are matched."""

    variant: str
    is_control: bool
    seeds: list[int]
    """Those that the means are over."""
    at: int | None
    """The step (or tokens) that all of this is said at."""
    eval_loss: float | None
    control_loss: float | None
    gap: IntervalView | None
    quality_drop_percent: IntervalView | None
    perplexity_change_percent: IntervalView | None
    fewer_parameters_percent: float
    band: str | None
    band_within: list[str]
    """The bands at the two ends of the interval, where they differ."""
    params_total: MeasureView
    params_active: MeasureView
    flops_per_token: MeasureView
    tokens_per_second: MeasureView
    peak_memory_bytes: MeasureView
    time_to_target: TimeToTarget | None
    invalid: str | None
    waiting: str | None
    notes: list[str]
    """What is left out, and why; what speaks for a variant whose band is weak."""
    points: list[VariantPoint]


class CompareView(View):
    experiment_id: str
    control: str
    reference: str | None = None
    """The pinned curve that variants are compared with where the control has broken off."""
    axis: Literal["step", "tokens"]
    variants: list[VariantCompare]
    """The control first, then in the plan's order."""
    rows: list[CompareRow]
