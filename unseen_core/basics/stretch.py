"""Numbers that no file type gives a black and a white become grey values: the stretch."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from unseen_core.errors import UnseenError

__all__ = ["Stretch"]

_SOFT = 10.0  # of asinh: below a tenth of white it is nearly linear, above nearly logarithmic


@dataclass(frozen=True)
class Stretch:
    """x becomes 255 f((x - low) / (high - low)), clipped; f(t) = t, or asinh(10 t) / asinh(10).

    asinh shows what is faint beside what is bright (Lupton et al. 2004, PASP 116:133).

    Attributes:
        range: low and high, the values that are black and white; None: by ``percentile``.
        percentile: Percentiles of a file's own values that are black and white, 0..100.
        kind: f.
    """

    range: tuple[float, float] | None = None
    percentile: tuple[float, float] | None = None
    kind: Literal["linear", "asinh"] = "linear"

    def of(self, values: np.ndarray, name: str) -> "Stretch":
        """Return this stretch with its range, where need be by percentiles of ``values``.

        Raises:
            UnseenError: Some values are not finite, or both percentiles are equal; ``name`` is
                what the message calls them.
        """
        if not np.isfinite(values).all():
            raise UnseenError(f"{name}: pixels that are not finite; give them a value")
        if self.range is not None:
            return self
        low, high = np.percentile(values, self.percentile).tolist()
        if low == high:
            raise UnseenError(f"{name}: both percentiles are {low:g}, so nothing would be seen; "
                              "set range of its domain")
        return replace(self, range=(low, high), percentile=None)

    def __call__(self, values: np.ndarray, name: str) -> np.ndarray:
        """Return grey values, float32 0..255, of the shape of ``values``.

        Raises:
            UnseenError: As `of` does.
        """
        values = np.asarray(values, np.float64)
        found = self.of(values, name).range
        assert found is not None  # `of` gives one
        low, high = found
        t = ((values - low) / (high - low)).clip(0, 1)
        if self.kind == "asinh":
            t = np.arcsinh(_SOFT * t) / np.arcsinh(_SOFT)
        return (255 * t).astype(np.float32)
