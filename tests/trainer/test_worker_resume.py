"""A run in one go and the same run with a restart in the middle: bit for bit the same."""

import shutil
import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from trainer_rigs import (
    evaluations,
    exit_record,
    finish,
    make_assignment,
    reports,
    series,
    start_work,
    tiny_config,
    work_here,
)

from orchestrator.protocol.exit import ExitCode
from trainer.worker import work


@pytest.mark.parametrize("kind", ["dense", "recurrent_shared_moe"])
def test_a_restart_changes_no_bit(kind: str, tmp_path: Path, cache: Path) -> None:
    common = {"config": tiny_config(kind), "horizon_step": 200, "eval_every": 40, "gate_steps": (100, 200)}
    whole = make_assignment(tmp_path / "whole", cache, target_step=200, **common)
    first = make_assignment(tmp_path / "first", cache, target_step=100, **common)
    second = make_assignment(
        tmp_path / "second",
        cache,
        target_step=200,
        attempt=2,
        resume_from=(str(tmp_path / "first"),),
        **common,
    )
    running = start_work(whole)
    finish(start_work(first))
    finish(start_work(second))
    finish(running)

    for name in ("train_loss", "grad_norm", "learning_rate"):
        parts = series(first.directory, name) | series(second.directory, name)
        assert parts == series(whole.directory, name)
        assert len(parts) == 200
    parts_evaluated = evaluations(first.directory) | evaluations(second.directory)
    whole_evaluated = evaluations(whole.directory)
    assert list(parts_evaluated) == [40, 80, 100, 120, 160, 200]
    timing = {"tokens_per_second", "wall_seconds", "peak_memory_bytes"}
    for step, evaluation in parts_evaluated.items():
        assert evaluation.model_dump(exclude=timing) == whole_evaluated[step].model_dump(exclude=timing)
    assert evaluations(second.directory)[120].wall_seconds > evaluations(first.directory)[100].wall_seconds
    assert reports(second.directory)[0].resumed_from_step == 100


EVERYTHING = {
    "z_loss_coef": 0.001,
    "bias_update_rate": 0.01,
    "capacity_factor": 1.0,
    "aux_loss_coef_end": 0.0,
}


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        ("dense", {}),
        ("recurrent_indexed", {"model": {"depth_index": "norm"}}),
        ("recurrent_indexed", {"model": {"depth_index": "ffn"}}),
        ("recurrent_shared_moe", {"moe": EVERYTHING}),
        ("recurrent_shared_moe", {"model": {"depth": "stacked"}, "moe": EVERYTHING}),
        ("recurrent_shared_moe", {"train": {"experts": "grouped"}}),
    ],
)
def test_any_split_with_accumulation_changes_no_bit(
    kind: str, groups: dict[str, dict[str, Any]], tmp_path: Path, cache: Path
) -> None:
    config = tiny_config(kind, **groups)
    config["train"] |= {"accumulation": 2, "gradient_checkpointing": True}
    common = {"config": config, "horizon_step": 20, "eval_every": 5}
    whole = make_assignment(tmp_path / "whole", cache, target_step=20, **common)
    work_here(whole)
    before: tuple[str, ...] = ()
    losses: dict[int, float] = {}
    for end in (3, 4, 13, 20):
        part = make_assignment(tmp_path / str(end), cache, target_step=end, resume_from=before, **common)
        work_here(part)
        losses |= series(part.directory, "train_loss")
        before = (part.directory, *before)
    assert losses == series(whole.directory, "train_loss")
    last, straight = evaluations(before[0])[20], evaluations(whole.directory)[20]
    assert (last.eval_loss, last.grad_norm, last.aux_loss) == (
        straight.eval_loss,
        straight.grad_norm,
        straight.aux_loss,
    )
    assert last.routing == straight.routing


def test_sigterm_checkpoints_at_a_step_boundary_and_the_window_goes_on(tmp_path: Path, cache: Path) -> None:
    config = tiny_config("recurrent_shared_moe", train={"log_every": 25})
    common = {"config": config, "horizon_step": 100_000, "eval_every": 100_000}
    long = make_assignment(tmp_path / "long", cache, target_step=100_000, **common)
    process = start_work(long)
    while (
        not (spool := tmp_path / "long" / "spool.jsonl").exists() or '"train_loss"' not in spool.read_text()
    ):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    finish(process, ExitCode.PREEMPTED)

    step = exit_record(long.directory)["step"]
    assert step > 0
    assert reports(long.directory)[-2].checkpoints[0].step == step
    assert reports(long.directory)[-1].exit is not None

    ends = {"horizon_step": 100_000, "eval_every": step + 10, "config": config}
    again = make_assignment(
        tmp_path / "again", cache, target_step=step + 10, resume_from=(long.directory,), **ends
    )
    whole = make_assignment(tmp_path / "whole", cache, target_step=step + 10, **ends)
    work_here(again)
    work_here(whole)
    mine, straight = evaluations(again.directory)[step + 10], evaluations(whole.directory)[step + 10]
    assert (mine.train_loss, mine.eval_loss) == (straight.train_loss, straight.eval_loss)
    assert mine.routing == straight.routing


def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path: Path, cache: Path) -> None:
    first = make_assignment(tmp_path / "first", cache)
    work_here(first)
    newest = tmp_path / "first" / "checkpoints" / "step-00000020"
    with (newest / "model.safetensors").open("r+b") as stream:
        stream.seek(300)
        stream.write(b"\xff\xff\xff\xff")

    second = make_assignment(tmp_path / "second", cache, resume_from=(first.directory,))
    work_here(second)
    opening = reports(second.directory)[0]
    assert opening.resumed_from_step == 10
    assert [(one.step, one.path) for one in opening.passed_over] == [(20, str(newest))]
    assert "model.safetensors" in opening.passed_over[0].problem
    assert evaluations(second.directory)[20].eval_loss == evaluations(first.directory)[20].eval_loss

    for folder in newest.parent.iterdir():
        (folder / "manifest.json").write_text("{")
    third = make_assignment(tmp_path / "third", cache, resume_from=(first.directory,))
    work_here(third, ExitCode.CHECKPOINT_ERROR)
    assert "step-00000010" in exit_record(third.directory)["message"]


def test_an_older_step_is_resumed_from_when_told(tmp_path: Path, cache: Path) -> None:
    first = make_assignment(tmp_path / "first", cache)
    work_here(first)
    second = make_assignment(tmp_path / "second", cache, resume_from=(first.directory,), resume_at_most=19)
    work_here(second)
    assert reports(second.directory)[0].resumed_from_step == 10


def test_a_checkpoint_of_another_config_is_refused_with_the_difference(tmp_path: Path, cache: Path) -> None:
    first = make_assignment(tmp_path / "run", cache)
    work_here(first)
    other = first.model_copy(update={"config": tiny_config(optimizer={"lr": 1e-3}), "target_step": 30})
    work_here(other, ExitCode.CONFIG_ERROR)
    assert "optimizer.lr: 0.003 -> 0.001" in exit_record(first.directory)["message"]
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    work_here(other)


def test_a_run_that_a_signal_stopped_at_its_target_is_evaluated_when_it_comes_back(
    tmp_path: Path, cache: Path
) -> None:
    config = tiny_config("recurrent_shared_moe")
    first = make_assignment(tmp_path / "first", cache, target_step=40, config=config)
    straight = make_assignment(tmp_path / "straight", cache, target_step=13, config=config)
    boundaries = count()
    record = work(first, lambda: next(boundaries) == 13)
    assert (record.code, record.step) == (ExitCode.PREEMPTED, 13)
    second = make_assignment(
        tmp_path / "second", cache, target_step=13, resume_from=(first.directory,), config=config
    )
    work_here(second)
    work_here(straight)
    assert list(evaluations(second.directory)) == [13]
    measured, expected = evaluations(second.directory)[13], evaluations(straight.directory)[13]
    assert measured.aux_loss_pooled is None  # of a step, and none was trained
    same = (
        "eval_loss",
        "train_loss",
        "learning_rate",
        "grad_norm",
        "aux_loss",
        "aux_coef",
        "routing",
        "tokens",
    )
    assert {n: getattr(measured, n) for n in same} == {n: getattr(expected, n) for n in same}


def test_another_tokenizer_or_text_is_refused_and_nothing_is_overwritten(tmp_path: Path, cache: Path) -> None:
    text = tmp_path / "text.txt"
    lines = [f"{n} is not {n + 1}, and a line of text is no more than a line" for n in range(2000)]
    for kind, changed in (("bpe", "tokenizer"), ("bytes", "evaluation_set")):
        text.write_text("\n".join(lines))
        tokenizer = {"kind": kind, **({"vocab_size": 300} if kind == "bpe" else {})}
        config = tiny_config(data={"source": str(text), "tokenizer": tokenizer})
        first = make_assignment(tmp_path / kind, cache, config=config)
        work_here(first)
        kept = sorted((tmp_path / kind / "checkpoints").rglob("*"))
        text.write_text("\n".join(line.replace("line", "verse") for line in lines))
        work_here(first.model_copy(update={"target_step": 30}), ExitCode.CONFIG_ERROR)
        assert f"has {changed} " in exit_record(first.directory)["message"]
        assert sorted((tmp_path / kind / "checkpoints").rglob("*")) == kept
