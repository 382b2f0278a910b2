"""An operator's own criterion: registered from a module, named by a policy, refused when it cannot be."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.bootstrap import load_criteria
from orchestrator.domain.errors import Invalid
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.criteria import CRITERIA
from orchestrator.rules.nodes import ask
from orchestrator.rules.policies import resolve_policy
from orchestrator.rules.schema import policy_schema
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "protocol.md").read_text()
EXAMPLE = PAGE.partition("## A criterion of your own")[2].partition("```python\n")[2].partition("```")[0]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from; what the modules register is taken out again."""
    before, loaded = dict(CRITERIA), set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - loaded:
        del sys.modules[name]
    CRITERIA.clear()
    CRITERIA.update(before)


def test_the_example_of_the_docs_is_a_criterion_like_any_other(modules: Path) -> None:
    (modules / "mylab_criteria.py").write_text(EXAMPLE)
    load_criteria(Settings(criteria=("mylab_criteria",)).criteria)
    document = {
        "name": "mine",
        "version": 1,
        "stop": {"criterion": "loss_above", "at_most": 4.0},
        "promote": {"not": {"criterion": "loss_above"}},
    }
    policy = resolve_policy(document, {})
    sys.path.insert(0, str(ROOT / "tests" / "rules"))
    try:
        from rule_builders import case, curve
    finally:
        sys.path.pop(0)
    found = ask(policy.stop, case(curve("a", {500: 4.25})))
    assert (found.verdict, found.measured, found.threshold) == (Verdict.PASS, 4.25, 4.0)
    assert found.text == "eval loss 4.250 at step 500; it stops above 4.000"
    assert ask(policy.stop, case(curve("a", {500: 3.75}))).verdict is Verdict.FAIL
    schema = policy_schema()
    assert schema["$defs"]["criterion:loss_above"]["properties"]["at_most"]["default"] == 5.0  # type: ignore[index,call-overload]
    with pytest.raises(Invalid, match="no such field; did you mean `at_most`"):
        resolve_policy(document | {"stop": {"criterion": "loss_above", "at_mst": 4.0}}, {})


def test_twice_the_same_module_is_once(modules: Path) -> None:
    (modules / "mylab_twice.py").write_text(EXAMPLE)
    load_criteria(["mylab_twice", "mylab_twice"])
    assert "loss_above" in CRITERIA


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No module named 'mylab_wrong'"),
        ("def (", "invalid syntax"),
        (EXAMPLE.replace('"loss_above"', '"plateau"'), "two criteria are called plateau"),
        ("import math", "registers no criterion: call `register`"),
    ],
)
def test_a_module_that_registers_nothing_names_the_setting(
    modules: Path, text: str | None, reason: str
) -> None:
    if text is not None:
        (modules / "mylab_wrong.py").write_text(text)
    with pytest.raises(ValueError, match="ASSAY_CRITERIA") as caught:
        load_criteria(["mylab_wrong"])
    assert str(caught.value).startswith("criteria: `mylab_wrong`")
    assert reason in str(caught.value)


def test_the_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_CRITERIA", '["mylab.criteria", "other"]')
    monkeypatch.delenv("ASSAY_CONFIG", raising=False)
    assert Settings().criteria == ("mylab.criteria", "other")
