"""A policy's verdicts on recorded runs, each worked out once: most are the same in every set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.domain.curves import Curve, upto
from orchestrator.domain.evidence import Verdict, all_of, any_of, negate
from orchestrator.rules import criteria_health, criteria_phases, criteria_stop
from orchestrator.rules.cases import own_case, paired_case
from orchestrator.rules.criteria import CRITERIA, Case, Grid, Rival, Standing, standing_of
from orchestrator.rules.history import Recorded
from orchestrator.rules.nodes import Combined, Leaf, leaves
from orchestrator.rules.point import points
from orchestrator.rules.policies import Policy, sigma_at

OWN_CURVE = frozenset(module.__name__ for module in (criteria_stop, criteria_health, criteria_phases))
"""Modules whose criteria read the run's own curve alone: their verdicts are the same beside any control."""


@dataclass(frozen=True)
class FieldSays:
    """What the criteria of the field say at a step."""

    present: frozenset[str]
    """The variants that are compared."""
    dropped: Mapping[int, frozenset[str]]
    """Those that each criterion passes for, by the identity of its leaf."""


class Verdicts:
    """What the criteria of one policy say of recorded runs, kept by run, control and step."""

    def __init__(self, policy: Policy, recorded: Sequence[Recorded]) -> None:
        self.policy = policy
        self.recorded = recorded
        every = [*leaves(policy.stop), *leaves(policy.promote)]
        self._field = {id(leaf) for leaf in every if CRITERIA[leaf.criterion].field is not None}
        self._own = {id(leaf) for leaf in every if CRITERIA[leaf.criterion].ask.__module__ in OWN_CURVE}
        self.promotes_all = next(leaves(policy.promote), None) is None
        """Nothing is asked for at a gate, so the place in the field decides there too (`leaves_at_gate`)."""
        self._known: dict[tuple[int, int, int | None, int], Verdict] = {}
        self._last: tuple[tuple[int, int], Curve] | None = None
        self._controls: dict[tuple[int, int], Curve] = {}
        self._standings: dict[tuple[int, int, int], Standing] = {}
        self._points: dict[Grid, tuple[int, ...]] = {}

    def prefix(self, run: int, step: int) -> Curve:
        """The run's curve as it was known at the step. The last one is kept: several criteria ask for it."""
        if self._last is None or self._last[0] != (run, step):
            self._last = (run, step), upto(self.recorded[run].curve, step)
        return self._last[1]

    def points(self, grid: Grid) -> tuple[int, ...]:
        """The steps at which the policy compares variants: `point.points`."""
        if grid not in self._points:
            self._points[grid] = points(self.policy, grid)
        return self._points[grid]

    def standing(self, run: int, order: int, step: int) -> Standing:
        """The run in numbers, as the criteria of the field see it."""
        key = (run, order, step)
        if key not in self._standings:
            if order:
                found = replace(self.standing(run, 0, step), order=order)
            else:
                found = standing_of(Rival(self.recorded[run].config, (self.recorded[run].curve,), 0), step)
            self._standings[key] = found
        return self._standings[key]

    def field(self, node: Combined | Leaf, standings: Sequence[Standing], step: int, grid: Grid) -> FieldSays:
        """What the criteria of the field in a node say of everyone who is compared at the step."""
        found = {}
        sigma = sigma_at(self.policy, step, grid.horizon)
        at = replace(grid, sigma=sigma, tolerance=self.policy.tolerance)
        for leaf in leaves(node):
            rule = CRITERIA[leaf.criterion].field
            if rule is not None:
                found[id(leaf)] = rule.drops(leaf.params, standings, step, at)
        return FieldSays(frozenset(standing.variant for standing in standings), found)

    def ask(
        self,
        node: Combined | Leaf,
        run: int,
        control: int | None,
        step: int,
        field: FieldSays | None = None,
    ) -> Verdict:
        """The verdict of `nodes.ask` on the same case; parts that can no longer change it are not asked."""
        if isinstance(node, Leaf):
            return self._leaf(node, run, control, step, field)
        if node.how == "not":
            return negate(self.ask(node.parts[0], run, control, step, field))
        settles, join = (Verdict.FAIL, all_of) if node.how == "all" else (Verdict.PASS, any_of)
        verdicts = []
        for part in node.parts:
            verdicts.append(self.ask(part, run, control, step, field))
            if verdicts[-1] is settles:
                return settles
        return join(verdicts)

    def _leaf(self, leaf: Leaf, run: int, control: int | None, step: int, field: FieldSays | None) -> Verdict:
        if id(leaf) in self._field:
            config = self.recorded[run].config
            if field is None or config not in field.present:
                return Verdict.INCONCLUSIVE
            return Verdict.PASS if config in field.dropped[id(leaf)] else Verdict.FAIL
        if id(leaf) in self._own:
            control = None
        key = (id(leaf), run, control, step)
        if key not in self._known:
            self._known[key] = self._asked(leaf.criterion, leaf.params, self.case(run, control, step))
        return self._known[key]

    def _asked(self, criterion: str, params: Any, case: Case) -> Verdict:
        return CRITERIA[criterion].ask(params, case).verdict

    def case(self, run: int, control: int | None, step: int) -> Case:
        """The run alone at a step, or beside the control."""
        curve = self.prefix(run, step)
        if control is None:
            return own_case(curve, step, self.policy)
        if (control, step) not in self._controls:
            known = upto(self.recorded[control].curve, step)
            self._controls[control, step] = replace(known, is_control=True)
        return paired_case([curve], [self._controls[control, step]], step, self.policy)
