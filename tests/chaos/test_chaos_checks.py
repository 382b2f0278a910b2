"""The history checker finds what is planted, and nothing where nothing is wrong."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chaos.checks import violations
from chaos.history import Fault, History, Step, Told, Witnessed, Woken, read_history
from chaos.rows import AttemptRow, Outcome, Rows

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Story:
    """A whole history with its rows: run 1 in two attempts, the first of which was killed at step 5."""

    history: History
    rows: Rows
    found: dict[str, Outcome]
    calm: dict[str, Outcome]

    def wrong(self) -> list[str]:
        return violations(self.history, self.rows, self.found, self.calm)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def worker(number: int, first: int, last: int, began: float) -> Witnessed:
    """An attempt that trains a step a second and tells each with its evaluation."""
    steps = [Step(n, began + n - first + 1, began + n - first + 1.9) for n in range(first, last + 1)]
    told = {
        index: Told(step.ended or 0.0, {step.number: step.number / 10}, {step.number: step.number / 5})
        for index, step in enumerate(steps, 1)
    }
    acknowledged = {index: report.at + 0.05 for index, report in told.items()}
    return Witnessed(1, 10 + number, number, number, 100 + number, began, False, steps, told, acknowledged)


def outcome() -> Outcome:
    decisions = [("base", "screen", 8, "promote", "best", "pass", "goes on")]
    curve = [(step, step / 10) for step in range(1, 9)]
    return Outcome("succeeded", "it is", {"base": ("succeeded", "finished")}, decisions, {"base": curve})


@pytest.fixture
def story() -> Story:
    one, two = worker(1, 1, 5, 0.0), worker(2, 4, 8, 20.0)
    history = History([one, two], [Fault("worker_killed", 6.0)], [])
    rows = Rows(
        experiments=["chaos-1"],
        attempts=[
            AttemptRow(11, 1, 1, 1, "ended", ("cpu:0",), at(0), at(10), "crashed", 5),
            AttemptRow(12, 1, 2, 2, "ended", ("cpu:0",), at(15), at(40), "finished", 8),
        ],
        reports={(w.attempt, sequence) for w in (one, two) for sequence in w.told},
        evaluations={1: values(one, two, lambda told: told.evaluations)},
        points={1: values(one, two, lambda told: told.points)},
        last_step={1: 8},
    )
    return Story(history, rows, {"chaos-1": outcome()}, {"chaos-1": outcome()})


def values(
    one: Witnessed, two: Witnessed, of: Callable[[Told], dict[int, float]]
) -> list[tuple[int, int, float, bool]]:
    return [
        (w.attempt, step, value, w is one and step > 3)
        for w in (one, two)
        for told in w.told.values()
        for step, value in of(told).items()
    ]


def test_nothing_is_found_where_nothing_is_wrong(story: Story) -> None:
    assert story.wrong() == []


def lose_a_report(story: Story) -> None:
    story.rows.reports.remove((11, 2))


def lose_an_evaluation(story: Story) -> None:
    story.rows.evaluations[1] = [row for row in story.rows.evaluations[1] if row[:2] != (12, 7)]


def change_an_evaluation(story: Story) -> None:
    rows = story.rows.evaluations[1]
    story.rows.evaluations[1] = [(*r[:2], 9.9, r[3]) if r[:2] == (11, 2) else r for r in rows]


def invent_an_evaluation(story: Story) -> None:
    story.rows.evaluations[1].append((12, 99, 0.5, False))


def invent_a_train_loss(story: Story) -> None:
    story.rows.points[1].append((11, 9, 0.5, True))


def overlap(story: Story) -> None:
    story.history.workers[0].steps.append(Step(6, 22.0, 22.9))


def finish_a_step_too_late(story: Story) -> None:
    story.history.workers[0].steps[-1].ended = 30.0


def train_on_though_refused(story: Story) -> None:
    pause_the_first(story)
    story.history.workers[0].stale_at = 30.0
    story.history.workers[0].steps += [Step(6, 30.1, 30.2), Step(7, 30.3, 30.4)]


def pause_the_first(story: Story, *, zombie: bool = False) -> None:
    story.history.pauses.append(Woken(pid=101, stopped=5.95, woken=29.5, zombie=zombie))


def count_a_zombie(story: Story) -> None:
    pause_the_first(story, zombie=True)
    story.history.workers[0].stale_at = 30.0
    story.history.workers[0].told[6] = Told(29.9)
    story.rows.reports.add((11, 6))


def never_refuse_a_zombie(story: Story) -> None:
    pause_the_first(story, zombie=True)
    story.history.workers[0].told[6] = Told(29.9)


def start_an_attempt_twice(story: Story) -> None:
    story.history.workers.append(replace(worker(2, 4, 8, 20.0), pid=999))


def leave_an_attempt_open(story: Story) -> None:
    story.rows.attempts[1] = replace(story.rows.attempts[1], status="launched", ended_at=None)


def use_an_epoch_again(story: Story) -> None:
    story.rows.attempts[1] = replace(story.rows.attempts[1], epoch=1)


def start_before_the_end(story: Story) -> None:
    story.rows.attempts[1] = replace(story.rows.attempts[1], created_at=at(5), slots=("cpu:1",))


def give_a_slot_twice(story: Story) -> None:
    story.rows.attempts.append(
        AttemptRow(13, 2, 1, 1, "ended", ("cpu:0", "cpu:1"), at(20), at(30), "finished", 8)
    )


def lose_a_train_loss(story: Story) -> None:
    story.rows.points[1] = [row for row in story.rows.points[1] if row[:2] != (12, 6)]
    del story.history.workers[1].told[3].points[6]


def end_otherwise(story: Story) -> None:
    story.found["chaos-1"] = replace(outcome(), status="failed")


def lose_an_experiment(story: Story) -> None:
    story.found.clear()


def decide_twice(story: Story) -> None:
    story.found["chaos-1"] = replace(outcome(), decisions=outcome().decisions * 2)


def decide_nothing(story: Story) -> None:
    story.found["chaos-1"] = replace(outcome(), decisions=[])


def leave_a_hole(story: Story) -> None:
    story.found["chaos-1"] = replace(outcome(), curves={"base": outcome().curves["base"][:-2]})


def submit_twice(story: Story) -> None:
    story.rows.experiments.append("chaos-1")


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lose_a_report, "lost: report 2 of attempt 11 was acknowledged and is not in the database"),
        (lose_an_evaluation, "its evaluation of steps [7]"),
        (change_an_evaluation, "its evaluation of steps [2]"),
        (change_an_evaluation, "invented: run 1 has evaluation 9.9 at step 2"),
        (invent_an_evaluation, "which attempt 12 never told"),
        (invent_a_train_loss, "invented: run 1 has train loss 0.5"),
        (overlap, "never stopped, trained steps [6]"),
        (finish_a_step_too_late, "never stopped, trained steps [5]"),
        (train_on_though_refused, "began steps [6, 7] after it was answered"),
        (count_a_zombie, "zombie: reports [6] of attempt 11"),
        (never_refuse_a_zombie, "and never refused"),
        (start_an_attempt_twice, "attempt 12 had 2 workers"),
        (leave_an_attempt_open, "attempt 12 of run 1 is launched at the end"),
        (use_an_epoch_again, "are not in order"),
        (start_before_the_end, "began before 1 ended"),
        (give_a_slot_twice, "slot cpu:0: attempts 12 and 13"),
        (lose_a_train_loss, "no train loss at steps [6]"),
        (end_otherwise, "has status 'failed', undisturbed 'succeeded'"),
        (lose_an_experiment, "chaos-1 is not there"),
        (decide_twice, "decision: chaos-1: too often"),
        (decide_nothing, "decision: chaos-1: missing"),
        (leave_a_hole, "evaluations missing at [7, 8]"),
        (submit_twice, "chaos-1 is there 2 times"),
    ],
)
def test_what_is_planted_is_found(story: Story, plant: Callable[[Story], None], said: str) -> None:
    plant(story)
    found = story.wrong()
    assert any(said in sentence for sentence in found), found


def test_a_zombie_may_finish_its_step_and_begin_one_more_while_it_is_refused(story: Story) -> None:
    pause_the_first(story, zombie=True)
    zombie = story.history.workers[0]
    zombie.steps[-1].ended = 29.6
    zombie.stale_at = 29.7
    zombie.steps.append(Step(6, 29.71, 29.8))
    zombie.told[6] = Told(29.8, {6: 0.6}, {})
    assert story.wrong() == []


def test_a_zombie_that_had_said_all_and_only_leaves_is_not_refused(story: Story) -> None:
    pause_the_first(story, zombie=True)
    assert story.wrong() == []


def test_a_worker_that_was_stopped_and_killed_before_it_woke_is_no_zombie(story: Story) -> None:
    calm = deepcopy(story.history.workers[0].steps)
    pause_the_first(story)
    assert story.history.workers[0].steps == calm
    assert story.wrong() == []


def test_a_line_that_a_kill_tore_is_left_out(tmp_path: Path) -> None:
    began = (
        '{"kind": "began", "at": 1.0, "run": "run_3", "attempt": "att_7", "number": 2, "epoch": 2, '
        '"pid": 9, "escaped": false}\n'
    )
    file = tmp_path / "att_7.9.jsonl"
    file.write_text(
        began + '{"kind": "step", "at": 2.0, "step": 1}\n{"kind": "stepped", "at": 2.5, "step": 1}\n'
        '{"kind": "told", "at": 2.6, "sequence": 1, "evaluations": {"1": 0.5}, "points": {}}\n'
        '{"kind": "acknowledged", "at": 2.7, "sequence": 0, "upto": 1}\n{"kind": "step", "at'
    )
    (tmp_path / "faults.jsonl").write_text(
        '{"record": "fault", "kind": "zombie", "at": 1.0, "about": "x"}\n'
        '{"record": "pause", "pid": 9, "stopped": 1.0, "woken": 2.0, "zombie": true}\n'
    )
    history = read_history(tmp_path)
    (one,) = history.workers
    assert (one.run, one.attempt, one.last_step, one.acknowledged_step) == (3, 7, 1, 1)
    assert history.faults == [Fault("zombie", 1.0, "x")]
    assert history.pauses == [Woken(9, 1.0, 2.0, True)]
