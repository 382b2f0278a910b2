"""The environment a worker is started with: little of the service's, limits for threads, its own devices."""

from collections.abc import Mapping, Sequence

from orchestrator.engines.base import WorkerSpec

_INHERITED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "XDG_CACHE_HOME",
        "TORCH_HOME",
        "CUDA_HOME",
    }
)
_INHERITED_PREFIXES = ("LC_", "HF_", "NCCL_", "NVIDIA_")
_SECRET = ("TOKEN", "SECRET", "PASSWORD", "_KEY")
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def for_worker(service: Mapping[str, str], spec: WorkerSpec, devices: Sequence[str]) -> dict[str, str]:
    """What the worker sees: an allow-list of the service's environment, the engine's limits, then `spec.env`.

    `devices` are the ids of its GPUs; with none, CUDA shows it no GPU. Secrets of the service stay out.
    """
    limits = dict.fromkeys(_THREAD_LIMITS, str(spec.threads))
    return {
        **{name: value for name, value in service.items() if _passes(name)},
        **limits,
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which NVML counts
        "CUDA_VISIBLE_DEVICES": ",".join(devices),
        **spec.env,
    }


def _passes(name: str) -> bool:
    if any(word in name for word in _SECRET):
        return False
    return name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
