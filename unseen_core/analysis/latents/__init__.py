"""What the law of inverted latents is, and how far it is from others."""

from unseen_core.analysis.latents.gaussianity import Gaussianity, gaussianity
from unseen_core.analysis.latents.geometry_table import ROWS, geometry_table, identities
from unseen_core.analysis.latents.gram import Moments
from unseen_core.analysis.latents.leak_gap import LeakGap, leak_gap
from unseen_core.analysis.latents.prior_gap import PriorGap, frequency_bands, prior_gap
from unseen_core.analysis.latents.rejection import PassRates, rejection, spread
from unseen_core.analysis.latents.separability import Separability, centroid_accuracy, separability

__all__ = ["ROWS", "Gaussianity", "LeakGap", "Moments", "PassRates", "PriorGap", "Separability",
           "centroid_accuracy", "frequency_bands", "gaussianity", "geometry_table", "identities",
           "leak_gap", "prior_gap", "rejection", "separability", "spread"]
