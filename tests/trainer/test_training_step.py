"""The step: AdamW as torch's, the balance loss's gradient, accumulation, NaN."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_rigs import evaluations, exit_record, make_assignment, series, tiny_config, work_here

from orchestrator.protocol.exit import ExitCode
from trainer.data import open_data
from trainer.facts import validate
from trainer.optim import AdamW, clip_gradients
from trainer.training import Training


def _training(cache: Path, kind: str = "dense", **groups: Any) -> Training:
    config = validate(tiny_config(kind, **groups))
    data = open_data(config.data, config.sequence_length, cache)
    return Training(config, data, seed=0, horizon=100, device="cpu")


def test_adamw_is_torchs_bit_for_bit(cache: Path) -> None:
    ours, theirs = _training(cache), _training(cache)
    c = ours.config.optimizer
    decayed = AdamW(ours.model, c)._groups[0][0]
    named = dict(theirs.model.named_parameters())
    oracle = torch.optim.AdamW(
        [
            {"params": [named[n] for n in decayed], "weight_decay": c.weight_decay},
            {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0},
        ],
        betas=c.betas,
        eps=c.eps,
        fused=True,
    )
    for step in range(3):
        result = ours.step(step, detailed=False)
        for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
            q.grad = p.grad
        for group in oracle.param_groups:
            group["lr"] = result.learning_rate
        oracle.step()
    for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not any(".bias" in n or "norm" in n for n in decayed)


def test_clipping_is_torchs(cache: Path) -> None:
    training = _training(cache, optimizer={"grad_clip": 0.0})
    training.step(0, detailed=False)
    parameters = list(training.model.parameters())
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    norm = clip_gradients(training.model, 0.01)
    clipped = [p.grad.clone() for p in parameters if p.grad is not None]
    for p, g in zip(parameters, before, strict=True):
        p.grad = g
    assert norm.item() == pytest.approx(torch.nn.utils.clip_grad_norm_(parameters, 0.01).item())
    torch.testing.assert_close(clipped, [p.grad for p in parameters])


def test_a_balance_weight_of_zero_is_measured_without_gradient(cache: Path) -> None:
    # With top-1 the renormalised weight is constant: the balance loss is the router's only gradient.
    for coef, moved in ((0.0, False), (0.01, True)):
        training = _training(cache, "recurrent_shared_moe", moe={"aux_loss_coef": coef, "top_k": 1})
        result = training.step(0, detailed=True)
        router = training.model.stack.block.ffn.router.weight
        assert result.aux_loss is not None
        assert result.aux_loss >= 0.9
        assert result.aux_coef == coef
        assert result.details["token_entropy"] > 0
        assert (router.grad is not None and bool(router.grad.abs().max() > 1e-9)) is moved


def test_accumulation_is_a_larger_batch(cache: Path) -> None:
    split = _training(cache, model={"dropout": 0.0}, train={"batch_size": 2, "accumulation": 3})
    whole = _training(cache, model={"dropout": 0.0}, train={"batch_size": 6})
    a, b = split.step(0, detailed=False), whole.step(0, detailed=False)
    assert a.loss == pytest.approx(b.loss, rel=1e-5)
    assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)


def test_steps_that_are_not_finite_are_skipped_until_it_diverges(tmp_path: Path, cache: Path) -> None:
    poisoned = _training(cache)
    weights = {n: p.clone() for n, p in poisoned.model.state_dict().items()}
    with torch.no_grad():
        poisoned.model.norm.weight[0] = float("nan")
    assert not poisoned.step(0, detailed=False).finite
    assert torch.equal(poisoned.model.tokens.weight, weights["tokens.weight"])

    config = tiny_config(optimizer={"lr": 1e30, "grad_clip": 0.0}, schedule={"warmup_steps": 0})
    config["train"]["max_nan_steps"] = 3
    assignment = make_assignment(tmp_path / "a", cache, config=config, eval_every=2)
    work_here(assignment, ExitCode.DIVERGED)
    assert "3 steps in a row" in exit_record(assignment.directory)["message"]
    assert evaluations(assignment.directory)[2].nan_events >= 1


def test_gradient_checkpointing_changes_no_bit(cache: Path) -> None:
    for kind in ("dense", "recurrent_shared_moe"):
        plain, again = _training(cache, kind), _training(cache, kind, train={"gradient_checkpointing": True})
        for step in range(3):
            assert plain.step(step, detailed=False).loss == again.step(step, detailed=False).loss
        for p, q in zip(plain.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(p, q)


def test_compiling_changes_the_losses_by_rounding_alone(cache: Path) -> None:
    plain = _training(cache, model={"dropout": 0.0})
    compiled = _training(cache, model={"dropout": 0.0}, train={"compile": True})
    for step in range(3):
        expected = plain.step(step, detailed=False)
        assert compiled.step(step, detailed=False).loss == pytest.approx(expected.loss, abs=1e-5)


def test_bf16_trains_near_fp32_with_fp32_weights(cache: Path) -> None:
    full = _training(cache, "recurrent_shared_moe", model={"dropout": 0.0})
    half = _training(cache, "recurrent_shared_moe", model={"dropout": 0.0}, train={"precision": "bf16"})
    for step in range(5):
        expected = full.step(step, detailed=False)
        assert half.step(step, detailed=False).loss == pytest.approx(expected.loss, abs=0.05)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def test_the_z_loss_has_a_gradient_of_its_own(cache: Path) -> None:
    off = _training(cache, "recurrent_shared_moe", moe={"aux_loss_coef": 0.0})
    on = _training(cache, "recurrent_shared_moe", moe={"aux_loss_coef": 0.0, "z_loss_coef": 10.0})
    assert off.step(0, detailed=False).z_loss == 0
    for step in range(20):
        result = on.step(step, detailed=False)
    first = _training(cache, "recurrent_shared_moe", moe={"z_loss_coef": 1e-9}).step(0, detailed=False).z_loss
    assert result.z_loss is not None
    assert first is not None
    assert first == pytest.approx(math.log(4) ** 2, rel=0.05)  # four experts, scores near 0
    assert result.z_loss < first / 2


def test_bias_balancing_moves_against_the_load(cache: Path) -> None:
    training = _training(cache, "recurrent_shared_moe", moe={"aux_loss_coef": 0.0, "bias_update_rate": 0.01})
    router = training.model.stack.block.ffn.router
    training.step(0, detailed=False)
    assert training.counts is not None
    load = training.counts.sum(0).float()  # one router for both depths
    expected = 0.01 * torch.sign(load.mean() - load)
    torch.testing.assert_close(router.bias, expected)
    assert "stack.block.ffn.router.bias" in training.model.state_dict()


def test_a_detailed_step_measures_the_routing(cache: Path) -> None:
    training = _training(cache, "recurrent_shared_moe")
    assert training.step(0, detailed=False).details == {}
    details = training.step(1, detailed=True).details
    assert list(details) == ["token_entropy", "mean_entropy", "would_drop_share", "load_max", "depth_overlap"]
    assert 0.9 < details["token_entropy"] <= details["mean_entropy"] <= 1.0001
    assert 0.25 <= details["load_max"] <= 0.5
    assert 0 <= details["would_drop_share"] < 1
    assert 0 <= details["depth_overlap"] <= 1


def test_capacity_counts_what_it_drops(cache: Path, tmp_path: Path) -> None:
    config = tiny_config("recurrent_shared_moe", moe={"capacity_factor": 0.5})
    assignment = make_assignment(tmp_path / "run", cache, config=config)
    work_here(assignment)
    routing = evaluations(assignment.directory)[20].routing
    assert routing is not None
    # Half of the even share fits at most; 10 steps of 32 tokens twice at 2 depths since the last evaluation.
    assert 10 * 32 * 2 * 2 / 2 <= routing.dropped_tokens < 10 * 32 * 2 * 2


def test_the_balance_loss_sees_the_whole_step(cache: Path) -> None:
    """What is told is the loss of the whole batch, however many forward passes it took."""
    whole = _training(cache, "recurrent_shared_moe", model={"dropout": 0.0}, train={"batch_size": 4})
    parts = {"batch_size": 2, "accumulation": 2}
    split = _training(cache, "recurrent_shared_moe", model={"dropout": 0.0}, train=parts)
    own = _training(
        cache, "recurrent_shared_moe", model={"dropout": 0.0}, train=parts, moe={"aux_batch": "forward"}
    )
    expected = whole.step(0, detailed=False)
    assert split.step(0, detailed=False).aux_loss == pytest.approx(expected.aux_loss, abs=1e-6)
    assert own.step(0, detailed=False).aux_loss != pytest.approx(expected.aux_loss, abs=1e-6)


def test_target_losses_are_recorded_once(cache: Path, tmp_path: Path) -> None:
    config = tiny_config(train={"target_losses": [5.0, 0.1]})
    assignment = make_assignment(tmp_path / "run", cache, config=config)
    work_here(assignment)
    reached = series(assignment.directory, "seconds_to_loss/5")
    assert len(reached) == 1
    assert evaluations(assignment.directory)[next(iter(reached))].eval_loss <= 5.0
    assert series(assignment.directory, "seconds_to_loss/0.1") == {}


def test_the_balance_gradient_has_the_weight_of_its_step(cache: Path) -> None:
    """The router's gradient is the language model's plus the scheduled weight times the balance's."""
    scheduled = {
        "aux_loss_coef": 0.4,
        "aux_loss_coef_end": 0,
        "aux_warmup_frac": 0.1,
        "aux_decay_end_frac": 0.9,
    }

    def gradient(step: int, **moe: Any) -> torch.Tensor:
        training = _training(
            cache, "recurrent_shared_moe", model={"dropout": 0.0}, optimizer={"grad_clip": 0.0}, moe=moe
        )
        training.step(step, detailed=False)
        grad = training.model.stack.block.ffn.router.weight.grad
        assert grad is not None
        return grad.clone()

    for step, coef in ((0, 0.4), (10, 0.4), (50, 0.2), (95, 0.0)):
        without = gradient(step, aux_loss_coef=0.0)
        unit = gradient(step, aux_loss_coef=1.0) - without
        torch.testing.assert_close(gradient(step, **scheduled) - without, coef * unit, rtol=1e-3, atol=1e-7)
    assert unit.abs().max() > 1e-5


def test_bias_balancing_counts_every_pass(cache: Path) -> None:
    groups = {"moe": {"aux_loss_coef": 0.0, "bias_update_rate": 0.01}, "train": {"accumulation": 3}}
    training = _training(cache, "recurrent_shared_moe", **groups)
    training.step(0, detailed=False)
    assert training.counts is not None
    assert int(training.counts.sum()) == 3 * 32 * 2 * 2  # passes, tokens, choices, depths
    load = training.counts.sum(0).float()
    expected = 0.01 * torch.sign(load.mean() - load)
    torch.testing.assert_close(training.model.stack.block.ffn.router.bias, expected)
