"""Denoising trajectories: what closed forms say of them, beside what a network does.

After Wang & Vastola, "Diffusion Models Generate Images Like Painters: an Analytical Theory of
Outline First, Details Later" (arXiv 2303.02490) and its sequel (arXiv 2412.09726).
"""

from unseen_core.analysis.trajectory.approximations import (
    DeltaEps,
    Misfit,
    best_of,
    closed_forms,
    explained_variance,
    misfit,
)
from unseen_core.analysis.trajectory.domains import Content, content
from unseen_core.analysis.trajectory.emergence import (
    Spectrum,
    emergence_level,
    half_levels,
    level_of,
    mode_groups,
    predicted_levels,
    rank_correlation,
)
from unseen_core.analysis.trajectory.perturbation import Kicked, kick, predicted_gain
from unseen_core.analysis.trajectory.record import (
    Trajectory,
    clean_of,
    closed_form,
    record,
    record_inversion,
)
from unseen_core.analysis.trajectory.shape import (
    LAGS,
    Residuals,
    cosines,
    dimension,
    explained,
    residuals,
)

__all__ = [
    "LAGS",
    "Content",
    "DeltaEps",
    "Kicked",
    "Misfit",
    "Residuals",
    "Spectrum",
    "Trajectory",
    "best_of",
    "clean_of",
    "closed_form",
    "closed_forms",
    "content",
    "cosines",
    "dimension",
    "emergence_level",
    "explained",
    "explained_variance",
    "half_levels",
    "kick",
    "level_of",
    "misfit",
    "mode_groups",
    "predicted_gain",
    "predicted_levels",
    "rank_correlation",
    "record",
    "record_inversion",
    "residuals",
]
