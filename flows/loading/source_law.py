"""The law of the images that a network has learnt: fitted by ``fetch``, read by later stages."""

from pathlib import Path

import torch

from flows.settings.paths import PATHS
from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.laws.source import fit_source
from unseen_core.store import read_pictures, read_tensors, save_tensors, write_with

__all__ = ["load_source", "source_file", "write_source"]

_MOST = 2000  # Images that are fitted to; inner products and eigenvectors grow as their square.


def write_source(path: Path, domain: Path, channels: int) -> int:
    """Fit the law to a fetched domain, never to its held-out images; return to how many.

    Args:
        path: The file to write, safetensors of float32.
        domain: Folder of the seen domain, with fit.parquet and, where there are more images
            than fit and held out, rest.parquet.
        channels: Of the network's images.

    Raises:
        UnseenError: If the images are damaged or too few.
    """
    sides = [side for name in ("fit", "rest") if (side := domain / f"{name}.parquet").is_file()]
    known: list[torch.Tensor] = []
    for side in sides:
        left = _MOST - sum(map(len, known))
        if left > 0:
            known.append(read_pictures(side, limit=left)[0])
    images = with_channels(torch.cat(known), channels)
    # Half the size, and far below the error of the fit.
    state = {name: tensor.float() for name, tensor in fit_source(References.of(images))
             .state().items()}
    write_with(path, lambda temporary: save_tensors(temporary, state))
    return len(images)


def load_source(model: str) -> Gaussian:
    """Return the law of the clean images that a model has learnt, in [-1, 1].

    Args:
        model: A model of params.yaml that ``fetch`` has written.

    Returns:
        Mean (d,), factor (d, r) and one remainder variance ().

    Raises:
        UnseenError: If the file is missing or damaged.
    """
    return Gaussian.from_state(read_tensors(source_file(model)))


def source_file(model: str) -> Path:
    """Return the file of a model's law, which is as large as hundreds of images.

    Raises:
        UnseenError: If it is missing.
    """
    file = PATHS.law(model)
    if not file.is_file():
        raise UnseenError(f"{file}: no such file; run `python -m flows fetch-model --model "
                          f"{model}`")
    return file
