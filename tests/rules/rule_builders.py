"""Curves, cases and policies in few words, for the tests of the rules."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.domain.curves import Curve, StageView
from orchestrator.domain.decisions import Entrant
from orchestrator.protocol.report import Evaluation, Identity, Routing
from orchestrator.rules.criteria import Case
from orchestrator.rules.nodes import ask, parse_node
from orchestrator.rules.policies import Policy, resolve_policy

ROOT = Path(__file__).parents[2]
TOKENS_PER_STEP = 32_768
DOCUMENTS = {
    file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "configs" / "policies").glob("*.json"))
}
POLICIES = {name: resolve_policy(name, DOCUMENTS) for name in DOCUMENTS}
STAGE_GATE = resolve_policy("stage-gate", DOCUMENTS)
SHORT_SCREEN = resolve_policy("short-screen", DOCUMENTS)
SCREEN = StageView("screen", 1000, is_last=False)
CONFIRM = StageView("confirm", 5000, is_last=False)
LONG = StageView("long", 50_000, is_last=True)

IDENTITY = Identity(
    evaluation_set="set-a",
    tokenizer="gpt2",
    schedule_family="cosine",
    horizon_step=50_000,
    tokens_per_step=TOKENS_PER_STEP,
    parameters_total=1000,
    parameters_active=1000,
    flops_per_token=2000.0,
    device="cpu",
)


def identity(**changes: Any) -> Identity:
    return IDENTITY.model_copy(update=changes)


def routing(entropy: float = 0.95, imbalance: float = 0.5, experts: int = 40, **changes: Any) -> Routing:
    worst = changes.pop("worst", entropy)
    return Routing(
        num_experts=experts,
        entropy=entropy,
        entropy_worst_layer=worst,
        load_min=0.0,
        load_max=(1 + imbalance) / experts,
        **changes,
    )


def evaluation(step: int, loss: float, **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "step": step,
        "tokens": step * TOKENS_PER_STEP,
        "eval_loss": loss,
        "perplexity": 1.0,
        "train_loss": loss,
        "learning_rate": 1e-3,
        "grad_norm": 1.0,
        "tokens_per_second": 1000.0,
        "wall_seconds": float(step),
    }
    return Evaluation(**(fields | changes))


_ids: dict[tuple[str, int], int] = {}


def curve(
    variant: str,
    losses: Mapping[int, float],
    *,
    seed: int = 0,
    control: bool = False,
    who: Identity | None = IDENTITY,
    changes: Mapping[int, Mapping[str, Any]] | None = None,
    every: Mapping[str, Any] | None = None,
    train_loss: tuple[tuple[int, float], ...] = (),
    restarts: tuple[int, ...] = (),
) -> Curve:
    """`changes` are fields of one evaluation by its step, `every` of them all."""
    extra = changes or {}
    return Curve(
        run_id=_ids.setdefault((variant, seed), len(_ids) + 1),
        variant=variant,
        seed=seed,
        is_control=control,
        identity=who,
        evaluations=tuple(
            evaluation(step, loss, **(dict(every or {}) | dict(extra.get(step, {}))))
            for step, loss in losses.items()
        ),
        train_loss=train_loss,
        restarts=restarts,
    )


def control(losses: Mapping[int, float], **changes: Any) -> Curve:
    return curve("control", losses, control=True, **changes)


def entrants(*curves: Curve, out: tuple[Curve, ...] = ()) -> list[Entrant]:
    return [Entrant(c, out=False) for c in curves] + [Entrant(c, out=True) for c in out]


def case(subject: Curve, against: Curve | None = None, step: int | None = None, **changes: Any) -> Case:
    at = subject.evaluations[-1].step if step is None else step
    return Case(((subject, against),), at, **changes)


def result(document: dict[str, Any], judged: Case) -> Any:
    """What a piece of a policy says of a case."""
    problems: list[Any] = []
    node = parse_node(document, "test", problems)
    assert node is not None, problems
    return ask(node, judged)


def with_rules(policy: Policy = STAGE_GATE, **changes: Any) -> Policy:
    return Policy.model_validate(policy.model_dump(mode="json") | changes)


def flat(
    level: float, steps: int, every: int = 25, slope_per_1k: float = 0.0
) -> tuple[tuple[int, float], ...]:
    """A train-loss series on a straight line that ends at `level`."""
    return tuple(
        (step, level + slope_per_1k * (step - steps) / 1000) for step in range(every, steps + 1, every)
    )


def renamed(original: Curve, **changes: Any) -> Curve:
    return replace(original, **changes)
