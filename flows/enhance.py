"""Stage ``enhance``: small images made large, with detail from a network's own domain."""

from pathlib import PurePosixPath

import torch
from torch import Tensor

from flows.boomerang.copies import Copies, Request, copy_folder
from flows.boomerang.measures import enhanced
from flows.extractors import first_extractor
from flows.generate import read_images
from flows.run import Run
from flows.stage import stage
from unseen_core.applications import enlarge
from unseen_core.errors import UnseenError

__all__ = ["enhance"]


@stage("enhance")
def enhance(run: Run, *, request: str) -> dict[str, object]:
    """Write enlarged images, and how they compare with bicubic enlargement.

    Images are read at the network's size over ``factor``. Without the true large images only the
    agreement with what was given can be measured.

    Args:
        run: Runs the parts.
        request: A `flows.boomerang.copies.Request` as JSON.

    Raises:
        UnseenError: As ``copy_folder``; or an image has no original of its name.
    """
    asked = Request.model_validate_json(request)
    return copy_folder(run, "enhance", asked, enlarged=lambda x: enlarge(x, asked.factor),
                       classes="none", keep=False,
                       measure=lambda copies: _measured(run, copies, asked))


def _measured(run: Run, copies: Copies, asked: Request) -> dict[str, object]:
    """Return what report.json says of the enlarged images."""
    params, seed = copies.params, copies.params.seed
    true = None if asked.originals is None else _originals(run, copies, asked.originals)
    row, _ = enhanced(copies.images, copies.starts[copies.rows], copies.source.images[copies.rows],
                      true, None, first_extractor(params), draws=params.evaluate.draws, seed=seed)
    if true is None:
        return row | {"unmeasured": "perceptual distance and PSNR need --originals"}
    gain = float(str(row["perceptual_gain_high"]))
    return row | {"beats_bicubic": gain < 0}


def _originals(run: Run, copies: Copies, path: str) -> Tensor:
    """Return the true large image of each output, found by the file's name without its ending."""
    large = read_images(copies.params, path, copies.opened.size, run)
    rows = {_stem(file): row for row, file in enumerate(large.files)}
    missing = [file for file in copies.source.files if _stem(file) not in rows]
    if missing:
        raise UnseenError(f"{path}: no original of {missing[0]} ({len(missing)} missing); give "
                          "one of the same name for each image")
    if len(copies.rows) < 2:
        raise UnseenError(f"{path}: one image gives no interval; leave --originals out")
    order = torch.tensor([rows[_stem(file)] for file in copies.source.files])
    return large.images[order[copies.rows]]


def _stem(file: str) -> str:
    """Return a file's path without its ending."""
    return str(PurePosixPath(file).with_suffix(""))
