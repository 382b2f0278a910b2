"""From a spec to variants and runs: every config complete, checked and hashed."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.spec import ExperimentSpec, Overrides, content_hash
from orchestrator.protocol.kind import CheckConfig, ConfigFacts, ConfigProblem
from orchestrator.protocol.wire import JsonObject


@dataclass(frozen=True)
class Variant:
    """One config under test. `facts.config` is complete: defaults filled in."""

    name: str
    stage: int
    """Index of the stage where it starts, from step 0."""
    is_control: bool
    overrides: Overrides
    facts: ConfigFacts
    config_hash: str


@dataclass(frozen=True)
class PlannedRun:
    """One variant at one seed."""

    variant: str
    seed: int
    stage: int


def override(base: JsonObject, overrides: Overrides) -> JsonObject:
    """A copy of `base` with each dotted path set. Raises `KeyError` for a path through what is no object."""
    config = copy.deepcopy(base)
    for path, value in overrides.items():
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise KeyError(path)
            place = inner
        place[last] = copy.deepcopy(value)
    return config


def expand_variants(spec: ExperimentSpec, check: CheckConfig) -> list[Variant]:
    """Every variant in the spec's order. Raises `Invalid` with all configs that `check` refuses."""
    variants: list[Variant] = []
    problems: list[FieldError] = []
    in_base = _problems_of(spec.base, check)
    for index, stage in enumerate(spec.stages):
        for name, overrides in stage.variants.items():
            try:
                config = override(spec.base, overrides)
            except KeyError as error:
                path = str(error.args[0])
                message = f"`{path}` goes through a value that is not an object: name a field of the config"
                problems.append(FieldError(f"stages[{index}].variants.{name}.{path}", message))
                continue
            try:
                facts = check(config)
            except ConfigProblem as problem:
                problems += _locate(problem, f"stages[{index}].variants.{name}", in_base)
            else:
                is_control = name == spec.control
                hash_ = content_hash(facts.config)
                variants.append(Variant(name, index, is_control, overrides, facts, hash_))
    problems += _same_config_problems(variants)
    if problems:
        raise Invalid(list(dict.fromkeys(problems)))
    return variants


def _problems_of(config: JsonObject, check: CheckConfig) -> list[tuple[str, str]]:
    try:
        check(config)
    except ConfigProblem as problem:
        return problem.problems
    return []


def _locate(problem: ConfigProblem, where: str, in_base: list[tuple[str, str]]) -> list[FieldError]:
    """A problem that the base has by itself is the base's, once for all; another is the variant's."""
    return [
        FieldError(f"base.{field}" if (field, message) in in_base else f"{where}.{field}", message)
        for field, message in problem.problems
    ]


def _same_config_problems(variants: Sequence[Variant]) -> list[FieldError]:
    first: dict[str, str] = {}
    problems = []
    for variant in variants:
        twin = first.setdefault(variant.config_hash, variant.name)
        if twin != variant.name:
            message = f"has the same config as `{twin}`: change an override or remove one of them"
            problems.append(FieldError(f"stages[{variant.stage}].variants.{variant.name}", message))
    return problems


def expand_runs(spec: ExperimentSpec, variants: Sequence[Variant]) -> list[PlannedRun]:
    """Each variant at each seed; the control first, since every gate needs it."""
    ordered = sorted(variants, key=lambda variant: (variant.stage, not variant.is_control))
    return [PlannedRun(variant.name, seed, variant.stage) for variant in ordered for seed in spec.seeds]
