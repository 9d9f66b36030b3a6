"""The frozen network as stages load it: with the weights that ``fetch`` recorded, and no others."""

from pathlib import Path

from flows.loading.opened import Opened
from flows.running.batch import settle_batch
from flows.settings.paths import PATHS
from unseen_core.checkpoints.network import CONFIG, SCHEDULER, WEIGHTS
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, write_bytes
from unseen_core.types import Pixels

__all__ = ["WEIGHTS", "load_frozen", "load_tuned", "record_weights"]

_RECORD = "unet/weights.sha256"


def record_weights(folder: Path) -> str:
    """Write a checkpoint's hashes beside its weights, as sha256sum does; return the weights'."""
    found = _hashes(folder)
    lines = [f"{value}  {name}\n" for name, value in found.items()]
    write_bytes(folder / _RECORD, "".join(lines).encode())
    return found[WEIGHTS]


def _hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file of a checkpoint."""
    return {name: file_hash(folder / name) for name in (WEIGHTS, CONFIG, SCHEDULER)}


def load_frozen(model: str, *, device: str, precision: str, batch: int | str) -> Opened:
    """Load a fetched checkpoint.

    A class-conditional network is bound to ``models.MODEL.label``, as ``fetch`` recorded it.

    Args:
        model: A model of params.yaml.
        device: Where it computes.
        precision: ``float32`` or ``bf16``.
        batch: Images per call, or ``auto``; see ``settle_batch``.

    Raises:
        UnseenError: If it was not fetched, cannot be read, or its weights, configuration or
            schedule are not those that ``fetch`` recorded.
    """
    network, weights = _load(PATHS.model(model), f"fetch --model {model}", device=device,
                             precision=precision)
    channels, side, _ = network.shape
    return Opened(network, Pixels(), weights, model, side, channels,
                  settle_batch(batch, network, weights))


def load_tuned(model: str, domain: str, name: str, *, device: str, precision: str) -> UNetEps:
    """Load the copy ``NAME/STEPS`` that ``finetune`` trained on a domain.

    Raises:
        UnseenError: If it is not there, cannot be read, or is not what ``finetune`` recorded.
    """
    return _load(PATHS.finetuned(model, domain) / name,
                 f"finetune --model {model} --domain {domain}", device=device,
                 precision=precision)[0]


def _load(
    folder: Path, command: str, *, device: str, precision: str
) -> tuple[UNetEps, str]:
    """Load a checkpoint with the weights that a command recorded, and return their hash."""
    network = load_model(folder, device=device, precision=precision)
    found, record = _hashes(folder), folder / _RECORD
    lines = record.read_text().splitlines() if record.is_file() else []
    for name, value in found.items():
        if f"{value}  {name}" not in lines:
            raise UnseenError(f"{folder / name}: not the file that {command.split()[0]} recorded "
                              f"in {record}; run `python -m flows {command}` again")
    return network, found[WEIGHTS]
