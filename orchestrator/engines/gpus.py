"""The GPUs of this machine, through NVML; the library and the driver may both be missing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    index: int
    uuid: str
    name: str


def installed() -> tuple[Gpu, ...]:
    """Every GPU that the driver knows, by index; none without a driver or without `nvidia-ml-py`."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(
            _read(pynvml.nvmlDeviceGetHandleByIndex(i), i) for i in range(pynvml.nvmlDeviceGetCount())
        )
    finally:
        pynvml.nvmlShutdown()


def visible(gpus: tuple[Gpu, ...], variable: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES of the service leaves (indices or ids); all if it is not set."""
    if variable is None:
        return gpus
    named = [name.strip() for name in variable.split(",") if name.strip()]
    return tuple(gpu for gpu in gpus if any(_is(gpu, name) for name in named))


def _is(gpu: Gpu, name: str) -> bool:
    return name == str(gpu.index) if name.isdigit() else gpu.uuid.startswith(name)


def _read(device: object, index: int) -> Gpu:
    import pynvml

    return Gpu(index, _text(pynvml.nvmlDeviceGetUUID(device)), _text(pynvml.nvmlDeviceGetName(device)))


def _text(value: str | bytes) -> str:
    """Old versions of the library answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
