"""`make chaos`, small: a dozen faults against a real service with real workers, and a history to check."""

import pytest

from chaos.__main__ import run, summary
from chaos.storm import Weather

SEED = 7
SHORT = (
    "service_killed",
    "service_paused",
    "worker_killed",
    "worker_terminated",
    "worker_paused",
    "supervisor_killed",
)
"""Faults that are over in a moment."""


@pytest.mark.timeout(240)
def test_a_dozen_faults_lose_nothing_and_double_nothing() -> None:
    verdict, folder = run("sqlite", Weather(SEED, 12, steps=12, every=(0.3, 0.9), kinds=SHORT, at_once=1))
    assert verdict.violations == [], f"{summary(verdict)}\nseed {SEED}, kept in {folder}"
    assert sum(verdict.faults.values()) == 12
    assert verdict.attempts > verdict.experiments
    assert verdict.reports > 0


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_two_services_on_postgresql_lose_nothing_and_double_nothing() -> None:
    verdict, folder = run("postgresql", Weather(SEED, 20, replicas=2))
    assert verdict.violations == [], f"{summary(verdict)}\nseed {SEED}, kept in {folder}"
    assert sum(verdict.faults.values()) == 20
