"""What a spec must be beyond the type of each field: names that exist, steps that rise, no circle."""

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.domain.errors import FieldError
from orchestrator.domain.hashing import canonical_json
from orchestrator.domain.levels import MOST_VARIANTS, counted
from orchestrator.domain.spec_models import ExperimentSpec, StageSpec
from orchestrator.domain.suggest import did_you_mean


def problems_of(spec: ExperimentSpec) -> list[FieldError]:
    """Every field that contradicts another, and how to mend it."""
    levels = [*_level_problems(spec), *_count_problems(spec)]
    if levels:
        return levels  # the names of the variants follow from the levels
    return [
        *_stage_problems(spec),
        *_first_stage_problems(spec),
        *_name_problems(spec),
        *_control_problems(spec),
        *_source_problems(spec),
        *_seed_problems(spec),
    ]


def _level_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    for index, stage in enumerate(spec.stages):
        for key in ("axes", "around_winner"):
            for path, levels in getattr(stage, key).items():
                if not path or any(not part for part in path.split(".")):
                    yield FieldError(f"stages[{index}].{key}", f"`{path}` is no dotted path into the config")
                if len({canonical_json(level) for level in levels}) < len(levels):
                    yield FieldError(
                        f"stages[{index}].{key}.{path}", "a level stands there twice: remove one"
                    )
        yield from _unnamed_levels(stage, index)


def _unnamed_levels(stage: StageSpec, index: int) -> Iterator[FieldError]:
    for key, made in (("axes", "of_axes"), ("around_winner", "around")):
        try:
            getattr(stage, made)
        except ValueError as error:
            yield FieldError(f"stages[{index}].{key}", str(error))


def _count_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    if spec.entered > MOST_VARIANTS:
        many = f"{counted(spec.entered)} variants beside the control; at most {MOST_VARIANTS:,}"
        yield FieldError("stages", f"{many}: remove some, or ask in two experiments")


def _stage_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    before = 0
    names: set[str] = set()
    for index, stage in enumerate(spec.stages):
        field = f"stages[{index}]"
        if stage.steps <= before:
            fix = f"{stage.steps} must be above the stage before ({before})"
            yield FieldError(f"{field}.steps", fix)
        if stage.steps % spec.eval_every:
            near = max(1, round(stage.steps / spec.eval_every)) * spec.eval_every
            fix = (
                f"{stage.steps} is not a multiple of eval_every ({spec.eval_every}): use {near}, for example"
            )
            yield FieldError(f"{field}.steps", fix)
        if stage.name in names:
            yield FieldError(f"{field}.name", f"`{stage.name}` is already a stage: give it another name")
        names.add(stage.name)
        before = stage.steps


def _first_stage_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    first = spec.stages[0]
    if first.promote:
        message = "nothing can be promoted into the first stage: remove it, or move it to a later stage"
        yield FieldError("stages[0].promote", message)
    if first.around_winner:
        message = "the first stage has no winner to stand around: move it to a later stage, or use `axes`"
        yield FieldError("stages[0].around_winner", message)


def _name_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    seen: dict[str, str] = {}
    for index, stage in enumerate(spec.stages):
        for place, names in _named_in(stage):
            for name in names:
                if name in seen:
                    message = f"`{name}` is already a variant of stage `{seen[name]}`: give it another name"
                    field = f"variants.{name}" if place == "variants" else place
                    yield FieldError(f"stages[{index}].{field}", message)
                seen.setdefault(name, stage.name)


def _named_in(stage: StageSpec) -> list[tuple[str, list[str]]]:
    axes, around = list(stage.of_axes), list(stage.around)
    return [("variants", list(stage.variants)), ("axes", axes), ("around_winner", around)]


def _control_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    first = spec.stages[0]
    if not first.names:
        yield FieldError("stages[0].variants", "the first stage needs variants, the control among them")
    elif spec.control in first.dependents:
        message = "the control cannot wait for a result: name a variant that is written out"
        yield FieldError("control", message)
    elif spec.control not in first.static:
        hint = did_you_mean(spec.control, first.static)
        yield FieldError("control", f"`{spec.control}` is not a variant of the first stage{hint}")


def _source_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    stage_of = {name: index for index, stage in enumerate(spec.stages) for name in stage.names}
    waits_for = {name: d.source.best_of for stage in spec.stages for name, d in stage.dependents.items()}
    for index, stage in enumerate(spec.stages):
        for name, dependent in stage.dependents.items():
            field = f"stages[{index}].variants.{name}.from.best_of"
            for source in dependent.source.best_of:
                if source not in stage_of:
                    yield FieldError(field, f"there is no variant `{source}`{did_you_mean(source, stage_of)}")
                elif stage_of[source] > index:
                    text = f"`{source}` starts in a later stage: wait for variants of this or an earlier one"
                    yield FieldError(field, text)
            if len(set(dependent.source.best_of)) < len(dependent.source.best_of):
                yield FieldError(field, "a variant is named twice: name each once")
            circle = _circle(name, waits_for)
            if circle:
                text = f"waits for itself ({' -> '.join(circle)}): break the circle"
                yield FieldError(field, text)


def _circle(start: str, waits_for: Mapping[str, Sequence[str]]) -> list[str]:
    """The way from a variant back to itself, or nothing."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for following in waits_for.get(way[-1], ()):
            if following == start:
                return [*way, start]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


def _seed_problems(spec: ExperimentSpec) -> Iterator[FieldError]:
    named = [("seeds", spec.seeds), *((f"stages[{i}].seeds", s.seeds) for i, s in enumerate(spec.stages))]
    for field, seeds in named:
        if seeds is not None and len(set(seeds)) < len(seeds):
            yield FieldError(field, "a seed is named twice: each replicate needs its own seed")
