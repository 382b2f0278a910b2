"""`make chaos`, small: a dozen faults against a real service with real workers, and a history to check."""

import pytest

from chaos.__main__ import run, summary

SEED = 7


@pytest.mark.timeout(240)
def test_a_dozen_faults_lose_nothing_and_double_nothing() -> None:
    verdict, folder = run("sqlite", 12, SEED, 1, steps=16)
    assert verdict.violations == [], f"{summary(verdict)}\nseed {SEED}, kept in {folder}"
    assert sum(verdict.faults.values()) == 12
    assert verdict.attempts > verdict.experiments
    assert verdict.reports > 0


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_two_services_on_postgresql_lose_nothing_and_double_nothing() -> None:
    verdict, folder = run("postgresql", 20, SEED, 2)
    assert verdict.violations == [], f"{summary(verdict)}\nseed {SEED}, kept in {folder}"
    assert sum(verdict.faults.values()) == 20
