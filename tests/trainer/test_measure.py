"""What an evaluation says beside the loss: peaks by device, utilisation, first times."""

import pytest

from trainer.measure import newly_reached, peak_flops
from trainer.state import Progress


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A40", 149.7e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_of_a_device_is_known_by_its_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_a_target_is_reached_once_and_remembered() -> None:
    progress = Progress(step=500, tokens=1000, wall_seconds=2.5)
    assert newly_reached(progress, (4.0, 3.0), 3.9) == [4.0]
    assert newly_reached(progress, (4.0, 3.0), 3.5) == []
    progress.step = 1000
    assert newly_reached(progress, (4.0, 3.0), 3.0) == [3.0]
    assert progress.reached["4.0"] == {"step": 500, "tokens": 1000, "wall_seconds": 2.5}
    assert Progress.from_json(progress.to_json()) == progress
