"""The batch of a stage: as params.yaml says, or probed once and remembered."""

import torch

from flows.settings.paths import PATHS
from unseen_core.diffusion.batch import probe_batch
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.store import fingerprint, read_json, write_json

__all__ = ["settle_batch"]


def settle_batch(setting: int | str, network: UNetEps, weights: str) -> int:
    """Return the batch for a network: ``setting``, or for ``"auto"`` what a probe finds.

    The batch changes the last bits of a result, so a probe's answer is kept in .work: a run that
    was interrupted goes on with the same one, and the manifest of the output records it.

    Args:
        setting: A number, or ``"auto"``.
        network: On its device.
        weights: SHA-256 of its weights.

    Raises:
        UnseenError: If not even one image fits into the device's memory.
    """
    if isinstance(setting, int):
        return setting
    device = torch.device(network.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    mark = fingerprint({"weights": weights, "shape": list(network.shape), "device": name,
                        "precision": network.precision, "torch": torch.__version__})
    file = PATHS.work / f"batch-{mark[:20]}.json"
    if not file.is_file():
        write_json(file, {"batch": probe_batch(network, network.device)})
    return int(str(read_json(file)["batch"]))
