"""The document a person submits, field by field. What its fields say together is checked by `spec_checks`."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_serializer,
)

from orchestrator.domain.levels import Grid, count_levels, expand_levels
from orchestrator.protocol.wire import MAX_INTEGER, JsonObject

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Letters, digits, `.`, `_`, `-`; starts with a letter or digit; at most 63 characters."""

Steps = Annotated[int, Field(ge=1, le=10**9)]
Overrides = dict[str, JsonValue]
"""Dotted paths into the trainer's config, and the values that replace what is there."""

Levels = Annotated[list[JsonValue], Field(min_length=1, max_length=1000)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_INTEGER)]], Field(min_length=1, max_length=32)]


class SpecModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BestOf(SpecModel):
    """The best of these variants when all of them have been judged."""

    best_of: Annotated[list[Name], Field(min_length=1, max_length=1000)]


class Dependent(SpecModel):
    """A variant that starts from a result: the config that was best, with `set` on top of it."""

    source: BestOf = Field(alias="from")
    set: Overrides = Field(default_factory=dict)

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"from": self.source.model_dump(), "set": self.set}


def _kind_of_variant(value: object) -> str:
    written = isinstance(value, Mapping) and "from" in value
    return "dependent" if written or isinstance(value, Dependent) else "overrides"


VariantSpec = Annotated[
    Annotated[Overrides, Tag("overrides")] | Annotated[Dependent, Tag("dependent")],
    Discriminator(_kind_of_variant),
]


class Promote(SpecModel):
    """How runs enter a stage from the one before."""

    best: Annotated[int, Field(ge=1, le=1000)] = 1
    eligible: Literal["policy", "all"] = "policy"
    """`policy`: only runs that pass the promote criteria; `all`: every run that got there."""
    if_none: Literal["no_winner", "probation"] = "no_winner"
    eager: bool = False
    """A variant whose place no other can take any more goes on before the gate closes."""


class StageSpec(SpecModel):
    """A step budget with its entrants and its gate."""

    name: Name
    steps: Steps
    variants: dict[Name, VariantSpec] = Field(default_factory=dict)
    """New variants, trained from step 0."""
    axes: dict[str, Levels] = Field(default_factory=dict)
    """More new variants: each axis of the base at each of its levels."""
    grid: Grid = "one_at_a_time"
    around_winner: dict[str, Levels] = Field(default_factory=dict)
    """New variants on the config of the best that enters this stage, one level at a time."""
    seeds: Seeds | None = None
    """Instead of those of the stage before; in the first, of the spec's."""
    promote: Promote | None = None

    @cached_property
    def of_axes(self) -> dict[str, Overrides]:
        """The variants of the axes, by name. Raises `ValueError` as `expand_levels` does."""
        return expand_levels(self.axes, self.grid)

    @cached_property
    def static(self) -> dict[str, Overrides]:
        """The variants that need no result, by name: those written out, then those of the axes."""
        return {n: v for n, v in self.variants.items() if not isinstance(v, Dependent)} | self.of_axes

    @cached_property
    def dependents(self) -> dict[str, Dependent]:
        """The variants that start from the best of others."""
        return {n: v for n, v in self.variants.items() if isinstance(v, Dependent)}

    @cached_property
    def around(self) -> dict[str, Overrides]:
        """The variants around the winner, by name. Raises `ValueError` as `expand_levels` does."""
        return expand_levels(self.around_winner)

    @cached_property
    def names(self) -> list[str]:
        """Every variant that starts in this stage."""
        return [*self.static, *self.dependents, *self.around]

    @property
    def count(self) -> int:
        """How many variants start in this stage, without making them."""
        return len(self.variants) + count_levels(self.axes, self.grid) + count_levels(self.around_winner)

    def __copy__(self) -> Self:
        """A copy without what was worked out of its fields, since `model_copy` may change those."""
        copy = super().__copy__()
        for name in ("of_axes", "static", "dependents", "around", "names"):
            copy.__dict__.pop(name, None)
        return copy


class Resources(SpecModel):
    slots: Annotated[int, Field(ge=1, le=64)] = 1
    """Slots of each run."""


class Budget(SpecModel):
    slot_hours: Annotated[float, Field(gt=0, strict=False)]
    """Hours of one slot, over all attempts of all runs."""


class Retries(SpecModel):
    """What a run may go through before it is given up."""

    restarts: Annotated[int, Field(ge=0, le=1000)] = 3
    """Of broken attempts (lost, stalled, crashed), in any `within_steps` steps of the run."""
    within_steps: Steps = 1000
    out_of_memory: Literal["fail", "accumulate"] = "fail"
    """`accumulate`: once more, each step divided into twice as many passes (same tokens, less memory)."""


class ExperimentSpec(SpecModel):
    """One question with its plan: what a document is parsed into, and what an accepted one is read as."""

    name: Name
    question: Annotated[str, Field(max_length=2000)] = ""
    trainer: Name = "builtin"
    base: JsonObject
    """The trainer's config that every variant starts from."""
    control: Name
    reference: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """A stored curve that stands in for the control if that dies: `ref_3`, or a name."""
    seeds: Seeds = [0]
    eval_every: Steps = 500
    policy: str | JsonObject = "stage-gate"
    shadow: str | JsonObject | None = None
    """A second policy whose decisions are logged and never acted upon."""
    resources: Resources = Resources()
    retries: Retries = Retries()
    budget: Budget | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Experiments of a higher one get slots first; equal ones share them."""
    same_config: Literal["refuse", "link"] = "refuse"
    """Of a run whose config, seed and schedule an earlier run has: train it again, or take that one over."""
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=16)]

    @property
    def horizon(self) -> int:
        """The last stage's step: what every run's schedule is sized to."""
        return self.stages[-1].steps

    @property
    def entered(self) -> int:
        """Variants that the plan can bring to life, the control not counted."""
        return sum(stage.count for stage in self.stages) - 1

    def seeds_of(self, position: int) -> list[int]:
        """The seeds of a stage: its own, else those of the stage before, else the spec's."""
        named = [stage.seeds for stage in self.stages[: position + 1] if stage.seeds is not None]
        return list(named[-1] if named else self.seeds)
