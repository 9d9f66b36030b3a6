"""Which device computes."""

import torch

from unseen_core.errors import UnseenError

__all__ = ["pick_device"]


def pick_device(wanted: str) -> str:
    """Return ``wanted``, or for ``"auto"`` the first of cuda, mps and cpu that is there.

    Raises:
        UnseenError: If a device is asked for that this machine lacks.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(),
               "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if present[name])
    if not present.get(wanted.partition(":")[0], False):
        there = ", ".join(name for name, here in present.items() if here)
        raise UnseenError(f"device {wanted!r} is not on this machine; use auto or one of {there}")
    return wanted
