"""What is read: one model for each noun of the API. Times are UTC; what is not finite travels as a string."""

from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from orchestrator.protocol.report import Evaluation
from orchestrator.protocol.wire import JsonObject

T = TypeVar("T")


class View(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", protected_namespaces=())


class Page(View, Generic[T]):
    """One page of a list; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None = None


class PolicyName(View):
    name: str
    hash: str


class StageView(View):
    name: str
    steps: int
    status: str
    closed_at: datetime | None
    conclusion: str | None


class WaitingVariant(View):
    """A variant whose config follows from a result."""

    name: str
    stage: str
    kind: str
    """`best_of` or `around_winner`."""
    sources: list[str]
    overrides: JsonObject
    status: str
    """`waiting`, `resolved` or `dropped`."""
    detail: str | None
    """What it was made from, or why it is not trained."""


class BudgetView(View):
    """Slot-hours: what may be spent, what is, and what live workers still need to come to their targets."""

    slot_hours: float
    spent: float
    committed: float


class ExperimentView(View):
    id: str
    name: str
    question: str
    status: str
    conclusion: str | None
    held: str | None
    """Why its gates hold, where they do."""
    priority: int
    reference: str | None
    """The stored curve that stands in for a control that died."""
    shadow: str | None
    """The policy whose decisions are logged and never acted upon."""
    budget: BudgetView | None = None
    """Of one experiment by itself; a list leaves it out, as it does `waiting`."""
    waiting: list[WaitingVariant] = []
    """Variants that a result chooses the base of, whatever became of them."""
    control: str
    policy: PolicyName
    spec: JsonObject
    spec_hash: str
    stages: list[StageView]
    created_at: datetime
    ended_at: datetime | None


class EvaluationView(Evaluation):
    """An evaluation as it was reported, and the attempt that did."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, ser_json_inf_nan="strings", protected_namespaces=()
    )

    attempt: int


class RunView(View):
    id: str
    experiment_id: str
    variant: str
    seed: int
    is_control: bool
    status: str
    reason: str | None
    detail: str | None
    """The reason in a sentence."""
    stage: str
    step: int
    target_step: int
    attempts: int
    params_total: int
    params_active: int
    flops_per_token: float
    tokens_per_second: float | None
    best_eval_loss: float | None
    last_evaluation: EvaluationView | None
    gap: float | None
    """Last eval loss minus the control's at the same step or tokens; None where no comparison is sound."""
    config: JsonObject
    config_hash: str
    origin: JsonObject | None
    """Of a variant that a result chose: what it was made from, and why."""
    linked_run_id: str | None
    """The run of an equal config whose curve and checkpoints this one took over."""
    created_at: datetime
    ended_at: datetime | None


class AttemptView(View):
    id: str
    run_id: str
    number: int
    status: str
    slots: list[str]
    resumed_from_step: int | None
    step: int
    exit_code: int | None
    reason: str | None
    detail: str | None
    created_at: datetime
    ended_at: datetime | None


class SeriesView(View):
    """(step, value) of one metric, thinned evenly to at most `max_points`; first and last always kept."""

    name: str
    points: list[tuple[int, float]]
    total: int
    names: list[str]


class CriterionView(View):
    name: str
    verdict: str
    measured: float | None
    threshold: float | None
    text: str
    parts: list["CriterionView"] = []
    how: str | None = None
    """`all`, `any` or `not`: how the parts were combined."""


class DecisionView(View):
    id: str
    experiment_id: str
    run_id: str
    variant: str
    seed: int
    stage: str
    step: int
    kind: str
    reason: str
    author: str
    verdict: str
    text: str
    criteria: list[CriterionView]
    evidence: JsonObject
    policy: PolicyName
    created_at: datetime


class EventView(View):
    id: int
    kind: str
    experiment_id: str | None
    run_id: str | None
    text: str
    at: datetime


class LogView(View):
    text: str
    next_offset: int


class PlannedVariant(View):
    name: str
    stage: str
    is_control: bool
    overrides: JsonObject
    config_hash: str
    params_total: int
    params_active: int
    flops_per_token: float


class PlannedStage(View):
    name: str
    steps: int
    evaluations: int
    """Of each run, within the stage."""
    entrants: str
    """Who enters, in words."""
    seeds: list[int]
    points: list[int]
    """Steps at which runs wait, since the policy compares them with each other there."""
    most_runs: int
    new_runs: int
    """Of these, at most so many begin at step 0."""
    most_steps: int
    """Training steps over all runs, if every place is taken."""


class PlanView(View):
    """The preview of a spec: nothing is written."""

    name: str
    control: str
    policy: PolicyName
    spec_hash: str
    stages: list[PlannedStage]
    variants: list[PlannedVariant]
    waiting: list[WaitingVariant]
    left_out: list[str]
    """Levels of an axis that are another variant's config, in sentences."""
    seeds: list[int]
    runs: int
    """That can start at once, or when their stage opens."""
    most_runs: int
    most_steps: int
    tokens_per_step: int
    slot_hours: float | None
    """At most, where the control's config has been trained here before."""
    warnings: list[str]


class SlotView(View):
    id: str
    kind: str
    device: str
    run_id: str | None
    variant: str | None


class PolicyView(View):
    name: str
    version: int
    hash: str
    """Of what the document means to this service; empty where it names a criterion that is not registered."""
    document: dict[str, JsonValue]
