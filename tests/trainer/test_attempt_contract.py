"""A hand-written loop under `Attempt`: it reports, waits, obeys and ends as the worker's contract says."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
from attempt_rigs import FACTS, IDENTITY, Toy, assign
from listening_service import ListeningService
from trainer_rigs import ROOT, evaluations, exit_record, reports, series

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.report import Directive, DirectiveKind, Phase
from trainer.attempt import Attempt
from trainer.problems import DataProblem

LONG = {"target_step": 1_000_000, "horizon_step": 1_000_000, "eval_every": 1_000_000}


def tell(kind: DirectiveKind, target: int = 0, reason: str = "") -> Directive:
    return Directive(kind=kind, target_step=target, reason=reason)


def test_without_a_service_it_trains_to_the_target(tmp_path: Path) -> None:
    toy = Toy()
    assert toy.run(assign(tmp_path)) == 0
    assert toy.trained == list(range(1, 21))
    first, *_, last = told = reports(tmp_path)
    assert (first.phase, first.resumed_from_step) == (Phase.STARTING, 0)
    assert first.identity is not None
    assert (first.identity.horizon_step, first.identity.tokens_per_step) == (40, 8)
    assert last.exit is not None
    assert last.exit.code == exit_record(tmp_path)["code"] == 0
    assert series(tmp_path, "train_loss") == {step: 1 / step for step in range(1, 21)}
    evaluated = [(report.sequence, e.step) for report in told for e in report.evaluations]
    saved = [(report.sequence, c.step) for report in told for c in report.checkpoints]
    assert [step for _, step in evaluated] == [step for _, step in saved] == [10, 20]
    assert all(one[0] <= other[0] for one, other in zip(evaluated, saved, strict=True))
    found = evaluations(tmp_path)
    assert sorted(found) == [10, 20]
    assert found[20].tokens == 160
    assert found[20].train_loss == pytest.approx(sum(1 / step for step in range(11, 21)) / 10)
    assert found[20].learning_rate == 0.1
    assert found[20].perplexity == pytest.approx(1.0513, abs=1e-4)
    assert found[20].wall_seconds > found[10].wall_seconds > 0


def test_at_the_gate_it_saves_reports_waits_and_goes_on(tmp_path: Path, service: ListeningService) -> None:
    asked: list[tuple[int, bool]] = []

    def decide(phase: Phase, step: int) -> Directive:
        if phase is not Phase.AT_GATE:
            return tell(DirectiveKind.CONTINUE, 20)
        asked.append((step, (tmp_path / f"checkpoints/step-{step:08d}/manifest.json").is_file()))
        if step == 20:
            return tell(DirectiveKind.WAIT if len(asked) < 4 else DirectiveKind.CONTINUE, 40)
        return tell(DirectiveKind.STOP, 40, "finished")

    service.decide = decide
    toy = Toy()
    assert toy.run(assign(tmp_path, service=service.address())) == 0
    assert toy.trained == list(range(1, 41))
    assert set(asked) == {(20, True), (40, True)}
    gates = [r for r in reports(tmp_path) if r.phase is Phase.AT_GATE]
    assert [(g.step, g.evaluations[0].step, g.checkpoints[0].step) for g in gates] == [(20,) * 3, (40,) * 3]
    assert sorted(service.reports) == [r.sequence for r in reports(tmp_path)]


@pytest.mark.parametrize(
    ("kind", "code"), [(DirectiveKind.STOP, ExitCode.STOPPED), (DirectiveKind.YIELD, ExitCode.AT_GATE)]
)
def test_a_directive_in_mid_run_is_obeyed_with_a_checkpoint(
    kind: DirectiveKind, code: ExitCode, tmp_path: Path, service: ListeningService
) -> None:
    service.decide = lambda _phase, step: tell(kind if step else DirectiveKind.CONTINUE, 1_000_000, "plateau")
    assert Toy().run(assign(tmp_path, service=service.address(), **LONG)) == code
    record = exit_record(tmp_path)
    assert record["message"] == "plateau"
    assert reports(tmp_path)[-2].checkpoints[0].step == record["step"] > 0


def test_a_signal_loses_nothing(tmp_path: Path) -> None:
    calm, shaken = Toy(), Toy()
    calm.run(assign(tmp_path / "calm"))
    shaken.interrupt_at = 17
    assert shaken.run(assign(tmp_path / "1")) == ExitCode.PREEMPTED
    assert exit_record(tmp_path / "1")["step"] == 17
    shaken.interrupt_at = 0
    assert shaken.run(assign(tmp_path / "2", attempt=2, resume_from=(str(tmp_path / "1"),))) == 0
    assert shaken.trained == calm.trained
    assert shaken.total == calm.total
    assert reports(tmp_path / "2")[0].resumed_from_step == 17
    timing = {"tokens_per_second", "wall_seconds", "peak_memory_bytes"}
    expected = evaluations(tmp_path / "calm")[20].model_dump(exclude=timing)
    assert evaluations(tmp_path / "2")[20].model_dump(exclude=timing, warnings=False) == pytest.approx(
        expected, nan_ok=True
    )


def test_a_signal_at_the_target_reports_the_evaluation_with_its_checkpoint(
    tmp_path: Path, service: ListeningService
) -> None:
    toy = Toy()
    toy.interrupt_at = 20
    assert toy.run(assign(tmp_path, service=service.address())) == ExitCode.PREEMPTED
    report = reports(tmp_path)[-2]
    assert [e.step for e in report.evaluations] == [c.step for c in report.checkpoints] == [20]


def test_a_run_resumed_at_its_gate_reports_its_evaluation_again(
    tmp_path: Path, service: ListeningService
) -> None:
    Toy().run(assign(tmp_path / "1"))
    service.decide = lambda phase, _step: tell(
        DirectiveKind.STOP if phase is Phase.AT_GATE else DirectiveKind.WAIT, 20, "finished"
    )
    toy, before = Toy(), str(tmp_path / "1")
    again = assign(tmp_path / "2", attempt=2, resume_from=(before,), service=service.address())
    assert toy.run(again) == 0
    assert toy.trained == []
    gate = next(r for r in reports(tmp_path / "2") if r.phase is Phase.AT_GATE)
    assert gate.evaluations[0].model_dump_json() == evaluations(tmp_path / "1")[20].model_dump_json()
    assert gate.checkpoints[0].path.startswith(before)


def test_a_silent_service_ends_the_wait_at_the_gate(tmp_path: Path) -> None:
    gone = ListeningService(target=20)
    gone.close()
    assignment = assign(tmp_path, service=gone.address(), gate_wait_seconds=0.3)
    assert Toy().run(assignment) == ExitCode.AT_GATE
    assert "silent" in exit_record(tmp_path)["message"]


def test_a_stale_epoch_ends_it(tmp_path: Path, service: ListeningService) -> None:
    problem = {"type": "https://assay/problems/stale_epoch", "status": 409}
    service.refuse = lambda _path, _body: (409, problem, {}) if service.reports else None
    assert Toy().run(assign(tmp_path, service=service.address(), **LONG)) == ExitCode.STALE_EPOCH


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory"), ExitCode.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "no space left"), ExitCode.DISK_FULL),
        (ConfigProblem([("lr", "too large")]), ExitCode.CONFIG_ERROR),
        (DataProblem("no text"), ExitCode.DATA_ERROR),
        (ZeroDivisionError("of mine"), ExitCode.CRASHED),
    ],
)
def test_every_error_has_its_code_and_is_told(error: Exception, code: ExitCode, tmp_path: Path) -> None:
    def fails(_attempt: Attempt, step: int) -> None:
        if step == 5:
            raise error

    toy = Toy()
    toy.after = fails
    assert toy.run(assign(tmp_path)) == code
    last = reports(tmp_path)[-1].exit
    assert last is not None
    assert (
        (last.code, last.step) == (code, 5) == (exit_record(tmp_path)["code"], exit_record(tmp_path)["step"])
    )
    assert sorted(series(tmp_path, "train_loss")) == [1, 2, 3, 4, 5]


def test_an_evaluation_is_never_told_without_its_checkpoint(tmp_path: Path) -> None:
    class FullDisk(Toy):
        def save(self, folder: Path) -> None:
            raise OSError(errno.ENOSPC, "no space left")

    assert FullDisk().run(assign(tmp_path)) == ExitCode.DISK_FULL
    assert evaluations(tmp_path) == {}
    assert max(series(tmp_path, "train_loss")) == 10


def test_losses_that_are_not_finite_are_counted_and_a_row_of_them_ends_it(tmp_path: Path) -> None:
    assert Toy(lambda step: nan if step in {3, 4, 7} else 1.0).run(assign(tmp_path / "some")) == 0
    measured = evaluations(tmp_path / "some")[10]
    assert (measured.nan_events, measured.train_loss) == (3, 1.0)
    assert Toy(lambda step: nan if step > 3 else 1.0).run(assign(tmp_path / "row")) == ExitCode.DIVERGED
    assert exit_record(tmp_path / "row")["step"] == 8


def forgets_to_evaluate(attempt: Attempt) -> None:
    attempt.identify(FACTS, **IDENTITY)
    for _ in attempt.steps(lambda folder: None):
        attempt.log(train_loss=1.0)


def evaluates_always(attempt: Attempt) -> None:
    attempt.identify(FACTS, **IDENTITY)
    for _ in attempt.steps(lambda folder: None):
        attempt.evaluated(1.0)


def logs_no_loss(attempt: Attempt) -> None:
    attempt.identify(FACTS, **IDENTITY)
    for _ in attempt.steps(lambda folder: None):
        if attempt.evaluation_due:
            attempt.evaluated(1.0)


def breaks(attempt: Attempt) -> None:
    attempt.identify(FACTS, **IDENTITY)
    for _ in attempt.steps(lambda folder: None):
        break


@pytest.mark.parametrize(
    ("loop", "words", "code"),
    [
        (forgets_to_evaluate, "step 10 was not evaluated", 20),
        (evaluates_always, "ask `evaluation_due` first", 20),
        (logs_no_loss, "log a `train_loss`", 20),
        (lambda attempt: next(attempt.steps(lambda folder: None)), "call `identify`", 20),
        (lambda attempt: attempt.identify(FACTS, evaluation_set="", tokenizer="bytes"), "evaluation_set", 20),
        (breaks, "before it was told to end", 1),
    ],
)
def test_a_loop_that_does_not_do_its_part_is_told_what_to_do(
    loop: Callable[[Attempt], Any], words: str, code: int, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as left, Attempt(assign(tmp_path)) as attempt:
        loop(attempt)
    assert left.value.code == code
    assert words in exit_record(tmp_path)["message"]


@pytest.mark.parametrize("arguments", [[], ["nowhere.json"], [__file__]])
def test_an_assignment_that_cannot_be_read_is_a_config_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        Attempt.from_arguments(arguments)
    assert left.value.code == ExitCode.CONFIG_ERROR


def test_no_tensor_library_is_loaded() -> None:
    code = (
        "import sys, trainer.attempt, trainer.kind; sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_example_as_a_process_heeds_sigterm_at_its_gate(
    tmp_path: Path, service: ListeningService
) -> None:
    service.decide = lambda _phase, _step: tell(DirectiveKind.WAIT, 20)
    config = {"lr": 30.0, "batch_tokens": 64}
    file = tmp_path / "assignment.json"
    file.write_text(assign(tmp_path, config=config, service=service.address()).model_dump_json())
    program = str(ROOT / "docs" / "examples" / "hand_written_loop.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, program, str(file)], env=environment)
    service.wait_for(lambda: any(beat["phase"] == "at_gate" for beat in service.heartbeats))
    process.terminate()
    assert process.wait(30) == ExitCode.PREEMPTED
    assert exit_record(tmp_path)["step"] == 20
    assert sorted(service.reports) == [r.sequence for r in reports(tmp_path)]
