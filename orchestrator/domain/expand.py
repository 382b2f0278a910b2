"""From a spec to variants and runs: every config complete, checked and hashed."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.hashing import content_hash
from orchestrator.domain.spec_models import ExperimentSpec, Overrides
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
class Waiting:
    """A variant that a result has to choose the base of: of the best of some, or of a stage's winner."""

    name: str
    stage: int
    kind: Literal["best_of", "around_winner"]
    sources: tuple[str, ...]
    """The variants that are waited for; none around a winner."""
    overrides: Overrides


@dataclass(frozen=True)
class Expansion:
    """What a spec's variants amount to."""

    variants: list[Variant]
    """Those that can start at once, in the spec's order."""
    waiting: list[Waiting]
    left_out: list[str] = field(default_factory=list)
    """Sentences on levels of an axis that are another variant's config, and so are no variant."""


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


def expand_variants(spec: ExperimentSpec, check: CheckConfig) -> Expansion:
    """Every variant of the spec. Raises `Invalid` with all configs that `check` refuses.

    A variant that waits is checked on every config that it can come to start from, as far as those are known.
    """
    problems: list[FieldError] = []
    in_base = _problems_of(spec.base, check)
    variants: list[Variant] = []
    for index, stage in enumerate(spec.stages):
        for name, overrides in stage.static.items():
            where = f"stages[{index}].variants.{name}" if name in stage.variants else f"stages[{index}].axes"
            facts = _facts(spec.base, overrides, check, where, in_base, problems)
            if facts is not None:
                is_control = name == spec.control
                variants.append(
                    Variant(name, index, is_control, overrides, facts, content_hash(facts.config))
                )
    kept, left_out = _without_twins(spec, variants, problems)
    waiting = list(_waiting(spec))
    _check_waiting(spec, kept, waiting, check, problems)
    if problems:
        raise Invalid(list(dict.fromkeys(problems)))
    return Expansion(kept, waiting, left_out)


def _facts(
    base: JsonObject,
    overrides: Overrides,
    check: CheckConfig,
    where: str,
    in_base: list[tuple[str, str]],
    problems: list[FieldError],
) -> ConfigFacts | None:
    """What the config amounts to; None when it is refused, and `problems` says why."""
    try:
        return check(override(base, overrides))
    except KeyError as error:
        path = str(error.args[0])
        message = f"`{path}` goes through a value that is not an object: name a field of the config"
        problems.append(FieldError(f"{where}.{path}", message))
    except ConfigProblem as problem:
        problems += _locate(problem, where, in_base)
    return None


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


def _without_twins(
    spec: ExperimentSpec, variants: Sequence[Variant], problems: list[FieldError]
) -> tuple[list[Variant], list[str]]:
    """One variant for each config. A twin that is written out is a mistake; one of an axis is left out."""
    first: dict[str, Variant] = {}
    for variant in sorted(variants, key=lambda v: (v.name not in spec.stages[v.stage].variants, v.stage)):
        first.setdefault(variant.config_hash, variant)
    kept, left_out = [], []
    for variant in variants:
        twin = first[variant.config_hash]
        if twin is variant:
            kept.append(variant)
        elif variant.name in spec.stages[variant.stage].variants:
            message = f"has the same config as `{twin.name}`: change an override or remove one of them"
            problems.append(FieldError(f"stages[{variant.stage}].variants.{variant.name}", message))
        else:
            left_out.append(f"{variant.name} is the config of {twin.name}: it is not trained again")
    return kept, left_out


def _waiting(spec: ExperimentSpec) -> Iterator[Waiting]:
    for index, stage in enumerate(spec.stages):
        for name, dependent in stage.dependents.items():
            yield Waiting(name, index, "best_of", tuple(dependent.source.best_of), dependent.set)
        for name, overrides in stage.around.items():
            yield Waiting(name, index, "around_winner", (), overrides)


def _check_waiting(
    spec: ExperimentSpec,
    variants: Sequence[Variant],
    waiting: Sequence[Waiting],
    check: CheckConfig,
    problems: list[FieldError],
) -> None:
    """Each on every config that it may start from: those of its sources, or of all that may win.

    What starts from another waiting variant is checked on that one's configs in turn, up to a bound.
    """
    known: dict[str, list[ConfigFacts]] = {variant.name: [variant.facts] for variant in variants}
    left = list(waiting)
    while left:
        open_ = {waiter.name for waiter in left}
        ready = [w for w in left if all(source in known or source not in open_ for source in w.sources)]
        if not ready:
            return  # a source was refused: that is said already
        for waiter in ready:
            known[waiter.name] = _check_one(spec, waiter, known, check, problems)
        left = [waiter for waiter in left if waiter not in ready]


MOST_BASES = 50
"""Configs that one waiting variant is checked on at submission."""


def _check_one(
    spec: ExperimentSpec,
    waiter: Waiting,
    known: Mapping[str, list[ConfigFacts]],
    check: CheckConfig,
    problems: list[FieldError],
) -> list[ConfigFacts]:
    around = waiter.kind == "around_winner"
    place = "around_winner" if around else f"variants.{waiter.name}.set"
    sources = waiter.sources or [name for name in known if name != spec.control]
    bases = [facts for source in sources for facts in known.get(source, [])][:MOST_BASES]
    found = []
    for facts in bases:
        where = f"stages[{waiter.stage}].{place}"
        made = _facts(facts.config, waiter.overrides, check, where, [], problems)
        if made is None:
            break  # one example of what is refused is enough
        found.append(made)
    return found


def expand_runs(spec: ExperimentSpec, variants: Sequence[Variant]) -> list[PlannedRun]:
    """Each variant at each seed of its stage; the control first, since every gate needs it."""
    ordered = sorted(variants, key=lambda variant: (variant.stage, not variant.is_control))
    return [
        PlannedRun(variant.name, seed, variant.stage)
        for variant in ordered
        for seed in spec.seeds_of(variant.stage)
    ]
