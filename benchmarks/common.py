"""What every benchmark records about where it ran, and how it writes its result."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["RESULTS", "circumstances", "write_result"]

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "diffusers", "numpy")


def circumstances(device: str) -> dict[str, object]:
    """Return versions, device and thread count of this run."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "versions": {"python": platform.python_version(),
                     **{package: version(package) for package in _PACKAGES}},
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


def write_result(path: Path, content: dict[str, object]) -> None:
    """Write a result as JSON; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
