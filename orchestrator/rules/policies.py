"""A policy: a named, versioned document of criteria and limits, and what it amounts to for a plan."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from pydantic import Field, ValidationError

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.spec_models import Name
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules import (
    criteria_compare,
    criteria_efficiency,
    criteria_field,
    criteria_health,
    criteria_leader,
    criteria_median,
    criteria_phases,
    criteria_stop,
)
from orchestrator.rules.bands import Bands
from orchestrator.rules.criteria import CRITERIA, Params
from orchestrator.rules.criteria_compare import SameLoss
from orchestrator.rules.criteria_health import HealthyRouting, NotDiverged
from orchestrator.rules.nodes import Node, did_you_mean, evaluations_needed, field_errors, leaves, parse_node
from orchestrator.rules.noise import NoiseBand, noise_at

REGISTERED_BY = (
    criteria_compare,
    criteria_efficiency,
    criteria_field,
    criteria_health,
    criteria_leader,
    criteria_median,
    criteria_phases,
    criteria_stop,
)
"""Importing a module of criteria enters them in the registry: a new one is named here."""


class Policy(Params):
    """The criteria of a stop and of a promotion, and the guards and limits around them."""

    name: Name
    version: int = Field(ge=1)
    description: str = Field(default="", max_length=4000)

    stop: Node
    promote: Node
    diverged: NotDiverged = NotDiverged()
    unhealthy_routing: HealthyRouting = HealthyRouting()

    tolerance: float = Field(default=1e-6, ge=0)
    """A comparison passes at equality: floats within this of it count as equal."""
    sigma: float | None = Field(default=None, ge=0)
    """Seed noise in nats where the control has fewer than two seeds; null: not known, floors alone apply."""
    noise: tuple[NoiseBand, ...] = Field(default=(), max_length=100)
    """The same by step: the first band that covers a step goes before `sigma`."""
    interpolation_ratio: float = Field(default=2.0, ge=1)
    """The later of two evaluations around a missing one is at most this many times the earlier."""
    ties: SameLoss = SameLoss()
    """Gate values this near to the best of their group are a tie."""
    bands: Bands = Bands()


def resolve_policy(source: str | JsonObject, known: Mapping[str, JsonObject]) -> Policy:
    """The policy of that name, or the one that the document describes. Raises `Invalid` with the fields."""
    if isinstance(source, str):
        if source not in known:
            alike = [name for name in known if ("@" in name) == ("@" in source)]
            message = f"there is no policy `{source}`; {did_you_mean(source, alike)}"
            raise Invalid([FieldError("policy", message)])
        source = known[source]
    document = dict(source)
    problems: list[FieldError] = []
    for field in ("stop", "promote"):
        if field in document and (parse_node(document[field], f"policy.{field}", problems)) is None:
            document[field] = {"any": []}  # named in `problems` already
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        problems.extend(field_errors(error, "policy", list(Policy.model_fields)))
    if problems:
        raise Invalid(problems)
    return policy


def sigma_at(policy: Policy, step: int, horizon: int | None) -> float:
    """Seed noise in nats that the policy assumes at a step, where none is measured; 0 where it says none."""
    known = noise_at(policy.noise, step, horizon)
    return known if known is not None else policy.sigma or 0.0


def policy_hash(policy: Policy) -> str:
    """SHA-256 of the policy's canonical JSON: sorted keys, no spaces, every default filled in."""
    document = policy.model_dump(mode="json")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def unable_to_fire(
    policy: Policy, stages: Sequence[tuple[str, int]], eval_every: int, points: Sequence[int] | None = None
) -> list[str]:
    """A sentence for each rule that cannot come true in a stage, for want of evaluations or of points.

    `points` are the steps at which the policy compares the variants of the plan, where they are known.
    """
    warnings = _without_points(policy, stages, points)
    for rule, node in (("stop", policy.stop), ("promote", policy.promote)):
        needed = evaluations_needed(node)
        if needed is None:
            if rule == "promote":
                warnings.append(f"the promote rule of policy {policy.name} never passes: its `any` is empty")
            continue
        if warnings and rule == "stop":
            continue  # it cannot fire at all, and that is said
        gates = stages if rule == "stop" else stages[:-1]
        for name, steps in gates:
            count = steps // eval_every
            if count < needed:
                warnings.append(
                    f"the {rule} rule of policy {policy.name} needs {needed} evaluations; with one every "
                    f"{eval_every:,} steps a run has {count} at the end of {name} (step {steps:,}), "
                    f"so it cannot fire in {name}"
                )
    return warnings


def _without_points(
    policy: Policy, stages: Sequence[tuple[str, int]], points: Sequence[int] | None
) -> list[str]:
    """What to say of a stop rule that hangs on comparisons for which the plan has no point."""
    compares = [leaf.criterion for leaf in leaves(policy.stop) if CRITERIA[leaf.criterion].field is not None]
    if points is None or points or not compares or evaluations_needed(policy.stop, field=False) is not None:
        return []
    horizon = max((steps for _, steps in stages), default=0)
    return [
        f"the stop rule of policy {policy.name} compares variants ({', '.join(compares)}), and this plan has "
        f"no point before step {horizon:,} at which that could drop one: nobody is stopped by it"
    ]
