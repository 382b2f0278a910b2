"""A decision: a small frozen value that carries its verdict, its criteria and the evidence they saw."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from orchestrator.domain.curves import Curve
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.protocol.wire import JsonObject


class DecisionKind(StrEnum):
    CONTINUE = "continue"
    STOP = "stop"
    PROMOTE = "promote"
    DECLINE = "decline"
    HOLD = "hold"
    FAIL = "fail"
    FALL_BACK = "fall_back"
    """A checkpoint was damaged, so the run went on from the one before it."""


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
class PromoteRule:
    """How a stage chooses its entrants from the stage before."""

    best: int
    """The cap: at most this many variants, the control not counted."""
    eligible: Literal["policy", "all"] = "policy"
    """`policy`: only variants that pass the promote criteria; `all`: every sound one."""
    if_none: Literal["no_winner", "probation"] = "no_winner"
    """When none is eligible: close the branch, or carry the best one on."""
    eager: bool = False
    """A variant whose place no other can take any more goes on before the gate closes."""
    seeds: tuple[int, ...] | None = None
    """The seeds that the next stage trains; None: all that there are."""
    newcomers: bool = False
    """New variants begin in the next stage whatever this gate says, so the control goes on."""


@dataclass(frozen=True)
class Entrant:
    """One run of a stage that closes. `out`: it ended before the gate and is in no rank."""

    curve: Curve
    out: bool


@dataclass(frozen=True)
class GateOutcome:
    """What a closing stage decides about each of its runs, by run id, and the sentence of the stage."""

    judgements: Mapping[int, Judgement]
    winners: tuple[str, ...]
    """Variants promoted, best first; the control is never among them."""
    conclusion: str
