"""Hugging Face's `Trainer` under the callback, by the example of the documentation, in this process."""

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from listening_service import ListeningService
from trainer_rigs import ROOT, evaluations, exit_record, make_assignment, reports, series

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.report import Directive, DirectiveKind, Phase
from trainer.attempt import Attempt
from trainer.callback import AssayCallback, training_arguments

sys.path.insert(0, str(ROOT / "docs" / "examples"))
import huggingface_gpt2

CONFIG = {"n_embd": 8, "n_layer": 1, "batch_size": 2, "lr": 0.003}


def assign(directory: Path, **changes: Any) -> Assignment:
    fields = {"config": CONFIG, "eval_every": 4, "target_step": 8, "horizon_step": 12, "gate_steps": (8, 12)}
    return make_assignment(directory, directory / "cache", **{**fields, **changes})


def train(assignment: Assignment, interrupted: Callable[[], bool] = lambda: False) -> int:
    """The exit code of the example."""
    try:
        with Attempt(assignment, interrupted) as attempt:
            huggingface_gpt2.train(attempt)
    except SystemExit as left:
        return int(str(left.code))
    return 0


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to its horizon in one go."""
    directory = tmp_path_factory.mktemp("straight")
    assert train(assign(directory, target_step=12)) == 0
    return directory


def test_it_reports_what_the_contract_asks_for(straight: Path) -> None:
    first, *_, last = told = reports(straight)
    assert first.identity is not None
    assert first.identity.parameters_total == huggingface_gpt2.check(CONFIG).parameters_total
    assert last.exit is not None
    assert (last.exit.code, last.exit.step) == (0, 12)
    assert [e.step for r in told for e in r.evaluations] == [c.step for r in told for c in r.checkpoints]
    found = evaluations(straight)
    assert sorted(found) == sorted(series(straight, "train_loss")) == [4, 8, 12]
    assert found[12].eval_loss < found[4].eval_loss
    assert found[12].grad_norm > 0
    assert found[12].tokens == 12 * 2 * 32


def test_the_schedule_is_sized_to_the_horizon_and_a_resumed_run_is_the_same_curve(
    straight: Path, tmp_path: Path
) -> None:
    assert train(assign(tmp_path / "1")) == 0
    assert train(assign(tmp_path / "2", target_step=12, attempt=2, resume_from=(str(tmp_path / "1"),))) == 0
    assert reports(tmp_path / "2")[0].resumed_from_step == 8
    expected = evaluations(straight)
    assert evaluations(tmp_path / "1")[8].learning_rate == expected[8].learning_rate > 0
    assert evaluations(tmp_path / "2")[12].eval_loss == expected[12].eval_loss
    assert evaluations(tmp_path / "2")[12].train_loss == pytest.approx(expected[12].train_loss)


def test_a_signal_saves_at_the_step_boundary_and_a_torn_checkpoint_is_passed_over(
    straight: Path, tmp_path: Path
) -> None:
    asked = (
        count()
    )  # once before the first step and after each, once more at step 4, which saves: 8 is step 6
    before = assign(tmp_path / "1", target_step=12)
    assert train(before, lambda: next(asked) >= 7) == ExitCode.PREEMPTED
    assert exit_record(tmp_path / "1")["step"] == 6
    torn = tmp_path / "1" / "checkpoints" / "step-00000006" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-100])
    again = assign(tmp_path / "2", target_step=12, attempt=2, resume_from=(before.directory,))
    assert train(again) == 0
    first = reports(tmp_path / "2")[0]
    assert first.resumed_from_step == 4
    assert "optimizer.pt" in first.passed_over[0].problem
    assert evaluations(tmp_path / "2")[12].eval_loss == evaluations(straight)[12].eval_loss


def test_at_the_gate_it_waits_goes_on_in_the_same_process_and_finishes(
    straight: Path, tmp_path: Path, service: ListeningService
) -> None:
    asked: list[tuple[int, bool]] = []

    def decide(phase: Phase, step: int) -> Directive:
        kind = DirectiveKind.CONTINUE
        if phase is Phase.AT_GATE:
            asked.append((step, (tmp_path / f"checkpoints/step-{step:08d}/manifest.json").is_file()))
            kind = DirectiveKind.STOP if step == 12 else kind if len(asked) > 3 else DirectiveKind.WAIT
        return Directive(kind=kind, target_step=12 if asked else 8, reason="finished")

    service.decide = decide
    assert train(assign(tmp_path, service=service.address())) == 0
    assert exit_record(tmp_path)["step"] == 12
    assert {step for step, _ in asked} == {8, 12}
    assert all(saved for _, saved in asked)
    assert evaluations(tmp_path)[12].eval_loss == evaluations(straight)[12].eval_loss


def test_a_run_resumed_at_its_gate_trains_no_step_before_it_is_told(
    tmp_path: Path, service: ListeningService
) -> None:
    assert train(assign(tmp_path / "1")) == 0
    service.decide = lambda phase, _step: Directive(
        kind=DirectiveKind.YIELD if phase is Phase.AT_GATE else DirectiveKind.WAIT, target_step=8
    )
    again = assign(tmp_path / "2", attempt=2, resume_from=(str(tmp_path / "1"),), service=service.address())
    assert train(again) == ExitCode.AT_GATE
    assert exit_record(tmp_path / "2")["step"] == 8
    gate = next(r for r in reports(tmp_path / "2") if r.phase is Phase.AT_GATE)
    assert gate.evaluations[0].eval_loss == evaluations(tmp_path / "1")[8].eval_loss


def test_arguments_that_the_attempt_decides_are_refused_and_the_filter_of_nan_is_off(tmp_path: Path) -> None:
    attempt = Attempt(assign(tmp_path))
    with pytest.raises(ConfigProblem, match="max_steps: the attempt decides this"):
        training_arguments(attempt, max_steps=5)
    arguments = training_arguments(attempt)
    assert (arguments.max_steps, arguments.logging_nan_inf_filter) == (12, False)
    arguments.max_steps, arguments.seed, arguments.logging_nan_inf_filter = 8, 1, True
    with pytest.raises(SystemExit) as left, Attempt(assign(tmp_path)) as attempt:
        AssayCallback(attempt).on_train_begin(arguments, None, None)  # type: ignore[arg-type]
    assert left.value.code == ExitCode.CONFIG_ERROR
    assert "max_steps: must be 12" in exit_record(tmp_path)["message"]
    assert "seed: must be 0" in exit_record(tmp_path)["message"]
    assert "logging_nan_inf_filter was switched off" in reports(tmp_path)[-2].notes[0]
