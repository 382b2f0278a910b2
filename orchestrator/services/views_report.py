"""Everything about one experiment in one document: what the report's page and a program read."""

from datetime import datetime

from pydantic import JsonValue

from orchestrator.protocol.report import Identity
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.views import (
    AttemptView,
    DecisionView,
    EvaluationView,
    EventView,
    ExperimentView,
    PolicyView,
    RunView,
    StageView,
    View,
)
from orchestrator.services.views_compare import CompareView


class Change(View):
    """A field that a variant has otherwise than the control; None stands for one that is not there."""

    field: str
    control: JsonValue
    variant: JsonValue


class VariantView(View):
    name: str
    is_control: bool
    stage: str
    """Where it entered."""
    overrides: JsonObject
    origin: JsonObject | None
    """Of a variant that a result chose: what it was made from, and by which losses."""
    config: JsonObject
    config_hash: str
    changes: list[Change]
    """Against the control's config, dotted, in the order of their names."""


class RunReport(RunView):
    identity: Identity | None
    """As its newest attempt reported: what makes it comparable, and what it ran on."""
    evaluations: list[EvaluationView]
    attempt_list: list[AttemptView]


class ServiceView(View):
    """The service that wrote a report: its version, and the code it runs where that lies in a repository."""

    version: str
    python: str
    code: dict[str, str]


class ReportView(View):
    experiment: ExperimentView
    policy: PolicyView
    stages: list[StageView]
    variants: list[VariantView]
    runs: list[RunReport]
    compare: CompareView
    decisions: list[DecisionView]
    shadow_decisions: list[DecisionView]
    """What the shadow policy would have decided; empty without one."""
    events: list[EventView]
    service: ServiceView
    written_at: datetime
