"""recorded curves x policies -> what each would have done, what it would have cost and lost."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random

from orchestrator.domain.backtests import Backtest, PolicySource, parse
from orchestrator.domain.curves import StageView
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.suggest import did_you_mean
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.history import Recorded, Replay, stages_of
from orchestrator.rules.policies import Policy, policy_hash, resolve_policy
from orchestrator.rules.resample import DrawnSet, draw_sets
from orchestrator.rules.score import Result, Score, Sets, regret_gap, score, stops_earlier
from orchestrator.rules.simulate import Simulator
from orchestrator.services import views_backtest as views
from orchestrator.services.context import Context
from orchestrator.services.history import Loaded, load_history, on_replay
from orchestrator.services.policies import known_policies

ANY = PromoteRule(best=1000)
SMALLEST, LARGEST = 8, 16


@dataclass(frozen=True)
class Named:
    """A policy under the name that the tables give it."""

    label: str
    policy: Policy


def backtest(context: Context, document: JsonObject) -> views.BacktestView:
    """Replays sets drawn from a history under each policy. Writes nothing.

    Raises `Invalid` with every field that is wrong, and `Missing` for an experiment that is not there.
    """
    asked = parse(document, Backtest)
    policies = named_policies(context, [asked.policy, *asked.against])
    loaded = load_history(context, asked.history)
    replay = _replay(asked, loaded)
    caps = [] if asked.stages or asked.promote or not loaded.promote else [_caps(loaded.promote)]
    recorded, notes = on_replay(loaded, replay, asked.history.horizon_exchange)
    control = asked.control or loaded.control
    size = _size(asked, recorded, control)
    sets = Sets(recorded, _draw(asked, recorded, size, control), replay.horizon)
    results = [replayed(named.policy, replay, sets) for named in policies]
    return views.BacktestView(
        configs=len({one.config for one in recorded}),
        runs=len(recorded),
        stages=[stage.steps for stage in replay.stages],
        eval_every=replay.every,
        sets=asked.sets,
        size=size,
        seed=asked.seed,
        control=control,
        scores=[
            _score_view(named, score(sets, found)) for named, found in zip(policies, results, strict=True)
        ],
        differences=_differences(policies, results, sets),
        notes=[*caps, *notes],
    )


def replayed(policy: Policy, replay: Replay, sets: Sets) -> list[Result]:
    """What the policy would have done with each set."""
    simulator = Simulator(policy, replay, sets.recorded)
    return [simulator.run(drawn.members, drawn.control) for drawn in sets.drawn]


def named_policies(context: Context, sources: Sequence[PolicySource]) -> list[Named]:
    """Each policy under its own name; of several of one name the later ones are numbered."""
    known = known_policies(context)
    problems: list[FieldError] = []
    found: list[Named] = []
    seen: Counter[str] = Counter()
    for place, source in enumerate(sources):
        field = "policy" if place == 0 else f"against[{place - 1}]"
        try:
            policy = resolve_policy(source, known)
        except Invalid as error:
            problems += [
                FieldError(f"{field}{e.field.removeprefix('policy')}", e.message) for e in error.errors
            ]
            continue
        seen[policy.name] += 1
        times = seen[policy.name]
        found.append(Named(policy.name if times == 1 else f"{policy.name} ({times})", policy))
    if problems:
        raise Invalid(problems)
    return found


def _replay(asked: Backtest, loaded: Loaded) -> Replay:
    """The plan that was asked for, else that of the history."""
    steps = asked.stages or loaded.stages
    every = asked.eval_every or loaded.eval_every
    if steps is None:
        raise Invalid(
            [FieldError("stages", "say the step of each gate, the horizon last: [500, 1500, 2900]")]
        )
    if every is None:
        raise Invalid([FieldError("eval_every", "the experiments differ in it: say which grid to replay on")])
    own = asked.stages is None and loaded.promote is not None
    rules = loaded.promote if own and asked.promote is None else None
    if asked.promote is not None:
        rules = tuple(PromoteRule(gate.best, gate.eligible, gate.if_none) for gate in asked.promote)
    if rules is not None and len(rules) != len(steps) - 1:
        message = f"{len(rules)} rules for {len(steps) - 1} gates: write one for each stage but the last"
        raise Invalid([FieldError("promote", message)])
    stages: tuple[StageView, ...] = stages_of(steps)
    return Replay(every, stages, (*(rules or [ANY] * (len(steps) - 1)), ANY))


def _caps(rules: Sequence[PromoteRule]) -> str:
    return f"the gates have the experiment's own caps: {', '.join(str(rule.best) for rule in rules)}"


def _size(asked: Backtest, recorded: Sequence[Recorded], control: str | None) -> tuple[int, int]:
    """The sizes that were asked for, or 8 to 16 where there are as many configs."""
    configs = sorted({one.config for one in recorded})
    if control is not None and control not in configs:
        raise Invalid(
            [FieldError("control", f"no recorded config is `{control}`{did_you_mean(control, configs)}")]
        )
    if len(configs) < 2:
        message = "one config is no set: give curves of two at least, a control and a variant"
        raise Invalid([FieldError("history", message)])
    if asked.size is None:
        return min(SMALLEST, len(configs)), min(LARGEST, len(configs))
    if asked.size[1] > len(configs):
        message = f"sets of {asked.size[1]} need as many configs, and the history has {len(configs)}"
        raise Invalid(
            [FieldError("size", f"{message}: make it [{min(asked.size[0], len(configs))}, {len(configs)}]")]
        )
    return asked.size


def _draw(
    asked: Backtest, recorded: Sequence[Recorded], size: tuple[int, int], control: str | None
) -> list[DrawnSet]:
    configs: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(recorded):
        configs[one.config].append(place)
    chance = Random(asked.seed)  # noqa: S311 - a seeded draw, no secret
    return draw_sets(chance, configs, count=asked.sets, smallest=size[0], largest=size[1], control=control)


def _score_view(named: Named, found: Score) -> views.ScoreView:
    values = asdict(found) | {"unscorable": dict(found.unscorable)}
    policy = named.policy
    return views.ScoreView(policy=named.label, version=policy.version, hash=policy_hash(policy), **values)


def _differences(
    policies: Sequence[Named], results: Sequence[Sequence[Result]], sets: Sets
) -> list[views.DifferenceView]:
    """The first policy against each other one, both ways round."""
    first = (policies[0].label, results[0])
    found = []
    for named, theirs in zip(policies[1:], results[1:], strict=True):
        other = (named.label, theirs)
        found += [_difference(first, other, sets), _difference(other, first, sets)]
    return found


def _difference(
    one: tuple[str, Sequence[Result]], other: tuple[str, Sequence[Result]], sets: Sets
) -> views.DifferenceView:
    earlier, gap = stops_earlier(sets, one[1], other[1]), regret_gap(sets, one[1], other[1])
    return views.DifferenceView(
        policy=one[0],
        other=other[0],
        regret=None if gap is None else views.EstimateView(**asdict(gap)),
        runs=earlier.runs,
        of=earlier.of,
        at=[views.AtStep(step=step, runs=count) for step, count in earlier.at],
        configs=[views.OfConfig(config=config, runs=count) for config, count in earlier.configs],
        examples=[
            views.ExampleView(set=one.number, **{k: v for k, v in asdict(one).items() if k != "number"})
            for one in earlier.examples
        ],
    )
