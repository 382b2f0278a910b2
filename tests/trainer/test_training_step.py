"""The step: AdamW as torch's, the balance loss's gradient, accumulation, NaN."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_rigs import evaluations, exit_record, make_assignment, tiny_config, work_here

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
