"""Verdicts in three-valued logic, and the frozen results that carry their evidence."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

from orchestrator.protocol.wire import JsonObject


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105 - the word of the protocol, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"
    """A comparison that is not sound: counts as inconclusive and is shown as invalid."""


class CriterionResult(NamedTuple):
    """What one criterion saw. `text` is a sentence; `parts` are the results it was combined from.

    A tuple and no dataclass: a gate makes thousands, and a frozen dataclass takes four times as long to make.
    """

    name: str
    verdict: Verdict
    text: str
    measured: float | None = None
    threshold: float | None = None
    parts: tuple["CriterionResult", ...] = ()
    how: Literal["all", "any", "not"] | None = None
    """How the parts were combined, where they were."""


def criterion_document(result: CriterionResult) -> JsonObject:
    """The result with its parts as JSON, as a decision's row holds it."""
    return {
        "name": result.name,
        "verdict": result.verdict,
        "text": result.text,
        "measured": result.measured,
        "threshold": result.threshold,
        "parts": [criterion_document(part) for part in result.parts],
        "how": result.how,
    }


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Fails on any fail, passes when all pass, else inconclusive. An empty sequence passes."""
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if all(v is Verdict.PASS for v in verdicts) else Verdict.INCONCLUSIVE


def any_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Passes on any pass, fails when all fail, else inconclusive. An empty sequence fails."""
    if Verdict.PASS in verdicts:
        return Verdict.PASS
    return Verdict.FAIL if all(v is Verdict.FAIL for v in verdicts) else Verdict.INCONCLUSIVE


def negate(verdict: Verdict) -> Verdict:
    """Pass and fail change places; what is not known stays not known."""
    return {Verdict.PASS: Verdict.FAIL, Verdict.FAIL: Verdict.PASS}.get(verdict, verdict)


def combine(name: str, how: Literal["all", "any"], parts: Sequence[CriterionResult]) -> CriterionResult:
    """The parts as one result. Its sentence is that of what settled the verdict; the parts hold the rest."""
    verdicts = [part.verdict for part in parts]
    verdict = all_of(verdicts) if how == "all" else any_of(verdicts)
    if not parts:
        text = "there is nothing to meet"
    elif how == "all" and verdict is Verdict.PASS:
        text = "; ".join(part.text for part in parts)
    else:
        text = next((part.text for part in parts if part.verdict is verdict), parts[0].text)
    return CriterionResult(name, verdict, text, parts=tuple(parts), how=how)
