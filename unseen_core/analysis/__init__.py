"""Analyses of inverted latents: what their law is, and how far it is from others."""

from unseen_core.analysis.gaussianity import Gaussianity, gaussianity
from unseen_core.analysis.geometry_table import ROWS, geometry_table, identities
from unseen_core.analysis.gram import Moments
from unseen_core.analysis.leak_gap import LeakGap, leak_gap
from unseen_core.analysis.prior_gap import PriorGap, frequency_bands, prior_gap
from unseen_core.analysis.rejection import PassRates, rejection, spread
from unseen_core.analysis.separability import Separability, centroid_accuracy, separability

__all__ = ["ROWS", "Gaussianity", "LeakGap", "Moments", "PassRates", "PriorGap", "Separability",
           "centroid_accuracy", "frequency_bands", "gaussianity", "geometry_table", "identities",
           "leak_gap", "prior_gap", "rejection", "separability", "spread"]
