"""Findings: what a finished run says of every claim of the paper, as docs/findings.md."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flows.report.findings.appendix import copy_pictures, regenerate, tried
from flows.report.findings.evidence import Evidence, load_evidence
from flows.report.findings.front import opening
from flows.report.findings.images import copies, farther, generates, selects
from flows.report.findings.latents import apart, closed_form, geometry, normal
from flows.report.findings.network import interpolates, reconstructs, tolerates, untouched
from flows.report.findings.related import RELATED, WORKS
from flows.report.findings.text import Section, table
from flows.settings.paths import PATHS
from unseen_core.store import write_bytes

__all__ = ["SECTIONS", "findings", "page"]

SECTIONS: tuple[Callable[[Evidence], Section], ...] = (
    reconstructs, normal, apart, geometry, closed_form, generates, tolerates, interpolates,
    copies, selects, farther, untouched)
"""The claims in the order of the page."""

_READING = (
    "A case is a model with a domain. A claim is made of every case: it is *confirmed* if all "
    "measured cases confirm it, *refuted* if one refutes it, *undecided* otherwise; the rule for a "
    "case stands in each section. The bounds in those rules are choices of this project, not of "
    "the paper. Intervals are 95 %; those of distances are bootstrapped over images, those of "
    "shares are Wilson's, and no verdict corrects for the number of levels and cells looked at. "
    "`sampler@level` names a cell. Novelty is the distance to the nearest fit image over that of "
    "held-out images, so 1 is what new real images have. The last two of these claims are made of "
    "a model, not of a case; so are those of the related works that a model's stages measure.")


def findings() -> Path:
    """Write docs/findings.md and its pictures from the artifacts in the working directory.

    Returns:
        The page.

    Raises:
        UnseenError: If there is no report.
    """
    evidence = load_evidence()
    file = PATHS.docs / "findings.md"
    pictures = copy_pictures(evidence, PATHS.docs / "findings")
    write_bytes(file, page(replace(evidence, pictures=pictures)).encode())
    logging.getLogger("unseen").info("findings: %s, %d pictures", file, len(pictures))
    return file


def page(evidence: Evidence) -> str:
    """Return the page as Markdown."""
    sections = [make(evidence) for make in SECTIONS]
    related = [make(evidence) for make in RELATED]
    then = len(sections) + 1
    pictures = "".join(evidence.picture(f"analysis/{model}", "The analyses over levels")
                       for model in evidence.models)
    parts = ["# What the paper claims and what this run found\n",
             "*Unseen Image Synthesis with Diffusion Models* ([arXiv 2310.09213]"
             "(https://arxiv.org/abs/2310.09213)), claim by claim. Written by `python -m flows "
             "findings` from the artifacts of one run.\n",
             opening(evidence) + "\n",
             f"## Verdicts\n\n{_verdicts(sections, 1)}\n\n{_READING}{pictures}\n",
             *(section.markdown(place) for place, section in enumerate(sections, 1)),
             f"## The four related works\n\n{WORKS}\n\n{_verdicts(related, then)}\n",
             *(section.markdown(place) for place, section in enumerate(related, then)),
             regenerate(evidence), tried(evidence)]
    return "\n".join(parts)


def _verdicts(sections: Sequence[Section], first: int) -> str:
    """Return the table of the sections' verdicts, numbered from the first."""
    words = ("confirmed", "refuted", "undecided")
    return table(["", "claim", "verdict", *words], (
        [str(place), section.title, f"**{section.verdict}**",
         *(str(section.counts()[word]) for word in words)]
        for place, section in enumerate(sections, first)))
