"""A decision: a small frozen value that carries its verdict, its criteria and the evidence they saw."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.protocol.wire import JsonObject


class DecisionKind(StrEnum):
    CONTINUE = "continue"
    STOP = "stop"
    PROMOTE = "promote"
    DECLINE = "decline"
    HOLD = "hold"
    FAIL = "fail"


@dataclass(frozen=True)
class Judgement:
    """What the rules decide about one run at one step. `reason` is a `Reason` or a word of the rules."""

    kind: DecisionKind
    reason: str
    verdict: Verdict
    text: str
    criteria: tuple[CriterionResult, ...] = ()
    evidence: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class GateOutcome:
    """What a closing stage decides about each of its runs, by run id, and the sentence of the stage."""

    judgements: Mapping[int, Judgement]
    winners: tuple[str, ...]
    """Variants promoted, best first; the control is never among them."""
    conclusion: str
