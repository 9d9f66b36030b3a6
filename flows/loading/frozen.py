"""The frozen network as stages load it: with the weights that ``fetch`` recorded, and no others."""

from pathlib import Path

from flows.loading.opened import Opened
from flows.running.batch import settle_batch
from flows.settings.paths import PATHS
from unseen_core.checkpoints.network import WEIGHTS
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, write_bytes
from unseen_core.types import Pixels

__all__ = ["WEIGHTS", "load_frozen", "load_tuned", "record_weights"]

_RECORD = "unet/weights.sha256"


def record_weights(folder: Path) -> str:
    """Write a checkpoint's hash beside its weights and return it."""
    found = file_hash(folder / WEIGHTS)
    write_bytes(folder / _RECORD, f"{found}\n".encode())
    return found


def load_frozen(model: str, *, device: str, precision: str, batch: int | str) -> Opened:
    """Load a fetched checkpoint.

    A class-conditional network is bound to ``models.MODEL.label``, as ``fetch`` recorded it.

    Args:
        model: A model of params.yaml.
        device: Where it computes.
        precision: ``float32`` or ``bf16``.
        batch: Images per call, or ``auto``; see ``settle_batch``.

    Raises:
        UnseenError: If it was not fetched, cannot be read, or its weights are not those that
            ``fetch`` recorded.
    """
    network, weights = _load(PATHS.model(model), f"fetch --model {model}", device=device,
                             precision=precision)
    channels, side, _ = network.shape
    return Opened(network, Pixels(), weights, model, side, channels,
                  settle_batch(batch, network, weights))


def load_tuned(model: str, domain: str, name: str, *, device: str, precision: str) -> UNetEps:
    """Load the copy ``NAME/STEPS`` that ``finetune`` trained on a domain.

    Raises:
        UnseenError: If it is not there, cannot be read, or its weights are not those that
            ``finetune`` recorded.
    """
    return _load(PATHS.finetuned(model, domain) / name,
                 f"finetune --model {model} --domain {domain}", device=device,
                 precision=precision)[0]


def _load(
    folder: Path, command: str, *, device: str, precision: str
) -> tuple[UNetEps, str]:
    """Load a checkpoint with the weights that a command recorded, and return their hash."""
    network = load_model(folder, device=device, precision=precision)
    found, record = file_hash(folder / WEIGHTS), folder / _RECORD
    if not record.is_file() or record.read_text().strip() != found:
        raise UnseenError(f"{folder / WEIGHTS}: not the weights that {command.split()[0]} recorded "
                          f"in {record}; run `python -m flows {command}` again")
    return network, found
