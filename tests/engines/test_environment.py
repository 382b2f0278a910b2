"""What a worker sees of its surroundings, and which GPUs are offered."""

from pathlib import Path

from orchestrator.engines import environment
from orchestrator.engines.base import WorkerSpec
from orchestrator.engines.gpus import Gpu, visible

SPEC = WorkerSpec(("train",), Path("attempt"), threads=3, env={"MODE": "test", "OMP_NUM_THREADS": "1"})
GPUS = (Gpu(0, "GPU-aaaa", "one"), Gpu(1, "GPU-bbbb", "two"))


def test_secrets_and_settings_of_the_service_stay_out() -> None:
    service = {"PATH": "/bin", "ASSAY_DATABASE": "postgres://", "HF_HOME": "/cache", "HF_TOKEN": "secret"}
    seen = environment.for_worker(service, SPEC, [])
    assert seen["PATH"] == "/bin"
    assert seen["HF_HOME"] == "/cache"
    assert not {"ASSAY_DATABASE", "HF_TOKEN"} & set(seen)


def test_threads_are_limited_and_the_spec_has_the_last_word() -> None:
    seen = environment.for_worker({}, SPEC, [])
    assert seen["MKL_NUM_THREADS"] == "3"
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["MODE"] == "test"


def test_devices_are_named_and_none_hides_them_all() -> None:
    assert environment.for_worker({}, SPEC, [])["CUDA_VISIBLE_DEVICES"] == ""
    assert environment.for_worker({}, SPEC, ["GPU-a", "GPU-b"])["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


def test_only_the_gpus_that_the_service_may_use_are_offered() -> None:
    assert visible(GPUS, None) == GPUS
    assert visible(GPUS, "1") == GPUS[1:]
    assert visible(GPUS, "GPU-aa") == GPUS[:1]
    assert visible(GPUS, "") == ()
