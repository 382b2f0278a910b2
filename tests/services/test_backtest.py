"""Backtests and calibrations of finished experiments and of posted curves."""

import random
from pathlib import Path
from typing import Any

import pytest
from worlds import World, falling

from orchestrator.domain.errors import Invalid, Missing
from orchestrator.services.backtest import backtest
from orchestrator.services.calibrate import calibrate
from orchestrator.store.database import Database

LOSSES = falling({"wide": -0.2, "wider": -0.1, "slow": 0.3})


@pytest.fixture
def world(either: Database, tmp_path: Path) -> World:
    return World(either, tmp_path / "home", loss=LOSSES)


def posted(configs: int = 10, runs: int = 2, end: int = 1000, **changes: Any) -> list[dict[str, Any]]:
    """Falling curves; config i ends 0.01 i above the first, and seeds differ by 0.001."""
    noise = random.Random(0)  # noqa: S311 - no secret
    return [
        {
            "config": f"c{i:02d}",
            "run": f"r{r}",
            "points": [
                [step, 3 + 0.01 * i + 3 * step**-0.5 + noise.gauss(0, 0.001)]
                for step in range(100, end + 1, 100)
            ],
            **changes,
        }
        for i in range(configs)
        for r in range(runs)
    ]


def question(**changes: Any) -> dict[str, Any]:
    return {"policy": "race", "history": {"curves": posted()}, "stages": [300, 1000], "sets": 50} | changes


def fields(error: pytest.ExceptionInfo[Invalid]) -> dict[str, str]:
    return {found.field: found.message for found in error.value.errors}


def test_the_policy_an_experiment_ran_under_gives_its_own_decisions_again(world: World) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    history = {"experiments": [f"exp_{experiment}"]}
    found = backtest(world.context, {"policy": "stage-gate", "history": history, "sets": 20})
    assert (found.control, found.size, found.stages, found.eval_every) == (
        "base",
        (4, 4),
        [100, 200, 400],
        20,
    )
    gate, run_all = found.scores
    assert gate.coverage == 1
    assert gate.cost is not None
    assert gate.cost.value == pytest.approx((400 + 400 + 200 + 100) / 1600)
    assert gate.slot_hours is not None
    assert gate.slot_hours.value == pytest.approx(gate.cost.value)
    assert gate.no_winner == 0
    assert (gate.regret_known, gate.regret) == (0, None)  # two runs were never trained to the end
    assert run_all.coverage == 1  # under the plan's own caps, it promotes the same two and one
    assert found.notes == ["the gates have the experiment's own caps: 2, 1"]
    uncapped = {"policy": "run-all", "against": [], "history": history, "sets": 20, "promote": [{}, {}]}
    (score,) = backtest(world.context, uncapped).scores
    assert (score.coverage, score.cost) == (0, None)
    assert score.unscorable == {"not recorded so far": 20}


def test_several_experiments_are_one_history_with_names_of_their_own(world: World) -> None:
    ids = [world.submit(name=name, policy="run-all") for name in ("one", "two")]
    for id_ in ids:
        world.run_to_end(id_)
    found = backtest(
        world.context,
        {
            "policy": "race",
            "history": {"experiments": [f"exp_{id_}" for id_ in ids]},
            "sets": 30,
            "size": [3, 8],
        },
    )
    assert (found.configs, found.runs, found.control) == (8, 8, None)


def test_an_experiment_that_still_runs_or_is_not_there_is_refused(world: World) -> None:
    experiment = world.submit()
    with pytest.raises(Invalid) as error:
        backtest(world.context, {"policy": "race", "history": {"experiments": [f"exp_{experiment}"]}})
    assert "has not ended" in fields(error)["history.experiments[0]"]
    with pytest.raises(Missing):
        backtest(world.context, {"policy": "race", "history": {"experiments": ["exp_99"]}})


def test_tables_are_the_same_for_the_same_seed_and_differ_for_another(world: World) -> None:
    first, again, other = (
        backtest(world.context, question(seed=seed, against=["asha"])).scores for seed in (0, 0, 1)
    )
    assert first == again
    assert first[0].cost != other[0].cost


def test_every_shipped_policy_is_scored_and_run_all_costs_all_and_loses_nothing(world: World) -> None:
    against = sorted(world.context.policies)
    found = backtest(world.context, question(against=against))
    scores = {score.policy: score for score in found.scores}
    assert scores.keys() >= {*against, "race (2)"}
    assert scores["race"].cost == scores["race (2)"].cost
    whole = scores["run-all"]
    assert whole.cost is not None
    assert whole.regret is not None
    assert (whole.cost.value, whole.regret.value, whole.best_kept) == (1, 0, 1)
    assert all(score.coverage == 1 for score in found.scores)
    assert scores["race"].cost is not None
    assert scores["race"].cost.value < 0.7


def test_differences_say_when_and_whom_and_how_much_it_matters(world: World) -> None:
    found = backtest(world.context, question(against=["run-all"]))
    race, run_all = found.differences
    assert (race.policy, race.other, run_all.policy) == ("race", "run-all", "run-all")
    assert race.runs == sum(at.runs for at in race.at) > 0
    assert run_all.runs == 0
    assert race.examples[0].other_reason == "finished"
    assert race.regret is not None
    assert race.regret.value >= 0


def test_documents_and_versions_name_policies_too(world: World) -> None:
    document = dict(world.context.policies["race"]) | {"name": "mine"}
    found = backtest(world.context, question(policy=document, against=["race@1"]))
    assert [score.policy for score in found.scores] == ["mine", "race"]
    assert found.scores[0].cost == found.scores[1].cost


def test_caps_are_those_of_the_gates(world: World) -> None:
    def cost(**changes: Any) -> float:
        found = backtest(world.context, question(policy="run-all", against=[], **changes)).scores[0].cost
        assert found is not None
        return found.value

    assert cost(promote=[{"best": 1, "eligible": "all"}]) < cost(promote=[{"best": 3, "eligible": "all"}]) < 1


def test_runs_of_other_horizons_are_moved_by_a_rate_of_exchange_or_refused(world: World) -> None:
    long = posted(configs=5, end=1100, horizon_steps=1100)
    curves = [*posted(configs=5), *[curve | {"config": "x" + curve["config"]} for curve in long]]
    with pytest.raises(Invalid) as error:
        backtest(world.context, question(history={"curves": curves}))
    assert "10 of 20 runs" in fields(error)["history"]
    found = backtest(world.context, question(history={"curves": curves, "horizon_exchange": 1e-4}))
    assert found.notes[0] == "10 runs of other horizons were moved to 1000 at 0.0001 nats a step"
    assert found.scores[0].coverage == 1


def test_losses_between_measured_ones_are_interpolated_and_counted(world: World) -> None:
    found = backtest(world.context, question(stages=[350, 1000]))
    assert found.notes == ["20 of 220 losses were interpolated between measured ones"]


CURVE = {"config": "a", "points": [[100, 3.0], [1000, 2.0]]}


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"size": [8, 11]}, "size", "the history has 10"),
        ({"size": [1, 4]}, "size[0]", "two configs at least"),
        ({"size": [6, 4]}, "size[1]", "turn them round"),
        ({"policy": "rase"}, "policy", "did you mean `race`?"),
        ({"policy": "race@7"}, "policy", "race@7"),
        ({"against": ["run-all", "nothing"]}, "against[1]", "there is no policy"),
        ({"policy": {"name": "x", "version": 1, "stop": {"criterion": "no"}}}, "policy.stop.criterion", "no"),
        ({"control": "c1"}, "control", "did you mean `c01`?"),
        ({"stages": [300, 300]}, "stages[1]", "must be above"),
        ({"stages": None}, "stages", "say the step of each gate"),
        ({"stages": [300, 2000]}, "stages", "the longest ends at 1000"),
        ({"promote": [{"best": 1}] * 2}, "promote", "2 rules for 1 gates"),
        ({"sets": 0}, "sets", "greater than or equal to 1"),
        ({"setz": 5}, "setz", "did you mean `sets`?"),
        ({"history": {}}, "history", "either `experiments` or `curves`"),
        ({"history": {"curves": [CURVE]}}, "history", "one config is no set"),
        (
            {"history": {"curves": [{"config": "a", "points": [[1, 2.0]]}]}},
            "history.curves[0].points",
            "a curve of 1 points (config a, run 0)",
        ),
        (
            {"history": {"curves": [CURVE, {"config": "b", "points": [[9, 2.0], [5, 2.0]]}]}},
            "history.curves[1].points[1]",
            "from step 9 back to 5",
        ),
        (
            {"history": {"curves": [{"config": "b", "points": [[9, 2.0], [9, 2.0]]}]}},
            "history.curves[0].points[1]",
            "step 9 is there twice",
        ),
        (
            {"history": {"curves": [{"config": "b", "points": [[1, 2.0], [9, float("nan")]]}]}},
            "history.curves[0].points[1][1]",
            "is not a finite number",
        ),
        ({"history": {"curves": [CURVE, CURVE]}}, "history.curves[1].run", "has a run `0` already"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(
    world: World, changes: dict[str, Any], field: str, said: str
) -> None:
    asked = {name: value for name, value in (question() | changes).items() if value is not None}
    with pytest.raises(Invalid) as error:
        backtest(world.context, asked)
    assert field in fields(error)
    assert said in fields(error)[field]


def test_noise_comes_from_replicates_and_stands_beside_the_margins(world: World) -> None:
    found = calibrate(
        world.context,
        {"history": {"curves": posted(configs=40, runs=6)}, "policy": "stage-gate", "steps": [500, 1000]},
    )
    assert [noise.step for noise in found.noise] == [500, 1000]
    assert found.noise[0].sigma == pytest.approx(0.001, rel=0.15)
    assert found.noise[0].freedom == 40 * 5
    margin = next(m for m in found.margins if m.field == "promote.any[0].beats_control.margin")
    assert (margin.value, margin.of) == (0.05, "difference of two runs")
    assert margin.at[0].of_one_run == pytest.approx(50, rel=0.15)
    assert margin.at[0].sigmas == pytest.approx(50 / 2**0.5, rel=0.15)
    assert margin.text.startswith("0.05 is ")


def test_seeds_of_an_experiment_calibrate_and_runs_without_replicates_do_not(world: World) -> None:
    seeded, alone = world.submit(name="seeded", seeds=[0, 1, 2]), world.submit(name="alone")
    for id_ in (seeded, alone):
        world.run_to_end(id_)
    found = calibrate(world.context, {"history": {"experiments": [f"exp_{seeded}"]}})
    assert found.noise[0].sigma == pytest.approx(1e-4)
    assert (found.policy, found.margins) == (None, [])
    with pytest.raises(Invalid) as error:
        calibrate(world.context, {"history": {"experiments": [f"exp_{alone}"]}})
    assert "noise needs replicate seeds" in fields(error)["history"]


def test_a_step_without_replicates_is_said(world: World) -> None:
    asked = {"history": {"curves": posted()}, "steps": [500, 555]}
    assert calibrate(world.context, asked).notes == ["no noise at step 555: no config has two runs there"]
    with pytest.raises(Invalid) as error:
        calibrate(world.context, asked | {"steps": [555]})
    assert "step 555" in fields(error)["steps"]
