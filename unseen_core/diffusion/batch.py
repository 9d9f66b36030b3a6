"""How many images a network call takes: probed once, and said in one line where it is too many."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from unseen_core.diffusion.transport import integrate
from unseen_core.errors import UnseenError
from unseen_core.types import EpsModel

__all__ = ["fastest", "naming_memory", "probe_batch"]

_MOST = 512
_GAIN = 0.95  # A batch twice as large must take less than this share of the time per image.
# On the CPU the time per image is flat from 4 on, and memory is what larger images run out of.
_CPU_PIXELS, _CPU_LARGE, _CPU_SMALL = 64 * 64, 4, 16


def probe_batch(model: EpsModel, device: str) -> int:
    """Return a good batch for a network on a device.

    On a GPU batches are doubled, over three solver steps as stages take them, while they fit and
    each image gets faster. On the CPU nothing is timed: 16 images up to 64 x 64 pixels, 4 above.

    Args:
        model: The network, on ``device``; its schedule has 4 levels or more.
        device: As for torch.

    Raises:
        UnseenError: If not even one image fits.
    """
    _, height, width = model.shape
    if torch.device(device).type == "cpu":
        return _CPU_SMALL if height * width <= _CPU_PIXELS else _CPU_LARGE
    return fastest(lambda count: _seconds(model, device, count))


def fastest(seconds: Callable[[int], float | None], most: int = _MOST) -> int:
    """Return the first power of two whose double is not faster per image, or does not fit.

    Args:
        seconds: Time of a batch, or None where it runs out of memory.
        most: The largest batch that is tried.

    Raises:
        UnseenError: If not even one image fits.
    """
    batch, best, trial = 0, float("inf"), 1
    while trial <= most:
        took = seconds(trial)
        if took is None or took / trial > _GAIN * best:
            break
        batch, best, trial = trial, took / trial, 2 * trial
    if batch == 0:
        raise UnseenError("compute.device: not even one image fits into its memory; use another "
                          "device, or cpu")
    return batch


@contextmanager
def naming_memory(parameter: str, batch: int) -> Iterator[None]:
    """Turn a lack of memory, on any device, into one line with the parameter to lower.

    Nothing is tried again with half the batch: the batch is part of what fixes the bytes.

    Raises:
        UnseenError: In place of torch's out-of-memory errors; other errors pass.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _lacks_memory(error):
            raise
        advice = f"lower {parameter}, now {batch}" if batch > 1 else "use another device"
        raise UnseenError(f"out of memory: {advice}; finished parts are kept") from error


def _lacks_memory(error: Exception) -> bool:
    """Say whether an error is a lack of memory; on the CPU and on mps only its text says so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def _seconds(model: EpsModel, device: str, count: int) -> float | None:
    """Return the time of three solver steps on ``count`` states, or None for a lack of memory."""
    levels = model.schedule.grid(3, min(300, model.schedule.top))
    try:
        with naming_memory("batch", count):
            x = torch.zeros(count, *model.shape, device=device)
            integrate(model, x, levels)  # kernels are chosen on the first call
            began = perf_counter()
            integrate(model, x, levels)
            x.sum().item()  # waits for the device
            return perf_counter() - began
    except UnseenError:
        return None
    finally:
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
