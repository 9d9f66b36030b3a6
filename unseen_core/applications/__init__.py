"""What local sampling around given images is good for (Boomerang, arXiv 2210.12100)."""

from unseen_core.applications.anonymity import Anonymity, anonymity
from unseen_core.applications.augmentation import (
    Classifier,
    accuracy,
    compare_arms,
    draw_labels,
    summary,
    train_classifier,
)
from unseen_core.applications.enhancement import (
    Fidelity,
    consistency,
    enlarge,
    fidelity,
    preferred,
    shrink,
)
from unseen_core.applications.local import (
    boomerang,
    expected_move,
    grid_through,
    level_of,
    mean_interval,
)

__all__ = [
    "Anonymity",
    "Classifier",
    "Fidelity",
    "accuracy",
    "anonymity",
    "boomerang",
    "compare_arms",
    "consistency",
    "draw_labels",
    "enlarge",
    "expected_move",
    "fidelity",
    "grid_through",
    "level_of",
    "mean_interval",
    "preferred",
    "shrink",
    "summary",
    "train_classifier",
]
