"""An experiment's plan as the rules ask for it: its grid, its points, its stages, its policy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from orchestrator.domain.curves import StageView
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.spec_models import ExperimentSpec, Promote
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.criteria import CRITERIA, Grid
from orchestrator.rules.nodes import leaves
from orchestrator.rules.point import points
from orchestrator.rules.policies import Policy
from orchestrator.store.records import ExperimentRecord, RunRecord, VariantRecord


@dataclass(frozen=True)
class Protocol:
    """What an accepted experiment was promised: read from its row, never from today's files."""

    spec: ExperimentSpec
    policy: Policy
    grid: Grid
    points: tuple[int, ...]
    """Steps below the horizon at which all runs of a stage wait for each other."""

    @property
    def compares(self) -> bool:
        """Whether the policy's stop rule compares variants with each other."""
        return any(CRITERIA[leaf.criterion].field is not None for leaf in leaves(self.policy.stop))

    @property
    def waits(self) -> tuple[int, ...]:
        """Every step at which runs wait: points and the ends of stages."""
        return tuple(sorted({*self.points, *self.grid.stages}))

    def stage(self, position: int) -> StageView:
        """The stage as the rules see it."""
        stage = self.spec.stages[position]
        inside = tuple(step for step in self.points if step < stage.steps)
        begins = self.spec.stages[position - 1].steps if position else 0
        return StageView(stage.name, stage.steps, position == len(self.spec.stages) - 1, inside, begins)

    def target(self, position: int, step: int) -> int:
        """Where a run of a stage that has come to `step` is to go next: a point, or the stage's end.

        A run that enters late has the points of earlier stages before it, too.
        """
        end = self.spec.stages[position].steps
        return next((point for point in self.points if step < point < end), end)

    def begins(self, run: RunRecord) -> int:
        """Index of the stage in which the run began, from step 0: its variant's, or the first of its seed."""
        later = range(run.variant_stage, len(self.spec.stages))
        return next((p for p in later if run.seed in self.spec.seeds_of(p)), run.variant_stage)

    def has_been_in(self, run: RunRecord, position: int) -> bool:
        """Whether the run is one of a stage that is open, or has gone on from it early."""
        return run.stage == position or (run.stage > position and self.begins(run) <= position)

    def rule(self, position: int) -> PromoteRule:
        """Who enters the stage at `position` from the one before."""
        promote = self.spec.stages[position].promote or Promote()
        seeds = tuple(self.spec.seeds_of(position))
        return PromoteRule(promote.best, promote.eligible, promote.if_none, promote.eager, seeds)

    def compared(
        self, sources: Sequence[VariantRecord], every: Sequence[RunRecord]
    ) -> tuple[int, list[RunRecord]]:
        """The step at which the sources of a waiting variant are compared, and their runs that are.

        Each source is there with the seeds of the stage it began in: those that a later stage adds to it
        come too late to be waited for.
        """
        seeds = {row.name: self.spec.seeds_of(row.stage) for row in sources}
        step = max((self.spec.stages[row.stage].steps for row in sources), default=0)
        return step, [run for run in every if run.seed in seeds.get(run.variant, ())]


@dataclass(frozen=True)
class _Accepted:
    """What an experiment was accepted with: known by its hashes, so that equal ones are read once."""

    spec_hash: str
    policy_hash: str
    spec: JsonObject = field(compare=False)
    policy: JsonObject = field(compare=False)


def protocol_of(experiment: ExperimentRecord) -> Protocol:
    """The protocol of an accepted experiment."""
    return _protocol(
        _Accepted(experiment.spec_hash, experiment.policy_hash, experiment.spec, experiment.policy)
    )


@lru_cache(maxsize=256)
def _protocol(accepted: _Accepted) -> Protocol:
    """Kept, since every evaluation asks for it and a spec of many variants takes long to read."""
    spec = ExperimentSpec.model_validate(accepted.spec)
    return make_protocol(spec, Policy.model_validate(accepted.policy))


def make_protocol(spec: ExperimentSpec, policy: Policy) -> Protocol:
    """The protocol of a spec under a policy."""
    grid = Grid(spec.eval_every, tuple(stage.steps for stage in spec.stages), spec.entered)
    return Protocol(spec, policy, grid, points(policy, grid))


def plan_order(spec: ExperimentSpec) -> Sequence[str]:
    """The variants in the order in which the plan names them."""
    return [name for stage in spec.stages for name in stage.names]
