"""Workers against a real HTTP server: they report, obey, survive its absence, and leave when fenced."""

import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from listening_service import ListeningService
from trainer_rigs import (
    evaluations,
    exit_record,
    finish,
    make_assignment,
    reports,
    start_work,
    tiny_config,
    work_here,
)

from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import Directive, DirectiveKind, Phase
from trainer.contract.pace import Pace
from trainer.contract.reporter import Reporter

LONG = {"target_step": 100_000, "horizon_step": 100_000, "eval_every": 50}


def _tell(kind: DirectiveKind, target: int = 0, reason: str = "") -> Directive:
    return Directive(kind=kind, target_step=target, reason=reason)


def test_at_the_gate_it_waits_goes_on_when_told_and_finishes(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    asked: list[int] = []

    def decide(phase: Phase, step: int) -> Directive:
        if phase is not Phase.AT_GATE:
            return _tell(DirectiveKind.CONTINUE, 20)
        asked.append(step)
        if asked.count(20) < 4:
            return _tell(DirectiveKind.WAIT, 20)
        return _tell(DirectiveKind.STOP, 30, "finished") if step == 30 else _tell(DirectiveKind.CONTINUE, 30)

    service.decide = decide
    config = tiny_config("recurrent_shared_moe")
    assignment = make_assignment(tmp_path / "a", cache, config=config, service=service.address())
    work_here(assignment)

    assert asked.count(20) >= 4
    sent = [service.reports[n] for n in sorted(service.reports)]
    assert list(service.reports) == list(range(1, len(sent) + 1))
    assert [
        json.loads(r.model_dump_json(exclude_defaults=True)) for r in reports(assignment.directory)
    ] == sent
    first, last = reports(assignment.directory)[0], reports(assignment.directory)[-1]
    assert first.phase is Phase.STARTING
    assert first.identity is not None
    assert (first.identity.warmup_steps, first.identity.decay_from_step) == (1, None)  # cosine: 2% of 30
    assert first.resumed_from_step == 0
    assert last.exit is not None
    assert (last.exit.code, last.exit.step) == (ExitCode.FINISHED, 30)
    gates = [r for r in reports(assignment.directory) if r.phase is Phase.AT_GATE]
    assert [g.step for g in gates] == [20, 30]
    before = [[r for r in reports(assignment.directory) if r.sequence < g.sequence] for g in gates]
    for gate, told in zip(gates, before, strict=True):  # its evaluation and its checkpoint were told first
        assert [r.evaluations[0].step for r in told if r.evaluations][-1] == gate.step
        assert [r.checkpoints[0].step for r in told if r.checkpoints][-1] == gate.step
    evaluated = evaluations(assignment.directory)[20]
    routing = evaluated.routing
    assert routing is not None
    assert len(routing.layer_loads) == 2
    assert evaluated.aux_loss is not None


@pytest.mark.parametrize(
    ("kind", "code"), [(DirectiveKind.STOP, ExitCode.STOPPED), (DirectiveKind.YIELD, ExitCode.AT_GATE)]
)
def test_a_stop_in_mid_run_is_obeyed_with_a_checkpoint(
    kind: DirectiveKind, code: ExitCode, tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    service.decide = lambda _phase, step: _tell(
        kind if step >= 50 else DirectiveKind.CONTINUE, 100_000, "plateau"
    )
    assignment = make_assignment(tmp_path / "a", cache, service=service.address(), **LONG)
    work_here(assignment, code)
    record = exit_record(assignment.directory)
    assert record["message"] == "plateau"
    assert 50 <= record["step"] < 100_000
    assert (tmp_path / "a" / "checkpoints" / f"step-{record['step']:08d}" / "manifest.json").is_file()


def test_a_larger_target_in_mid_run_needs_no_gate(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    service.decide = lambda phase, _step: (
        _tell(DirectiveKind.STOP, 60, "finished")
        if phase is Phase.AT_GATE
        else _tell(DirectiveKind.CONTINUE, 60)
    )
    # The target is far enough that the first answer comes before it.
    assignment = make_assignment(
        tmp_path / "a", cache, service=service.address(), target_step=59, horizon_step=60
    )
    work_here(assignment)
    assert exit_record(assignment.directory)["step"] == 60


def test_a_run_resumed_at_its_gate_reports_its_evaluation_again(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    before = make_assignment(tmp_path / "1", cache)
    work_here(before)
    service.decide = lambda phase, _step: _tell(
        DirectiveKind.STOP if phase is Phase.AT_GATE else DirectiveKind.WAIT, 20, "finished"
    )
    again = make_assignment(
        tmp_path / "2", cache, attempt=2, resume_from=(before.directory,), service=service.address()
    )
    work_here(again)
    gate = next(r for r in reports(again.directory) if r.phase is Phase.AT_GATE)
    assert gate.evaluations[0] == evaluations(before.directory)[20]
    assert gate.checkpoints[0].path.startswith(before.directory)
    assert reports(again.directory)[0].resumed_from_step == 20


def test_a_service_that_comes_back_elsewhere_gets_everything(tmp_path: Path, cache: Path) -> None:
    gone = ListeningService(target=20)
    file = tmp_path / "address.json"
    address = gone.address(str(file))
    gone.close()
    assignment = make_assignment(tmp_path / "a", cache, service=address)
    process = start_work(assignment)
    spool = tmp_path / "a" / "spool.jsonl"
    while not spool.exists() or '"at_gate"' not in spool.read_text():
        assert process.poll() is None, process.communicate()

    back = ListeningService(target=20)
    back.decide = lambda phase, _step: _tell(
        DirectiveKind.STOP if phase is Phase.AT_GATE else DirectiveKind.CONTINUE, 20, "finished"
    )
    file.write_text(json.dumps({"url": back.url}))
    finish(process)
    back.close()
    assert sorted(back.reports) == [r.sequence for r in reports(assignment.directory)]


def test_without_a_service_it_leaves_the_gate_after_its_patience(tmp_path: Path, cache: Path) -> None:
    gone = ListeningService(target=20)
    gone.close()
    assignment = make_assignment(tmp_path / "a", cache, service=gone.address(), gate_wait_seconds=0.5)
    work_here(assignment, ExitCode.AT_GATE)
    assert [r.sequence for r in reports(assignment.directory)] == list(
        range(1, len(reports(assignment.directory)) + 1)
    )
    assert "silent" in exit_record(assignment.directory)["message"]


def test_a_stale_epoch_ends_it_without_another_post(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    refused: list[str] = []

    def refuse(path: str, body: dict[str, object]) -> tuple[int, dict[str, object], dict[str, str]] | None:
        if not service.reports:
            return None
        refused.append(path)
        return 409, {"type": "https://assay/problems/stale_epoch", "title": "stale", "status": 409}, {}

    service.refuse = refuse
    assignment = make_assignment(tmp_path / "a", cache, service=service.address(), **LONG)
    work_here(assignment, ExitCode.STALE_EPOCH)
    assert len(refused) == 1
    assert exit_record(assignment.directory)["code"] == ExitCode.STALE_EPOCH


def test_refused_and_deferred_reports_do_not_stop_the_others(
    tmp_path: Path, cache: Path, service: ListeningService, caplog: pytest.LogCaptureFixture
) -> None:
    deferred: list[int] = []

    def refuse(path: str, body: dict[str, object]) -> tuple[int, dict[str, object], dict[str, str]] | None:
        sequence = body.get("sequence")
        if sequence == 1 and len(deferred) < 2:
            deferred.append(1)
            return 503, {"type": "about:blank"}, {"Retry-After": "0.1"}
        if sequence == 2 and not body.get("notes"):
            return 422, {"type": "validation"}, {}
        return None

    service.refuse = refuse
    service.decide = lambda phase, _step: _tell(
        DirectiveKind.STOP if phase is Phase.AT_GATE else DirectiveKind.CONTINUE, 20, "finished"
    )
    assignment = make_assignment(tmp_path / "a", cache, service=service.address())
    work_here(assignment)
    assert len(deferred) == 2
    spooled = reports(assignment.directory)
    assert sorted(service.reports) == [r.sequence for r in spooled]  # no gap
    original, sent = spooled[1], dict(service.reports[2])
    assert original.points or original.evaluations
    assert "report 2 was refused (422 validation)" in sent.pop("notes")[0]
    assert sent == {"epoch": 1, "sequence": 2, "phase": original.phase, "step": original.step}
    assert "refused report 2" in caplog.text


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "60"}])
def test_heartbeats_go_on_while_a_report_is_put_off(
    headers: dict[str, str], tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    down, tries = [True], list[int]()

    def refuse(path: str, body: dict[str, object]) -> tuple[int, dict[str, object], dict[str, str]] | None:
        if path.endswith("reports") and down:
            tries.append(1)
            return 500, {"type": "about:blank"}, headers
        return None

    service.refuse = refuse
    (tmp_path / "a").mkdir()
    reporter = Reporter(make_assignment(tmp_path / "a", cache, service=service.address()))
    reporter.emit(Phase.TRAINING, 5)
    service.wait_for(lambda: len(service.heartbeats) >= 4, timeout=10)
    assert (service.heartbeats[-1]["phase"], service.heartbeats[-1]["step"]) == ("training", 5)
    assert len(tries) == 1 if headers else len(tries) > 1
    down.clear()
    reporter.close(ExitRecord(code=ExitCode.STOPPED, step=5))  # hurried: it waits no minute
    assert sorted(service.reports) == [1, 2]


def test_a_report_that_nothing_may_stand_in_for_is_passed_over(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    posted: list[int] = []

    def refuse(path: str, body: dict[str, object]) -> tuple[int, dict[str, object], dict[str, str]] | None:
        posted.append(int(str(body.get("sequence", 0))))
        return (409, {"type": "conflict"}, {}) if posted[-1] == 1 else None

    service.refuse = refuse
    (tmp_path / "a").mkdir()
    reporter = Reporter(make_assignment(tmp_path / "a", cache, service=service.address()))
    reporter.emit(Phase.STARTING, 0)
    reporter.close(ExitRecord(code=ExitCode.STOPPED, step=0))
    assert posted.count(1) == 2
    assert sorted(service.reports) == [2]


def test_neither_kind_of_message_starves_the_other() -> None:
    """A report that is always put off, a heartbeat every 10 s, each try taking 15 s to fail or succeed."""
    pace, now, sent = Pace(0.0), 0.0, list[bool]()
    for _ in range(20):
        at, is_report = pace.due(10.0, waiting=True)
        now = max(now, at) + 15
        sent.append(is_report)
        if is_report:
            pace.failed(now, report=True, reached=True, wait=1.0)
        else:
            pace.taken(now, report=False)
    assert 8 <= sum(sent) <= 12
    assert all(any(pair) for pair in pairwise(sent))  # no two heartbeats on end


def test_a_service_out_of_reach_is_tried_ever_less_often() -> None:
    pace, tries = Pace(0.0), list[float]()
    for _ in range(8):
        at, is_report = pace.due(0.05, waiting=False)
        tries.append(at)
        pace.failed(at, report=is_report, reached=False)
    gaps = [round(b - a, 6) for a, b in pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(3.0)


def test_reports_that_the_service_lost_are_sent_again(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    def decide(phase: Phase, step: int) -> Directive:
        if phase is Phase.AT_GATE and service.posts.count(1) == 1:
            service.reports.pop(1, None)  # as if restored from a backup
            return _tell(DirectiveKind.WAIT, 20)
        kind = DirectiveKind.STOP if phase is Phase.AT_GATE else DirectiveKind.CONTINUE
        return _tell(kind, 20, "finished")

    service.decide = decide
    assignment = make_assignment(tmp_path / "a", cache, service=service.address())
    work_here(assignment)
    assert service.posts.count(1) == 2


def test_heartbeats_while_nothing_is_reported_and_sigterm_at_a_gate(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    service.decide = lambda _phase, _step: _tell(DirectiveKind.WAIT, 20)
    assignment = make_assignment(tmp_path / "a", cache, service=service.address())
    process = start_work(assignment)
    service.wait_for(lambda: sum(b["phase"] == "at_gate" for b in service.heartbeats) >= 3)
    assert service.heartbeats[-1]["step"] == 20
    process.send_signal(signal.SIGTERM)
    finish(process, ExitCode.PREEMPTED)
