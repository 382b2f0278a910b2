"""Every decision of an experiment made once more from the recorded rows, and compared with the log."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from orchestrator.domain.curves import upto
from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.evidence import criterion_document
from orchestrator.domain.ids import spell
from orchestrator.rules.judge import judge_evaluation
from orchestrator.services import choose, points, promote
from orchestrator.services.context import Context
from orchestrator.services.gates import Sitting, rule_again, see_again, sit
from orchestrator.services.views_replay import Difference, NotReplayed, ReplayView
from orchestrator.store import journal
from orchestrator.store.database import to_json
from orchestrator.store.histories import load_curves
from orchestrator.store.records import DecisionRecord, GateRow, RunRecord

FIELDS = ("kind", "reason", "verdict", "text", "criteria", "evidence")
"""What of a decision is compared."""

BY_CLOCK = "it followed from the clock or from how a worker ended, which no curve tells"

BY_DISK = "it followed from a damaged checkpoint, which no curve tells"

TOO_OLD = "it was recorded before decisions kept what they were made from"

_BY_RULE = re.compile(r"/(evaluation|gate)(-retry-\d+)?$")
"""The end of the key of a decision that a rule made from curves."""


@dataclass(frozen=True)
class Replay:
    """An experiment's rows, read once."""

    sitting: Sitting

    @cached_property
    def runs(self) -> Mapping[int, RunRecord]:
        return {run.id: run for run in self.sitting.runs}

    @cached_property
    def gates(self) -> Mapping[int, GateRow]:
        found = journal.gates_of(self.sitting.connection, self.sitting.experiment.id)
        return {gate.id: gate for gate in found}

    @cached_property
    def positions(self) -> Mapping[str, int]:
        return {stage.name: stage.position for stage in self.sitting.stages}

    @cached_property
    def judged(self) -> dict[int, Mapping[int, Judgement]]:
        """By gate, what the rules say of each of its runs; filled as gates are asked for."""
        return {}

    def again(self, decision: DecisionRecord) -> Judgement | None:
        """The judgement that the rules make today from the same inputs; None where no rule made it."""
        if decision.attempt is not None:
            return self._of_evaluation(decision, decision.attempt)
        gate = self.gates.get(decision.gate_id) if decision.gate_id is not None else None
        if gate is None:
            return None
        if decision.reason == "around_winner":
            return self._around(decision, gate)
        if gate.id not in self.judged:
            self.judged[gate.id] = self._of_gate(gate)
        return self.judged[gate.id].get(decision.run_id)

    def _of_evaluation(self, decision: DecisionRecord, attempt: int) -> Judgement:
        run, protocol = self.runs[decision.run_id], self.sitting.protocol
        curve = load_curves(self.sitting.connection, [run], {run.id: attempt})[run.id]
        stage = protocol.stage(self.positions[decision.stage])
        return judge_evaluation(upto(curve, decision.step), stage=stage, policy=protocol.policy)

    def _of_gate(self, gate: GateRow) -> Mapping[int, Judgement]:
        connection, protocol = self.sitting.connection, self.sitting.protocol
        seen = see_again(connection, gate)
        if gate.phase == "point":
            return points.judge_again(seen, protocol, gate.stage, gate.step)
        if gate.phase == "choose":
            name = str(gate.inputs["variant"])
            judgement = choose.origin_judgement(name, choose.choose_again(seen, protocol, gate.step))
            return {run.id: judgement for run in self.runs.values() if run.variant == name}
        rule = rule_again(gate.inputs["rule"])  # type: ignore[arg-type]  # `rule_inputs` wrote it
        if gate.phase == "early":
            missing = int(str(gate.inputs["missing"]))
            return promote.early_again(connection, protocol, seen, gate.stage, rule, missing).judgements
        return promote.close_again(connection, protocol, seen, gate.stage, rule).judgements

    def _around(self, decision: DecisionRecord, gate: GateRow) -> Judgement | None:
        """The first of the gate's winners, once more."""
        seen = see_again(self.sitting.connection, gate)
        rule = rule_again(gate.inputs["rule"])  # type: ignore[arg-type]  # `rule_inputs` wrote it
        outcome = promote.close_again(self.sitting.connection, self.sitting.protocol, seen, gate.stage, rule)
        if not outcome.winners:
            return None
        return choose.around_judgement(self.runs[decision.run_id].variant, outcome.winners[0], decision.stage)


def replay(context: Context, experiment_id: int) -> ReplayView:
    """What the rules decide today from the rows of an experiment, beside what they decided then.

    What a person decided is not judged again, nor what followed from the clock. Raises `Missing`.
    """
    with context.database.read() as connection:
        sitting = sit(connection, context, experiment_id)
        every = journal.list_decisions(connection, experiment_id=experiment_id, limit=journal.MOST)
        again = Replay(sitting)
        left_out = [found for row in every if (found := _left_out(row)) is not None]
        asked = [row for row in every if _left_out(row) is None]
        differing = [difference for row in asked for difference in _compare(again, row)]
    wrong = {difference.decision_id for difference in differing}
    return ReplayView(
        experiment_id=spell("exp", experiment_id),
        decisions=len(every),
        reproduced=len(asked) - len(wrong),
        exact=bool(asked) and not wrong,
        differences=differing,
        not_replayed=left_out,
    )


def _left_out(row: DecisionRecord) -> NotReplayed | None:
    id_ = spell("dec", row.id)
    if row.author != journal.POLICY:
        return NotReplayed(decision_id=id_, why=f"{row.author} decided it")
    if row.kind == DecisionKind.FALL_BACK:
        return NotReplayed(decision_id=id_, why=BY_DISK)
    if row.attempt is None and row.gate_id is None:
        by_rule = bool(row.criteria) or _BY_RULE.search(row.key) is not None
        return NotReplayed(decision_id=id_, why=TOO_OLD if by_rule else BY_CLOCK)
    return None


def _compare(again: Replay, row: DecisionRecord) -> Iterator[Difference]:
    judgement = again.again(row)
    told = {
        "decision_id": spell("dec", row.id),
        "variant": again.runs[row.run_id].variant,
        "stage": row.stage,
        "step": row.step,
    }
    if judgement is None:
        yield Difference(**told, field="kind", recorded=row.kind, recomputed="no decision")
        return
    now = _as_stored(judgement)
    for field in FIELDS:
        recorded = getattr(row, field)
        if recorded != now[field]:
            yield Difference(**told, field=field, recorded=recorded, recomputed=now[field])


def _as_stored(judgement: Judgement) -> dict[str, JsonValue]:
    """The judgement as the log would hold it."""
    values = {
        "kind": str(judgement.kind),
        "reason": str(judgement.reason),
        "verdict": str(judgement.verdict),
        "text": judgement.text.replace("\x00", "\ufffd"),
        "criteria": [criterion_document(criterion) for criterion in judgement.criteria],
        "evidence": judgement.evidence,
    }
    stored: dict[str, JsonValue] = json.loads(to_json(values))
    return stored
