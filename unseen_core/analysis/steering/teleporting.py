"""What skipping the first calls of a run in closed form costs, beside cruder ways of doing it."""

from typing import Literal, get_args

import torch
from torch import Tensor

from unseen_core.basics.images import to_uint8
from unseen_core.errors import UnseenError
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import frechet_distance, kernel_distance, relative_error
from unseen_core.judging.paired import frechet_difference, kernel_difference
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import FeatureExtractor

__all__ = ["JUMPS", "Jump", "Study", "jump_law"]

Jump = Literal["law", "mean", "none"]
JUMPS: tuple[Jump, ...] = get_args(Jump)
_FRECHET_DRAWS = 100


def jump_law(law: Gaussian, jump: Jump) -> Gaussian:
    """Return the law whose flow carries states over the skipped levels.

    * ``"law"``: the source law itself.
    * ``"mean"``: its mean alone, as if every image were the mean image.
    * ``"none"``: N(0, I), whose flow leaves states as they are at every level: what was drawn
      for the top is put at the landing level.

    Args:
        law: Of the clean images that the network has learnt.
        jump: One of ``JUMPS``.

    Raises:
        UnseenError: If the jump is unknown.
    """
    no_modes = law.factor[:, :0]
    match jump:
        case "law":
            return law
        case "mean":
            return Gaussian(law.mean, no_modes, law.mean.new_zeros(()))
        case "none":
            return Gaussian(torch.zeros_like(law.mean), no_modes, law.mean.new_ones(()))
    raise UnseenError(f"teleport: jump {jump!r} is not one of {', '.join(JUMPS)}")


class Study:
    """Judges runs that were cut short against the whole run from the same noise.

    Args:
        extractor: Gives the features that distances are taken of.
        full: Images of the whole run, floating (n, 3, h, w), n >= 2, not clipped.
        held_out: Real images of the network's own domain, uint8 (m, 3, h, w).
        draws: Bootstrap draws of the kernel distances; of the Fréchet distance's 100 at most.
        seed: Seed of the draws.
    """

    def __init__(
        self, extractor: FeatureExtractor, full: Tensor, held_out: Tensor, *, draws: int, seed: int
    ) -> None:
        """Take the features of both sets once."""
        self._extractor = extractor
        self._full = full
        self._full_features = extract(extractor, to_uint8(full))
        self._real = extract(extractor, held_out)
        self._draws, self._seed = draws, seed

    def row(self, images: Tensor) -> dict[str, float | int | bool]:
        """Return how far images (n, 3, h, w) of the same noise are from those of the whole run.

        ``relative_error`` is the median over images of |x - full| / |full|, with its quartiles.
        ``kernel`` and ``frechet`` are distances to the held-out images, and ``_difference`` what
        they are more than those of the whole run: 95 % intervals of a bootstrap that draws both
        runs of a noise together, and the same held-out images for both. ``changed`` says that the
        kernel distance's interval excludes 0.
        """
        error = relative_error(images, self._full)
        features = extract(self._extractor, to_uint8(images))
        kernel = kernel_distance(features, self._real, draws=self._draws, seed=self._seed)
        more = kernel_difference(features, self._full_features, self._real, paired=True,
                                 draws=self._draws, seed=self._seed)
        frechet = frechet_difference(features, self._full_features, self._real, paired=True,
                                     draws=min(_FRECHET_DRAWS, self._draws), seed=self._seed)
        quartiles = error.quantile(error.new_tensor([0.25, 0.5, 0.75])).tolist()
        return {
            "n": len(images), "held_out": len(self._real),
            "relative_error": quartiles[1], "relative_error_q25": quartiles[0],
            "relative_error_q75": quartiles[2],
            "kernel": kernel.value, "kernel_low": kernel.low, "kernel_high": kernel.high,
            "kernel_difference": more.value, "kernel_difference_low": more.low,
            "kernel_difference_high": more.high,
            "changed": not more.low <= 0 <= more.high,
            "frechet": frechet_distance(features, self._real),
            "frechet_difference": frechet.value, "frechet_difference_low": frechet.low,
            "frechet_difference_high": frechet.high,
        }
