"""The document a person submits. Immutable once accepted; identified by its hash."""

import hashlib
import json
from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.suggest import did_you_mean
from orchestrator.protocol.wire import MAX_INTEGER, JsonObject

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Letters, digits, `.`, `_`, `-`; starts with a letter or digit; at most 63 characters."""

Steps = Annotated[int, Field(ge=1, le=10**9)]
Overrides = dict[str, JsonValue]
"""Dotted paths into the trainer's config, and the values that replace what is there."""


class SpecModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Promote(SpecModel):
    """How runs enter a stage from the one before."""

    best: Annotated[int, Field(ge=1, le=1000)] = 1
    eligible: Literal["policy", "all"] = "policy"
    """`policy`: only runs that pass the promote criteria; `all`: every run that got there."""
    if_none: Literal["no_winner", "probation"] = "no_winner"


class StageSpec(SpecModel):
    """A step budget with its entrants and its gate."""

    name: Name
    steps: Steps
    variants: dict[Name, Overrides] = Field(default_factory=dict)
    """New variants, trained from step 0."""
    promote: Promote | None = None


class Resources(SpecModel):
    slots: Annotated[int, Field(ge=1, le=64)] = 1
    """Slots of each run."""


class ExperimentSpec(SpecModel):
    """One question with its plan. Raises `Invalid` through `parse_spec`, with every field that is wrong."""

    name: Name
    question: Annotated[str, Field(max_length=2000)] = ""
    trainer: Name = "builtin"
    base: JsonObject
    """The trainer's config that every variant starts from."""
    control: Name
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, le=MAX_INTEGER)]], Field(min_length=1, max_length=32)
    ] = [0]
    eval_every: Steps = 500
    policy: str | JsonObject = "stage-gate"
    resources: Resources = Resources()
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*_stage_problems(self), *_variant_problems(self), *_seed_problems(self)]
        if problems:
            raise Invalid(problems)
        return self

    @property
    def horizon(self) -> int:
        """The last stage's step: what every run's schedule is sized to."""
        return self.stages[-1].steps


def _stage_problems(spec: ExperimentSpec) -> list[FieldError]:
    problems = []
    before = 0
    names: set[str] = set()
    for index, stage in enumerate(spec.stages):
        field = f"stages[{index}]"
        if stage.steps <= before:
            problems.append(
                FieldError(f"{field}.steps", f"{stage.steps} must be above the stage before ({before})")
            )
        if stage.steps % spec.eval_every:
            near = max(1, round(stage.steps / spec.eval_every)) * spec.eval_every
            fix = (
                f"{stage.steps} is not a multiple of eval_every ({spec.eval_every}): use {near}, for example"
            )
            problems.append(FieldError(f"{field}.steps", fix))
        if stage.name in names:
            problems.append(
                FieldError(f"{field}.name", f"`{stage.name}` is already a stage: give it another name")
            )
        if index == 0 and stage.promote:
            message = "nothing can be promoted into the first stage: remove it, or move it to a later stage"
            problems.append(FieldError(f"{field}.promote", message))
        names.add(stage.name)
        before = stage.steps
    return problems


def _variant_problems(spec: ExperimentSpec) -> list[FieldError]:
    problems = []
    seen: dict[str, str] = {}
    for index, stage in enumerate(spec.stages):
        for name in stage.variants:
            if name in seen:
                message = f"`{name}` is already a variant of stage `{seen[name]}`: give it another name"
                problems.append(FieldError(f"stages[{index}].variants.{name}", message))
            seen.setdefault(name, stage.name)
    if not spec.stages[0].variants:
        message = "the first stage needs variants, the control among them"
        problems.append(FieldError("stages[0].variants", message))
    elif spec.control not in spec.stages[0].variants:
        hint = did_you_mean(spec.control, spec.stages[0].variants)
        message = f"`{spec.control}` is not a variant of the first stage{hint}"
        problems.append(FieldError("control", message))
    return problems


def _seed_problems(spec: ExperimentSpec) -> list[FieldError]:
    if len(set(spec.seeds)) == len(spec.seeds):
        return []
    return [FieldError("seeds", "a seed is named twice: each replicate needs its own seed")]


def parse_spec(document: JsonObject) -> ExperimentSpec:
    """The spec in `document`. Raises `Invalid` with every field that is wrong, and how to mend it."""
    try:
        return ExperimentSpec.model_validate(document)
    except ValidationError as error:
        raise Invalid([_field_error(dict(item)) for item in error.errors(include_url=False)]) from None


def _field_error(item: dict[str, object]) -> FieldError:
    location = _without_marks(cast("tuple[int | str, ...]", item["loc"]))
    field = dotted(location) or "spec"
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), _known_keys(location))
        return FieldError(field, f"unknown key{hint}")
    if item["type"] == "missing":
        return FieldError(field, "is required and missing")
    if item["type"] == "string_pattern_mismatch":
        fix = "use letters, digits, `.`, `_` and `-`, starting with a letter or digit, at most 63 characters"
        return FieldError(field, f"{item['input']!r} is not a name: {fix}")
    return FieldError(field, f"{item['msg']} (got {_short(item['input'])})")


def _without_marks(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The place without Pydantic's marks, told by where they stand, since a variant may have a mark's name.

    Below a JSON object a mark of the value's type follows each key; the two kinds of a policy are marks too.
    """
    if location[:1] == ("policy",):
        return ("policy",)
    depth = 1 if location[:1] == ("base",) else 4 if location[2:3] == ("variants",) else len(location)
    return location[:depth] + location[depth::2]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"stages": StageSpec, "resources": Resources, "promote": Promote}
    parents = [part for part in location[:-1] if isinstance(part, str)]
    model = models.get(parents[-1], ExperimentSpec) if parents else ExperimentSpec
    return list(model.model_fields)


def dotted(location: tuple[int | str, ...]) -> str:
    """`("stages", 0, "steps")` as `stages[0].steps`; Pydantic's mark for a mapping's key is left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def canonical_json(value: object) -> str:
    """One spelling for equal values: sorted keys, no spaces. Raises `ValueError` on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: object) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def spec_hash(spec: ExperimentSpec) -> str:
    """What identifies an accepted spec: equal for documents that mean the same."""
    return content_hash(spec.model_dump(mode="json"))
