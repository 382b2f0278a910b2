"""Verdicts over runs and seeds: means, bands, and a reason wherever a comparison is not sound."""

import math
from pathlib import Path
from typing import Any

import pytest
from worlds import Worker, World, falling

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.report import Evaluation, Identity
from orchestrator.services.compare import compare
from orchestrator.services.views_compare import CompareView, VariantCompare
from orchestrator.store.database import Database

STAGES: list[dict[str, Any]] = [
    {"name": "only", "steps": 100, "variants": {"base": {"width": 8}, "half": {"width": 4}}}
]


def world_of(either: Database, tmp_path: Path, gaps: dict[int, float]) -> World:
    """`half` is behind the control by its seed's gap, everywhere."""
    curve = falling()
    return World(
        either,
        tmp_path / "home",
        slots=4,
        loss=lambda variant, seed, step: curve("base", 0, step) + (gaps[seed] if variant == "half" else 0.0),
    )


def half_of(view: CompareView) -> VariantCompare:
    return next(v for v in view.variants if v.variant == "half")


def submit(world: World, **changes: Any) -> int:
    return world.submit(stages=STAGES, **({"control": "base"} | changes))


def fail(world: World, variant: str, seed: int = 0) -> None:
    """Every worker of the run that there is or will be ends at once with a config that it cannot train."""
    for key, worker in world.workers.items():
        who = worker.assignment
        if (who.variant, who.seed) == (variant, seed) and worker.exited is None:
            world.leave(key, worker, ExitCode.CONFIG_ERROR, "no")


def test_one_seed_has_a_mean_without_an_interval(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, {0: 0.10})
    experiment = submit(world)
    world.run_to_end(experiment)
    half = half_of(compare(world.context, experiment, "step"))
    assert half.gap is not None
    assert (half.gap.mean, half.gap.low, half.gap.seeds) == (pytest.approx(0.10), None, 1)
    assert half.at == 100
    assert half.fewer_parameters_percent == pytest.approx(50)
    assert half.band == "excellent"
    assert (half.params_total.value, half.params_total.control) == (4000, 8000)
    assert half.flops_per_token.percent == pytest.approx(-50)
    assert half.tokens_per_second.percent == pytest.approx(0)


def test_seeds_are_paired_with_the_controls(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, {3: 0.10, 4: 0.14})
    experiment = submit(world, seeds=[3, 4])
    world.run_to_end(experiment)
    half = half_of(compare(world.context, experiment, "tokens"))
    assert half.seeds == [3, 4]
    assert half.at == 100 * 128
    assert half.gap is not None
    assert half.quality_drop_percent is not None
    assert half.gap.high == pytest.approx(0.12 + 12.7062 * 0.02)  # s / sqrt(2) = 0.02
    loss = falling()("base", 0, 100)
    assert half.quality_drop_percent.mean == pytest.approx(100 * 0.12 / loss)
    assert half.band_within == ["better", "borderline"]
    assert [p.gap.mean for p in half.points if p.gap] == pytest.approx([0.12] * 5)


def test_the_time_to_the_controls_loss(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, {0: -0.10})
    experiment = submit(world)
    world.run_to_end(experiment)
    half = half_of(compare(world.context, experiment, "step"))
    assert half.time_to_target is not None
    assert half.time_to_target.target_loss == pytest.approx(falling()("base", 0, 100))
    assert half.time_to_target.control_seconds == pytest.approx(10)
    assert half.time_to_target.seconds is not None
    assert 6 < half.time_to_target.seconds < 10
    behind = world_of(either, tmp_path, {0: 0.10})
    other = submit(behind, name="other")
    behind.run_to_end(other)
    missed = half_of(compare(behind.context, other, "step")).time_to_target
    assert missed is not None
    assert missed.seconds is None


def test_a_seed_that_broke_is_left_out_and_said(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, {0: 0.10, 1: 9.0})
    experiment = submit(world, seeds=[0, 1])
    for _ in range(4):
        world.turn()
    fail(world, "half", 1)
    world.run_to_end(experiment)
    half = half_of(compare(world.context, experiment, "step"))
    assert half.seeds == [0]
    assert half.notes == ["seed 1 is left out: it failed (config_error)"]
    assert half.gap is not None
    assert half.gap.mean == pytest.approx(0.10)


def test_a_seed_that_diverged_is_left_out_as_at_a_gate(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, {0: 0.10, 1: math.nan})
    experiment = submit(world, seeds=[0, 1])
    world.run_to_end(experiment)
    half = half_of(compare(world.context, experiment, "step"))
    assert (half.seeds, half.invalid) == ([0], None)
    assert half.notes == ["seed 1 is left out: it failed (diverged)"]


def test_a_control_that_is_dead_makes_what_follows_invalid(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, {0: 0.10})
    experiment = submit(world)
    for _ in range(4):
        world.turn()
    fail(world, "base")
    for _ in range(3):
        world.turn()
    row = next(row for row in compare(world.context, experiment, "step").rows if row.variant == "half")
    alone = [point for point in row.points if point.control_loss is None]
    assert alone
    assert {point.waiting for point in alone} == {None}
    assert all(point.invalid and "the control failed at step" in point.invalid for point in alone)
    half = half_of(compare(world.context, experiment, "step"))
    assert half.at is not None
    assert half.at < 100


def test_what_the_control_has_not_come_to_is_waited_for(either: Database, tmp_path: Path) -> None:
    world = World(either, tmp_path / "home", slots=1)
    experiment = submit(world)
    view = compare(world.context, experiment, "step")
    assert half_of(view).waiting == "half has no evaluation yet"
    assert half_of(view).invalid is None
    assert half_of(view).gap is None


class OtherText(Worker):
    """Evaluates on another set of tokens."""

    def identity(self) -> Identity:
        found = super().identity()
        changed = {"evaluation_set": "another"} if self.assignment.variant == "half" else {}
        return found.model_copy(update=changed)


class Gpu(Worker):
    """Half trains on another machine."""

    def identity(self) -> Identity:
        device = "cuda: H100" if self.assignment.variant == "half" else "cpu"
        return super().identity().model_copy(update={"device": device})

    def evaluation(self, step: int) -> Evaluation:
        return super().evaluation(step).model_copy(update={"peak_memory_bytes": 1000})


class With(World):
    """A world of workers of one kind."""

    kind: type[Worker]

    def adopt(self) -> None:
        super().adopt()
        for key, worker in self.workers.items():
            if type(worker) is Worker:
                self.workers[key] = self.kind(worker.assignment, worker.loss, worker.step)


def test_another_evaluation_set_is_invalid_with_its_reason(either: Database, tmp_path: Path) -> None:
    world = With(either, tmp_path / "home")
    world.kind = OtherText
    experiment = submit(world)
    world.run_to_end(experiment)
    view = compare(world.context, experiment, "step")
    half = half_of(view)
    assert half.invalid is not None
    assert "their evaluation sets differ" in half.invalid
    assert (half.gap, half.band, half.time_to_target) == (None, None, None)
    assert {p.invalid is not None for p in half.points} == {True}


def test_speed_is_not_compared_across_hardware(either: Database, tmp_path: Path) -> None:
    world = With(either, tmp_path / "home")
    world.kind = Gpu
    experiment = submit(world)
    world.run_to_end(experiment)
    half = half_of(compare(world.context, experiment, "step"))
    assert half.gap is not None
    assert (half.tokens_per_second.value, half.tokens_per_second.percent) == (1000, None)
    assert (half.peak_memory_bytes.value, half.peak_memory_bytes.percent) == (1000, None)
    assert half.time_to_target is None or half.time_to_target.percent is None


def test_a_weak_band_names_the_gains_that_may_outweigh_it(either: Database, tmp_path: Path) -> None:
    class Faster(Worker):
        def evaluation(self, step: int) -> Evaluation:
            faster = {"tokens_per_second": 2500.0} if self.assignment.variant == "half" else {}
            return super().evaluation(step).model_copy(update=faster)

    world = With(either, tmp_path / "home", loss=falling({"half": 0.9}))
    world.kind = Faster
    experiment = submit(world)
    world.run_to_end(experiment)
    half = half_of(compare(world.context, experiment, "step"))
    assert half.band == "weak"
    assert half.notes == ["weak, with tokens/s +150%: whether that outweighs it is for you to say"]
