"""Cost against regret: a point for each policy, a line for the sweep, an interval where it is known."""

from orchestrator.figures.backtest import PolicyPoint, cost_against_regret


def test_points_and_the_sweep_are_drawn_with_their_intervals() -> None:
    sweep = [PolicyPoint("f0 0.04", 0.5, 0.001, 0.0, 0.003), PolicyPoint("f0 0.01", 0.3, 0.004, 0.001, 0.007)]
    figure = cost_against_regret([PolicyPoint("run-all", 1.0, 0.0)], sweep)
    line, point = figure.data
    assert list(line.x) == [0.3, 0.5]  # by cost, so that the line does not run back
    assert list(line.text) == ["f0 0.01", "f0 0.04"]
    assert [round(x, 6) for x in line.error_y.array] == [0.003, 0.002]
    assert [round(x, 6) for x in line.error_y.arrayminus] == [0.003, 0.001]
    assert line.mode == "lines+markers+text"
    assert (list(point.x), point.name, point.error_y.array) == ([1.0], "run-all", None)
    assert figure.layout.yaxis.title.text == "regret (nats)"
