"""Stage ``enhance``: small images made large, with detail from a network's own domain."""

from flows.folders.copies import Copies, CopyRequest, copy_folder
from flows.loading.judge import first_extractor
from flows.running.registry import stage
from flows.running.run import Run
from unseen_core.applications import enlarge
from unseen_core.applications.measures import enhanced

__all__ = ["enhance"]


@stage("enhance")
def enhance(run: Run, *, request: str) -> dict[str, object]:
    """Write enlarged images, and how they compare with bicubic enlargement.

    Images are read at the network's size over ``factor``. Without the true large images only the
    agreement with what was given can be measured.

    Args:
        run: Runs the parts.
        request: A `flows.folders.copies.CopyRequest` as JSON.

    Raises:
        UnseenError: As ``copy_folder``; or an image has no original of its name.
    """
    asked = CopyRequest.model_validate_json(request)
    return copy_folder(run, "enhance", asked, enlarged=lambda x: enlarge(x, asked.factor),
                       classes="none", keep=False,
                       measure=_measured)


def _measured(copies: Copies) -> dict[str, object]:
    """Return what report.json says of the enlarged images."""
    params, seed = copies.params, copies.params.seed
    true = None if copies.originals is None else copies.originals[copies.rows]
    row, _ = enhanced(copies.images, copies.starts[copies.rows], copies.source.images[copies.rows],
                      true, None, first_extractor(params), draws=params.evaluate.draws, seed=seed)
    if true is None:
        return row | {"unmeasured": "perceptual distance and PSNR need --originals"}
    gain = float(str(row["perceptual_gain_high"]))
    return row | {"beats_bicubic": gain < 0}
