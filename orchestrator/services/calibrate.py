"""recorded curves -> seed noise by step, and what a policy's margins are beside it."""

from collections.abc import Sequence
from dataclasses import asdict

from orchestrator.domain.backtests import Calibration, parse
from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.calibrate import Margin, Sigma, margins_of, noise_by_step, spread_steps
from orchestrator.rules.policies import Policy, resolve_policy
from orchestrator.services import views_backtest as views
from orchestrator.services.context import Context
from orchestrator.services.history import Loaded, load_history
from orchestrator.services.policies import known_policies


def calibrate(context: Context, document: JsonObject) -> views.CalibrationView:
    """Seed noise from replicates: runs of one config. Writes nothing.

    Raises `Invalid` with the fields that are wrong, or when no config has two runs at one step; and
    `Missing` for an experiment that is not there.
    """
    asked = parse(document, Calibration)
    policy = None if asked.policy is None else resolve_policy(asked.policy, known_policies(context))
    loaded = load_history(context, asked.history)
    noise, notes = _noise(loaded, asked.steps)
    margins = [] if policy is None else margins_of(policy)
    return views.CalibrationView(
        configs=len({raw.config for raw in loaded.raw}),
        runs=len(loaded.raw),
        noise=[views.SigmaView(**asdict(found)) for found in noise],
        policy=None if policy is None else _named(policy),
        margins=[_margin(margin, noise) for margin in margins],
        notes=[*loaded.notes, *notes],
    )


def _noise(loaded: Loaded, steps: Sequence[int] | None) -> tuple[Sequence[Sigma], list[str]]:
    """Runs of one config and one horizon are replicates: others differ by more than their seed."""
    runs = [
        (f"{raw.config}@{raw.horizon}", {e.step: e.eval_loss for e in raw.curve.evaluations if e.step > 0})
        for raw in loaded.raw
    ]
    every = noise_by_step(runs, sorted({step for _, by_step in runs for step in by_step}))
    if not every:
        message = "no config has two runs that were evaluated at one step: noise needs replicate seeds"
        raise Invalid([FieldError("history", message)])
    most = max(found.freedom for found in every)
    common = [found.step for found in every if 2 * found.freedom >= most]
    wanted = set(steps if steps is not None else spread_steps(common))
    noise = [found for found in every if found.step in wanted]
    unknown = sorted(wanted - {found.step for found in noise})
    notes = [f"no noise at step {step}: no config has two runs there" for step in unknown]
    if not noise:
        raise Invalid([FieldError("steps", "; ".join(notes))])
    return noise, notes


def _named(policy: Policy) -> str:
    return f"{policy.name}@{policy.version}"


def _margin(margin: Margin, noise: Sequence[Sigma]) -> views.MarginView:
    return views.MarginView(
        field=margin.field,
        value=margin.value,
        of=margin.of,
        at=[_in_sigmas(margin, found) for found in noise],
        text=margin.sentence(noise),
    )


def _in_sigmas(margin: Margin, found: Sigma) -> views.InSigmas:
    one = margin.value / found.sigma if found.sigma > 0 else None
    return views.InSigmas(step=found.step, of_one_run=one, sigmas=margin.in_sigmas(found.sigma))
