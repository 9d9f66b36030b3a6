"""The claims of four related works, in the order of the index."""

from collections.abc import Callable

from flows.report.findings.evidence import Evidence
from flows.report.findings.related.applications import anonymises, augments, enhances
from flows.report.findings.related.boomerang import keeps, loses
from flows.report.findings.related.leak import colours, imitates, misses
from flows.report.findings.related.painters import explained, outlines, perturbs, rotates, skips
from flows.report.findings.related.style import fails, tunes
from flows.report.findings.text import Section

__all__ = ["RELATED", "WORKS"]

RELATED: tuple[Callable[[Evidence], Section], ...] = (
    rotates, outlines, perturbs, explained, skips, colours, misses, imitates, loses, anonymises,
    augments, enhances, tunes, fails, keeps)

WORKS = (
    "Four works act on the same object, the start state of a frozen network: *Diffusion Models "
    "Generate Images Like Painters* ([arXiv 2303.02490](https://arxiv.org/abs/2303.02490), with "
    "its sequel [2412.09726](https://arxiv.org/abs/2412.09726)); *Exploiting the Signal-Leak Bias "
    "in Diffusion Models* ([arXiv 2309.15842](https://arxiv.org/abs/2309.15842)); *Boomerang: "
    "Local Sampling on Image Manifolds Using Diffusion Models* ([arXiv 2210.12100]"
    "(https://arxiv.org/abs/2210.12100)); and *Diffusion in Style* (ICCV 2023), which fine-tunes. "
    "Their claims, worded as short as the papers allow, on the same domains and by the same "
    "measures; the last one is about all of them. In the closed form κ is the share of a "
    "direction's variance at a level that is signal, by the seen domain's law.")
