"""Stage ``augment``: a labelled folder with copies of its images, and whether they help."""

import torch

from flows.folders.copies import Copies, CopyRequest, copy_folder
from flows.folders.manifest import classes_of
from flows.running.registry import stage
from flows.running.run import Run
from unseen_core.applications import Classifier, compare_arms, summary

__all__ = ["augment"]

_SEEDS = 3
_TRAIN = 0.7  # of each class; the rest tests


@stage("augment")
def augment(run: Run, *, request: str) -> dict[str, object]:
    """Write originals and copies, a subfolder for each class, and accuracies with and without.

    Args:
        run: Runs the parts.
        request: A `flows.folders.copies.CopyRequest` as JSON.

    Raises:
        UnseenError: As ``copy_folder``; or a class has fewer than two images.
    """
    asked = CopyRequest.model_validate_json(request)
    return copy_folder(run, "augment", asked, enlarged=lambda x: x, classes="needed", keep=True,
                       measure=lambda copies: _measured(run, copies, asked))


def _measured(run: Run, copies: Copies, asked: CopyRequest) -> dict[str, object]:
    """Return a row for each arm, over seeds that change split, batches and weights."""
    names = classes_of(copies.source, asked.images)
    known = sorted(set(names))
    labels = torch.tensor([known.index(name) for name in names])
    images = copies.images.unflatten(0, (len(labels), asked.copies))

    def once(seed: int) -> dict[str, float]:
        train = _split(labels, seed)
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[train] = False
        return compare_arms((copies.starts[train], labels[train]),
                            (copies.starts[rest], labels[rest]),
                            {asked.fraction: images[train]}, Classifier(), seed=seed)

    seeds = [asked.seed + i for i in range(_SEEDS)]
    arms = summary(run.map(once, seeds, name=lambda seed: f"augment/classifier seed {seed}"))
    accuracies = {f"accuracy {row['arm'].split()[0]}": row["accuracy"] for row in arms}
    return {"classes": known, "arms": arms, "trained_share": _TRAIN, "seeds": _SEEDS, **accuracies}


def _split(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the rows of every class that train; at least one of each, and never all."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for label in labels.unique().tolist():
        mine = (labels == label).nonzero()[:, 0]
        count = min(len(mine) - 1, max(1, round(_TRAIN * len(mine))))
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:count]])
    return torch.cat(rows).sort().values
