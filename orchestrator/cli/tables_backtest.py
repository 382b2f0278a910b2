"""What `backtest` and `calibrate` show, as rich renderables made from the API's JSON."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.sentences import NOTHING
from orchestrator.cli.tables import table


def backtest(item: Json) -> RenderableType:
    """One row for each policy, then where the first differs from each other."""
    smallest, largest = item["size"]
    size = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    control = f"control {item['control']}" if item["control"] else "the first of each set is its control"
    head = (
        f"{item['sets']:,} sets of {size} of {item['configs']} configs ({item['runs']} runs), stages "
        f"{', '.join(map(str, item['stages']))}, an evaluation every {item['eval_every']}; {control}"
    )
    notes = [Text(note) for note in item["notes"]]
    lines = [Text(line) for difference in item["differences"] for line in _difference(difference)]
    return Group(Text(head), *notes, Text(), _scores(item["scores"]), Text(), *lines)


def _scores(scores: Iterable[Json]) -> RenderableType:
    hours = any(score["slot_hours"] for score in scores)
    columns = ["policy", "cost", *(["slot-hours"] if hours else []), "regret", "p90", "best kept"]
    columns += ["false stops", "no winner", "coverage"]
    made = table(*columns, right=columns[1:])
    for score in scores:
        cells = [score["policy"], _share(score["cost"])]
        if hours:
            cells.append(_share(score["slot_hours"]))
        cells += [_nats(score["regret"]), _nats(score["regret_p90"])]
        cells += [_percent(score[name]) for name in ("best_kept", "false_stops", "no_winner", "coverage")]
        made.add_row(*cells)
    return made


def _share(estimate: Json | None) -> str:
    return NOTHING if estimate is None else f"{estimate['value']:.3f}"


def _nats(estimate: Json | None) -> str:
    """`0.0024 [0.0010, 0.0057]`: the value with its 95% interval."""
    if estimate is None:
        return NOTHING
    if estimate["low"] is None:
        return f"{estimate['value']:.4f}"
    return f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.0%}"


def _difference(item: Json) -> Iterable[str]:
    """Where one policy stops what another keeps: how often, when, whom, and one example."""
    if not item["runs"]:
        yield f"{item['policy']} stops nobody earlier than {item['other']} does"
        return
    at = sorted(item["at"], key=lambda found: (-found["runs"], found["step"]))[:3]
    steps = ", ".join(f"{found['runs']} at {found['step']:,}" for found in at)
    configs = ", ".join(f"{found['config']} ({found['runs']})" for found in item["configs"][:3])
    yield (
        f"{item['policy']} stops {item['runs']} of {item['of']} runs earlier than {item['other']} does "
        f"({steps}): {configs}"
    )
    example = item["examples"][0]
    final = "not recorded" if example["final"] is None else f"{float(example['final']):.4f}"
    yield (
        f"  for example {example['config']} of set {example['set']}: {_why(example['reason'])} at "
        f"{example['step']:,}, against {_why(example['other_reason'])} at {example['other_step']:,}; "
        f"its final loss is {final}"
    )


def _why(reason: str) -> str:
    return reason.replace("_", " ")


def calibration(item: Json) -> RenderableType:
    """Sigma by step, then each margin in it."""
    noise = table("step", "sigma", "runs", "configs", "degrees of freedom", right=("step", "sigma", "runs"))
    for found in item["noise"]:
        counts = (found["runs"], found["configs"], found["freedom"])
        noise.add_row(f"{found['step']:,}", f"{found['sigma']:.5f}", *map(str, counts))
    head = Text("seed noise of one run: pooled standard deviation within configs, in nats")
    notes = [Text(note) for note in item["notes"]]
    if item["policy"] is None:
        return Group(head, *notes, noise)
    lines = [Text(f"{margin['field']}: {margin['text']}") for margin in item["margins"]]
    named = Text(f"the margins of {item['policy']}, in standard deviations")
    return Group(head, *notes, noise, Text(), named, *lines)
