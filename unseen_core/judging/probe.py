"""A linear probe that says whether an image belongs to the unseen domain."""

from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval, check_features

__all__ = ["Probe", "fit_probe", "wilson"]


@dataclass(frozen=True)
class Probe:
    """A logistic classifier of source against target on standardised features.

    Attributes:
        mean: Feature means over both training sets, shape (d,), float64.
        scale: Feature standard deviations, shape (d,); 1 where a feature is constant.
        weight: Coefficients on standardised features, shape (d,).
        bias: Log odds of the target at zero.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: float

    def log_odds(self, features: Tensor) -> Tensor:
        """Log odds of the target domain in nats, shape (n,), for features (n, d)."""
        check_features({"features": features, "probe": self.mean[None]}, least=0)
        return (features.double() - self.mean) / self.scale @ self.weight + self.bias

    def in_target(self, features: Tensor) -> Tensor:
        """Whether each image is classed as target, shape (n,) bool, for features (n, d)."""
        return self.log_odds(features) > 0


def fit_probe(source: Tensor, target: Tensor, seed: int = 0) -> Probe:
    """Train a probe; both domains count equally, however many images each has.

    Args:
        source: Features of images of the seen domain, shape (n, d), n >= 2.
        target: Features of images of the unseen domain, shape (m, d), m >= 2.
        seed: Seed of the solver.

    Raises:
        UnseenError: If the sets do not fit together.
    """
    check_features({"source": source, "target": target})
    features = torch.cat([source, target]).double()
    mean, scale = features.mean(0), features.std(0, correction=0)
    scale = torch.where(scale > 1e-12 * mean.abs().clamp_min(1e-12), scale, 1.0)
    labels = [0] * len(source) + [1] * len(target)
    model = LogisticRegression(class_weight="balanced", max_iter=5000, random_state=seed)
    model.fit(((features - mean) / scale).cpu().numpy(), labels)
    weight = torch.from_numpy(model.coef_[0]).to(features)
    return Probe(mean, scale, weight, float(model.intercept_[0]))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Share of successes with its score interval (Wilson 1927, JASA 22:209).

    Args:
        successes: Count in [0, n].
        n: Number of trials, >= 1.
        level: Coverage asked for, in (0, 1).

    Raises:
        UnseenError: If a number is out of range.
    """
    if not 0 <= successes <= n or n < 1 or not 0 < level < 1:
        raise UnseenError(f"share: {successes} of {n} at level {level}; use 0 <= successes <= n, "
                          "n >= 1 and a level between 0 and 1")
    found = binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(found.low), float(found.high))
