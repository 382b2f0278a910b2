"""What is decided after each evaluation, from the run's own curve alone."""

from orchestrator.domain.curves import Curve, StageView
from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.rules.cases import own_case
from orchestrator.rules.criteria import Case
from orchestrator.rules.criteria_health import healthy_routing, not_diverged
from orchestrator.rules.frozen import curve_evidence
from orchestrator.rules.nodes import ask
from orchestrator.rules.policies import Policy


def judge_evaluation(subject: Curve, *, stage: StageView, policy: Policy) -> Judgement:
    """The decision on the subject's last evaluation, by precedence: diverged, unhealthy, the gate, stop.

    It never sees the control or another run, so the order in which reports arrive cannot change it.
    The promote criteria are the gate's, and so is the stop rule at the gate's own step, where a
    promotion goes before a stop. Raises `ValueError` for a curve without an evaluation.
    """
    if not subject.evaluations:
        raise ValueError("a curve without an evaluation cannot be judged")
    step = subject.evaluations[-1].step
    case = own_case(subject, step, policy)
    guard = not_diverged(policy.diverged, case)
    health = healthy_routing(policy.unhealthy_routing, case)
    stop = stop_result(policy, case)
    kind, reason, verdict, text = _decide(subject, step, stage, guard, health, stop)
    return Judgement(
        kind=kind,
        reason=reason,
        verdict=verdict,
        text=text,
        criteria=(guard, health, stop),
        evidence={"stage": stage.name, "stage_steps": stage.steps, **curve_evidence(subject, step)},
    )


def stop_result(policy: Policy, case: Case) -> CriterionResult:
    """The policy's stop rule, asked of a case."""
    return ask(policy.stop, case)._replace(name="stop")


Decided = tuple[DecisionKind, str, Verdict, str]


def _decide(
    subject: Curve,
    step: int,
    stage: StageView,
    guard: CriterionResult,
    health: CriterionResult,
    stop: CriterionResult,
) -> Decided:
    """Kind, reason, the verdict of the rule that decided, and the sentence."""
    control = subject.is_control
    if guard.verdict is Verdict.FAIL:
        return DecisionKind.FAIL, "diverged", Verdict.FAIL, f"diverged: {guard.text}"
    if health.verdict is Verdict.FAIL and not control:
        return DecisionKind.STOP, "unhealthy_routing", Verdict.FAIL, f"unhealthy routing: {health.text}"
    if step >= stage.steps:
        return _at_the_end(stage)
    if stop.verdict is Verdict.PASS and not control:
        return DecisionKind.STOP, "plateau", Verdict.PASS, f"every stop criterion is met: {_said(stop)}"
    if step in stage.points:
        text = f"waits at step {step} for the others: the field is compared there"
        return DecisionKind.HOLD, "at_point", Verdict.INCONCLUSIVE, text
    return DecisionKind.CONTINUE, *_going_on(stop, control, health)


def _at_the_end(stage: StageView) -> Decided:
    if stage.is_last:
        text = f"trained to the last step of {stage.name}, {stage.steps}"
        return DecisionKind.CONTINUE, "finished", Verdict.PASS, text
    text = f"has its evaluation at step {stage.steps}; the gate of {stage.name} decides when all have theirs"
    return DecisionKind.HOLD, "at_gate", Verdict.INCONCLUSIVE, text


def _going_on(stop: CriterionResult, control: bool, health: CriterionResult) -> tuple[str, Verdict, str]:
    """Why a run continues: the control always, another while it improves or while it is too early."""
    if control:
        also = f"; its routing is unhealthy: {health.text}" if health.verdict is Verdict.FAIL else ""
        return "control", stop.verdict, f"the control is the anchor and no criterion stops it{also}"
    if stop.verdict is Verdict.INCONCLUSIVE:
        return "inconclusive", stop.verdict, f"it is too early to stop: {_said(stop)}"
    improving = _find(stop, "no_improvement")
    if improving is not None and improving.verdict is Verdict.FAIL:
        return "improving", stop.verdict, f"still improving: {improving.text}"
    return "stop_criteria_not_met", stop.verdict, f"not every stop criterion is met: {_said(stop)}"


def _find(result: CriterionResult, name: str) -> CriterionResult | None:
    if result.name == name:
        return result
    return next((found for part in result.parts if (found := _find(part, name)) is not None), None)


def _said(result: CriterionResult) -> str:
    """The sentences of a rule's parts without its grammar."""
    return "; ".join(part.text for part in result.parts) or result.text
