"""A step in more passes after an out of memory: the same tokens and gradients, fewer rows at once."""

from pathlib import Path

import pytest
import torch
from trainer_rigs import evaluations, make_assignment, reports, tiny_config, work_here

from trainer.config import TrainConfig
from trainer.data import open_data
from trainer.facts import check, validate
from trainer.schedules import micro_batches
from trainer.training import Training

DIVIDED = [
    # batch size, accumulation, processes, factor: passes and rows of each
    (8, 1, 1, 2, (2, 4)),
    (8, 4, 1, 2, (8, 4)),
    (8, 1, 2, 2, (2, 2)),
    (8, 1, 1, 8, (8, 1)),
    (8, 1, 1, 64, (8, 1)),
    (6, 1, 1, 4, (6, 1)),
    (3, 1, 1, 2, (3, 1)),
    (1, 4, 1, 2, (4, 1)),
    (3, 4, 2, 2, (6, 1)),
]


@pytest.mark.parametrize(("batch_size", "accumulation", "processes", "factor", "expected"), DIVIDED)
def test_a_factor_divides_the_rows_of_a_pass_and_keeps_those_of_a_step(
    batch_size: int, accumulation: int, processes: int, factor: int, expected: tuple[int, int]
) -> None:
    config = TrainConfig(batch_size=batch_size, accumulation=accumulation)
    passes, rows = micro_batches(config, processes, factor)
    assert (passes, rows) == expected
    assert passes * rows * processes == batch_size * accumulation


def test_the_service_is_told_how_far_a_step_can_be_divided() -> None:
    assert check(tiny_config(train={"batch_size": 6, "accumulation": 2})).rows_per_pass == 6


def training(cache: Path, kind: str, factor: int) -> Training:
    config = validate(tiny_config(kind, model={"dropout": 0.0}, train={"batch_size": 6}))
    data = open_data(config.data, config.sequence_length, cache)
    return Training(config, data, seed=0, horizon=100, device="cpu", memory_factor=factor)


@pytest.mark.parametrize("factor", [2, 6])
def test_gradients_are_equal_up_to_rounding(cache: Path, factor: int) -> None:
    whole, divided = training(cache, "dense", 1), training(cache, "dense", factor)
    a, b = whole.step(0, detailed=False), divided.step(0, detailed=False)
    assert a.loss == pytest.approx(b.loss, rel=1e-5)
    for p, q in zip(whole.model.parameters(), divided.model.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6)


def test_a_run_goes_on_in_more_passes_and_says_so(tmp_path: Path, cache: Path) -> None:
    first = make_assignment(tmp_path / "first", cache)
    work_here(first)
    second = make_assignment(
        tmp_path / "second", cache, target_step=30, resume_from=(first.directory,), memory_factor=2
    )
    work_here(second)
    begun = reports(second.directory)[0]
    assert begun.resumed_from_step == 20
    (note,) = begun.notes
    assert "resumed with 2 times as many passes per step as configured" in note
    assert "written with 1" in note
    assert list(evaluations(second.directory))[-1] == 30
