"""Findings: what a finished run says of every claim, an index and a page for each claim."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flows.report.findings.appendix import copy_pictures, regenerate, tried
from flows.report.findings.evidence import Evidence, load_evidence
from flows.report.findings.front import comparison, opening
from flows.report.findings.images import copies, farther, generates, selects
from flows.report.findings.latents import apart, closed_form, geometry, normal
from flows.report.findings.network import interpolates, reconstructs, tolerates, untouched
from flows.report.findings.related import RELATED, WORKS
from flows.report.findings.text import Section, table
from flows.settings.paths import PATHS
from unseen_core.store import write_bytes

__all__ = ["SECTIONS", "findings", "pages"]

SECTIONS: tuple[Callable[[Evidence], Section], ...] = (
    reconstructs, normal, apart, geometry, closed_form, generates, tolerates, interpolates,
    copies, selects, farther, untouched)
"""The paper's claims in the order of the index."""

_READING = (
    "A case is a model with a domain. A claim is made of every case: it is *confirmed* if all "
    "measured cases confirm it, *refuted* if one refutes it, *undecided* otherwise; the rule for a "
    "case stands on each claim's page. The bounds in those rules are choices of this project, not "
    "of the paper. Intervals are 95 %; those of distances are bootstrapped over images, those of "
    "shares are Wilson's, and no verdict corrects for the number of levels and cells looked at. "
    "`sampler@level` names a cell. Novelty is the distance to the nearest fit image over that of "
    "held-out images, so 1 is what new real images have. The last two of these claims are made of "
    "a model, not of a case; so are those of the related works that a model's stages measure.")


def findings() -> Path:
    """Write docs/findings.md, and a page per claim with the pictures in docs/findings.

    That folder is emptied first, so that it holds this run's pages alone.

    Returns:
        The index.

    Raises:
        UnseenError: If there is no report.
    """
    evidence = load_evidence()
    pictures = copy_pictures(evidence, PATHS.docs / "findings")
    written = pages(replace(evidence, pictures=pictures))
    for name, text in written.items():
        write_bytes(PATHS.docs / name, text.encode())
    index = PATHS.docs / next(iter(written))
    logging.getLogger("unseen").info("findings: %s, %d pages, %d pictures", index,
                                     len(written) - 1, len(pictures))
    return index


def pages(evidence: Evidence) -> dict[str, str]:
    """Return the Markdown of each page by its path below docs/; the index is the first."""
    claims = [(f"findings/{place:02}-{make.__name__.replace('_', '-')}.md", make(evidence))
              for place, make in enumerate((*SECTIONS, *RELATED), 1)]
    found = {name: section.markdown(place) for place, (name, section) in enumerate(claims, 1)}
    cells = {f"findings/cells-{model}.md": tried(evidence, model) for model in evidence.models}
    return {"findings.md": _index(evidence, claims, list(cells))} | found | cells


def _index(evidence: Evidence, claims: Sequence[tuple[str, Section]], cells: Sequence[str]) -> str:
    """Return the index: the main comparison, and the verdicts with a link to each claim's page."""
    pictures = {name: (f"findings/{file}", case)
                for name, (file, case) in evidence.pictures.items()}
    seen, own = replace(evidence, pictures=pictures), len(SECTIONS)
    analyses = "".join(seen.picture(f"analysis/{model}", "The analyses over levels")
                       for model in evidence.models)
    linked = "\n".join(f"* [{name}]({name})" for name in cells)
    return "\n".join([
        "# What the paper claims and what this run found\n",
        "*Unseen Image Synthesis with Diffusion Models* ([arXiv 2310.09213]"
        "(https://arxiv.org/abs/2310.09213)), claim by claim, and the claims of four related "
        "works. Written by `python -m flows findings` from the artifacts of one run.\n",
        f"{opening(seen)}\n\nBehind this stand [the two cells of each domain]"
        "(#latents-against-what-needs-no-network), [every sampler at its closest level]"
        f"({claims[SECTIONS.index(generates)][0]}) and [every cell](#everything-that-was-tried).\n",
        f"## Verdicts\n\n{_verdicts(claims[:own], 1)}\n\n{_READING}{analyses}\n",
        f"## The four related works\n\n{WORKS}\n\n{_verdicts(claims[own:], own + 1)}\n",
        f"## Latents against what needs no network\n\n{comparison(seen)}\n",
        regenerate(evidence),
        f"## Everything that was tried\n\nAll {len(evidence.table)} rows of the comparison, "
        f"closest first, a page per model:\n\n{linked}\n"])


def _verdicts(claims: Sequence[tuple[str, Section]], first: int) -> str:
    """Return the table of the claims' verdicts, numbered from the first."""
    words = ("confirmed", "refuted", "undecided")
    return table(["", "claim", "verdict", *words], (
        [str(place), f"[{section.title}]({name})", f"**{section.verdict}**",
         *(str(section.counts()[word]) for word in words)]
        for place, (name, section) in enumerate(claims, first)))
