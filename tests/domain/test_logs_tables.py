"""CSV and JSONL: columns by their names, runs by choice, sessions by a column; errors with their line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_texts import points, read

from orchestrator.domain.errors import Invalid

SOUND = "step,eval_loss,train_loss,tokens\n500,4.0,4.1,64000\n1000,3.5,3.6,128000\n"


def read_csv(text: str, **choices: Any) -> Any:
    return read(text, name="curve.csv", **({"steps_per_epoch": None} | choices))


def read_jsonl(*rows: Any, **choices: Any) -> Any:
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    return read(lines, name="curve.jsonl", **({"steps_per_epoch": None} | choices))


def test_a_csv_is_read_by_its_header() -> None:
    curve = read_csv(SOUND)
    assert points(curve) == [(500, 4.0), (1000, 3.5)]
    assert [evaluation["tokens"] for evaluation in curve.evaluations] == [64_000, 128_000]
    assert curve.train_loss == ((500, 4.1), (1000, 3.6))
    assert curve.format == "csv"


def test_other_names_spaces_a_mark_and_empty_cells_are_read() -> None:
    text = "\ufeffGlobal_Step, loss ,val_loss,lr\n10,5.0,,0.1\n\n20,4.0,4.5,0.1\n"
    curve = read_csv(text)
    assert points(curve) == [(20, 4.5)]
    assert curve.train_loss == ((10, 5.0), (20, 4.0))
    assert curve.evaluations[0]["learning_rate"] == 0.1


def test_columns_that_are_not_read_are_named() -> None:
    assert "columns not read: `colour`" in read_csv("step,eval_loss,colour\n1,2.0,red\n").notes[0]


def test_a_column_of_the_horizon_is_the_schedules() -> None:
    assert read_csv("step,eval_loss,horizon_steps\n1,2.0,50\n2,1.9,50\n").horizon_step == 50


def test_jsonl_takes_losses_and_evaluations_on_lines_of_their_own() -> None:
    curve = read_jsonl(
        {"step": 5, "loss": 4.5}, "", {"step": 5, "eval_loss": 4.6}, {"step": 9, "eval_loss": "NaN"}
    )
    assert [step for step, _ in points(curve)] == [5, 9]
    assert curve.train_loss == ((5, 4.5),)
    assert curve.format == "jsonl"


def test_epochs_become_steps() -> None:
    assert points(read_csv("epoch,eval_loss\n0.5,3.0\n", steps_per_epoch=3571)) == [(1786, 3.0)]


class TestRuns:
    TEXT = "run,step,eval_loss\n" + "".join(f"r{i},{step},{4 - i}\n" for i in (1, 2) for step in (500, 1000))

    def test_several_are_named_with_the_option_that_chooses(self) -> None:
        with pytest.raises(
            Invalid, match=r"--run: curve.csv holds 2 runs \(`r1`, `r2`\): choose one with --run"
        ):
            read_csv(self.TEXT)

    def test_the_chosen_one_is_read(self) -> None:
        curve = read_csv(self.TEXT, run="r2")
        assert points(curve) == [(500, 2.0), (1000, 2.0)]
        assert "run `r2`, of 2" in curve.notes[0]

    def test_one_that_is_not_there_is_guessed(self) -> None:
        with pytest.raises(Invalid, match="has no run `r3`: known are `r1`, `r2`"):
            read_csv(self.TEXT, run="r3")

    def test_a_choice_without_a_column_is_refused(self) -> None:
        with pytest.raises(Invalid, match=r"--run: curve\.csv has no column `run`"):
            read_csv(SOUND, run="r1")

    def test_many_are_cut_short(self) -> None:
        rows = "".join(f"r{i},500,4.0\n" for i in range(12))
        with pytest.raises(Invalid, match="and 4 more"):
            read_csv("run,step,eval_loss\n" + rows)


class TestSessions:
    def test_a_column_of_sessions_lets_steps_go_back(self) -> None:
        curve = read_csv("session,step,eval_loss\n1,500,4.0\n1,1000,3.5\n2,1000,3.52\n2,1500,3.2\n")
        assert points(curve) == [(500, 4.0), (1000, 3.52), (1500, 3.2)]
        assert "1 evaluation and 0 losses of session 1" in curve.notes[-1]

    def test_a_session_that_comes_back_is_refused(self) -> None:
        with pytest.raises(Invalid, match=r"curve\.csv:4: session `1` comes back"):
            read_csv("session,step,eval_loss\n1,500,4.0\n2,1000,3.5\n1,1500,3.2\n")

    def test_without_one_steps_that_go_backwards_name_the_line(self) -> None:
        with pytest.raises(Invalid, match=r"curve.csv:4: steps go backwards, from 1000 to 600.*`session`"):
            read_csv(SOUND + "600,3.4,3.4,1\n")
        with pytest.raises(Invalid, match=r"curve.jsonl:2: steps go backwards"):
            read_jsonl({"step": 9, "eval_loss": 4.0}, {"step": 5, "eval_loss": 4.6})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,eval_lss\n1,2\n", "curve.csv: eval_loss: there is no such column: did you mean `eval_lss`"),
        ("stp,eval_loss\n1,2\n", "curve.csv: step: there is no such column: did you mean `stp`"),
        ("epoch,eval_loss\n1,2\n", "--steps-per-epoch: curve.csv says an epoch and no step"),
        ("step,eval_loss\n1,high\n", "curve.csv:2 eval_loss: is 'high', where a number is needed"),
        ("step,eval_loss\n1.5,2\n", "curve.csv:2 step: is 1.5, where a whole number"),
        ("step,eval_loss\n-1,2\n", "curve.csv:2 step: is -1.0, where a whole number"),
        ("step,eval_loss\nnan,2\n", "curve.csv:2 step: is nan, where a whole number"),
        ("step,eval_loss\n,2\n", "curve.csv:2 step: is empty"),
        ("step,eval_loss\n1,2,3\n", "curve.csv:2: has 3 cells, and the header 2"),
        ("step,eval_loss\n1,2\n1,3\n", "curve.csv:3: another eval loss for step 1 than curve.csv:2 has"),
        ("step,eval_loss\n1,nan\n", "none of the 1 eval losses is finite"),
        ("step,eval_loss\n", "no evaluation was found"),
        ("", "there is no such column"),
        ('step,eval_loss\n1,"2\n', "curve.csv:2: is not CSV"),
    ],
)
def test_a_bad_csv_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read_csv(text)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "curve.jsonl:2: is not JSON"),
        ("[1]", "curve.jsonl:2: is no JSON object"),
        ({"step": True, "eval_loss": 2}, "curve.jsonl:2 step: is 'True', where a number is needed"),
        ({"step": 3, "eval_loss": [2]}, "curve.jsonl:2 eval_loss"),
        ({"eval_loss": 2}, "curve.jsonl:2 step: is empty"),
        ({"step": 10**400, "eval_loss": 2}, "curve.jsonl:2 step: is"),
    ],
)
def test_a_bad_jsonl_says_where_and_what(row: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read_jsonl({"step": 1, "eval_loss": 4.0}, row)


def test_bytes_that_are_no_text_are_refused() -> None:
    from orchestrator.domain.logs.read import read_logs
    from orchestrator.domain.logs.steps import Choices

    with pytest.raises(Invalid, match=r"curve\.csv: is not UTF-8 text"):
        read_logs([("curve.csv", b"step,eval_loss\n1,\xff\n")], Choices())


@given(st.dictionaries(st.integers(0, 10**6), st.floats(0.1, 20), min_size=1, max_size=30))
def test_csv_and_jsonl_of_one_curve_are_one_curve(losses: dict[int, float]) -> None:
    rows = sorted(losses.items())
    as_csv = read_csv("step,eval_loss\n" + "".join(f"{step},{loss!r}\n" for step, loss in rows))
    as_jsonl = read_jsonl(*({"step": step, "eval_loss": loss} for step, loss in rows))
    assert points(as_csv) == points(as_jsonl) == rows
