"""Hugging Face's trainer_state.json, and how a format is found."""

import json
from typing import Any

import pytest
from log_texts import eval_at, loss_at, points, read, state

from orchestrator.domain.errors import Invalid
from orchestrator.domain.logs.read import find_format, read_logs
from orchestrator.domain.logs.steps import Choices


def read_state(*texts: str) -> Any:
    return read(*texts, name="trainer_state.json", steps_per_epoch=None)


def history(*found: Any, **other: Any) -> str:
    return json.dumps({"log_history": list(found)} | other)


def test_the_history_is_the_curve() -> None:
    curve = read_state(state(0, 200))
    assert points(curve) == [(step, eval_at(step)) for step in (50, 100, 150, 200)]
    assert curve.train_loss == tuple((step, loss_at(step)) for step in range(10, 201, 10))
    assert curve.evaluations[0]["learning_rate"] == 1e-4
    assert curve.horizon_step == 1000
    assert curve.format == "huggingface"


def test_what_the_writers_own_trainer_logs_is_read() -> None:
    """As transformers 5 writes it: the summary at the end has no `loss`."""
    curve = read_state(
        history(
            {
                "loss": 3.2,
                "grad_norm": 0.4,
                "learning_rate": 1e-4,
                "epoch": 0.5,
                "num_input_tokens_seen": 640,
                "step": 5,
            },
            {"eval_loss": 3.4, "eval_runtime": 0.1, "epoch": 0.5, "num_input_tokens_seen": 640, "step": 5},
            {"train_runtime": 9.0, "train_loss": 3.3, "total_flos": 1e9, "epoch": 0.5, "step": 5},
            max_steps=-1,
        )
    )
    assert curve.evaluations == (
        {
            "step": 5,
            "eval_loss": 3.4,
            "train_loss": 3.2,
            "tokens": 640,
            "learning_rate": 1e-4,
            "grad_norm": 0.4,
        },
    )
    assert curve.horizon_step is None


def test_a_state_that_holds_the_history_of_the_one_before_drops_nothing() -> None:
    curve = read_state(state(0, 200), state(0, 400))
    assert points(curve) == points(read_state(state(0, 400)))
    assert "nothing of session 1 was dropped" in curve.notes[0]


def test_not_a_number_is_read_in_every_spelling() -> None:
    text = history({"eval_loss": "NaN", "step": 1}, {"eval_loss": 3.0, "step": 2}).replace("3.0", "3.5")
    assert [str(loss) for _, loss in points(read_state(text))] == ["nan", "3.5"]
    assert str(points(read_state(text.replace('"NaN"', "NaN")))[0][1]) == "nan"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "has no list `log_history`"),
        (history(), "no evaluation was found"),
        (history(3), r"log_history\[0\]: is no object"),
        (history({"eval_loss": 3.0}), r"log_history\[0\].step: is None"),
        (history({"eval_loss": 3.0, "step": 1.5}), r"log_history\[0\].step: is 1.5"),
        (history({"eval_loss": 3.0, "step": -1}), r"log_history\[0\].step: is -1"),
        (history({"eval_loss": [], "step": 1}), r"log_history\[0\].eval_loss: is '\[\]', where a number"),
        (
            history({"eval_loss": 3.0, "step": 1}, {"eval_loss": 4.0, "step": 1}),
            "another eval loss for step 1",
        ),
    ],
)
def test_a_bad_state_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read_state(text)


@pytest.mark.parametrize(
    ("name", "text", "format_"),
    [
        ("a/trainer_state.json", "{}", "huggingface"),
        ("state.json", "{}", "huggingface"),
        ("x.CSV", "", "csv"),
        ("x.jsonl", "", "jsonl"),
        ("x.txt", "step,eval_loss\n", "csv"),
        ("x.txt", '{"step": 1}\n', "jsonl"),
        ("nohup.out", "hello\n{'loss': 3}", "live-log"),
    ],
)
def test_the_format_is_found(name: str, text: str, format_: str) -> None:
    assert find_format(name, text.encode()) == format_


def test_files_of_two_formats_are_refused() -> None:
    files = [("a.csv", b"step,eval_loss\n"), ("b.jsonl", b"")]
    with pytest.raises(Invalid, match=r"a.csv is csv, b.jsonl is jsonl"):
        read_logs(files, Choices())


def test_no_file_is_refused() -> None:
    with pytest.raises(Invalid, match="at least one file"):
        read_logs([], Choices())
