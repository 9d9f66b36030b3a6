"""Stage ``anonymise``: images of a folder, changed so far that they are hard to trace."""

import torch

from flows.folders.copies import Copies, CopyRequest, copy_folder
from flows.folders.manifest import has_classes
from flows.loading.judge import first_extractor
from flows.running.registry import stage
from flows.running.run import Run
from unseen_core.applications import Classifier
from unseen_core.applications.measures import NOTICE, distance_to, hidden, utility

__all__ = ["anonymise"]


@stage("anonymise")
def anonymise(run: Run, *, request: str) -> dict[str, object]:
    """Write changed copies of images, and how often two simple matchers trace them.

    manifest.csv names the original of every output: it is for the owner, not for publication.
    Where every image lies in a subfolder, those are kept as classes.

    Args:
        run: Runs the parts.
        request: A `flows.folders.copies.CopyRequest` as JSON.

    Raises:
        UnseenError: As ``copy_folder``.
    """
    asked = CopyRequest.model_validate_json(request)
    return copy_folder(run, "anonymise", asked, enlarged=lambda x: x, classes="kept", keep=False,
                       measure=lambda copies: _measured(copies, asked))


def _measured(copies: Copies, asked: CopyRequest) -> dict[str, object]:
    """Return what report.json says: tracing, and what the outputs are still good for.

    A classifier is trained on the outputs of every second original, and tested on the other
    originals, as the kernel distance is taken; beside both stands what the originals reach.
    """
    found: dict[str, object] = {"notice": NOTICE}
    count = len(copies.starts)
    if count < 2:
        return found | {"unmeasured": "one image cannot be compared with others"}
    params = copies.params
    extractor = first_extractor(params)
    found |= hidden(copies.images, copies.starts, copies.rows, extractor)
    settings = {"draws": params.evaluate.draws, "seed": params.seed}
    mine, others = copies.rows % 2 == 0, torch.arange(count) % 2 == 1
    real = copies.starts[others]
    found |= distance_to(copies.images[mine], real, extractor, **settings)
    base = distance_to(copies.starts[~others], real, extractor, **settings)
    found |= {f"originals_{key}": value for key, value in base.items()}
    names = [file.partition("/")[0] for file in copies.source.files]
    known = sorted(set(names))
    if not has_classes(copies.source) or len(known) < 2:
        return found | {"utility": None, "utility_by": "kernel distance: no classes are known"}
    labels = torch.tensor([known.index(name) for name in names])
    test = real, labels[others]
    for mark, train in (("", (copies.images[mine], labels[copies.rows][mine])),
                        ("originals_", (copies.starts[~others], labels[~others]))):
        scores = utility(train, test, Classifier(), seeds=range(asked.seed, asked.seed + 3))
        found |= {f"{mark}{key}": value for key, value in scores.items()}
    return found | {"utility_by": "accuracy on originals that were not copied"}
