"""All analyses of a domain's latents at one level, as one JSON-able table."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from unseen_core.analysis.latents import (
    PassRates,
    gaussianity,
    geometry_table,
    identities,
    leak_gap,
    prior_gap,
    rejection,
    separability,
    spread,
)
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.laws.blends import Law
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.types import Level

__all__ = ["level_table", "scalars_of"]


def level_table(
    network: UNetEps,
    references: References,
    priors: Mapping[str, Law],
    envelope: Envelope,
    level: Level,
    seen: Tensor,
    images: Tensor,
    streams: Streams,
    *,
    neighbours: int,
    coverage: float,
    batch: int,
    seed: int,
) -> dict[str, object]:
    """Return every table of one level, JSON-able.

    Args:
        network: The frozen network.
        references: The fit images carried to ``level``.
        priors: Laws fitted to them, by kind.
        envelope: Bounds of their geometry.
        level: Of the latents.
        seen: Latents of the network's own domain there, float32 (m, c, h, w).
        images: The first clean fit images, float32 (n, c, h, w) in [-1, 1], n <= N.
        streams: Candidates that the geometry test is asked about.
        neighbours: References per geometric test.
        coverage: Share of a domain's own latents inside an envelope.
        batch: States per network call.
        seed: Of intervals and splits.

    Raises:
        UnseenError: If there are too few images for a test.
    """
    unseen = references.rows(range(len(images)))
    judge = StateJudge.of(references, neighbours=neighbours)
    draws: dict[str, Callable[[], Tensor]] = {
        "noise": lambda: streams.normal(references.dimension), "seen latents": lambda: seen}
    draws |= {f"prior {kind}": partial(prior.sample, streams) for kind, prior in priors.items()}
    passed: dict[str, PassRates] = {}
    for name, draw in draws.items():  # one set in memory at a time
        passed |= rejection(judge, envelope, {name: draw()}, seed=seed)
    half = _half(unseen, streams, neighbours=neighbours, coverage=coverage, seed=seed)
    passed |= rejection(*half, seed=seed)
    deep = {side: _bottleneck(network, x, level, batch) for side, x in (("unseen", unseen),
                                                                 ("seen", seen))}
    geometry = {"unseen": geometry_table(unseen, seed=seed),
                "seen": geometry_table(seen, seed=seed),
                "gaussian": identities(unseen),
                "unseen bottleneck": geometry_table(deep["unseen"], seed=seed),
                "seen bottleneck": geometry_table(deep["seen"], seed=seed)}
    return {
        "gaussianity": gaussianity(unseen, seed=seed).summary(),
        "geometry": geometry,
        "separability": separability(seen, unseen, seed=seed).summary(),
        "separability bottleneck": separability(deep["seen"], deep["unseen"],
                                                seed=seed).summary(),
        "prior_gap": prior_gap(unseen, images, network.schedule, level, seed=seed).summary(),
        "leak": leak_gap(unseen, images, network.schedule, level, seed=seed).summary(),
        "spread": spread(unseen, neighbours=neighbours, seed=seed),
        "passed": {name: rates.summary() for name, rates in passed.items()},
    }


def _half(
    unseen: Tensor, streams: Streams, *, neighbours: int, coverage: float, seed: int
) -> tuple[StateJudge, Envelope, dict[str, Tensor]]:
    """Return a judge and an envelope of every other latent, and the rest as candidates.

    They are natural states that the test has not seen: it should pass its coverage of them.
    """
    judge = StateJudge.of(unseen[::2], neighbours=neighbours)
    count = judge.references.count
    order = streams[:count].choose(count, count) if count <= len(streams) else None
    if order is None:
        order = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)
                           ).argsort(1)
    envelope = Envelope.calibrate(judge, order, coverage=coverage)
    return judge, envelope, {"held-out latents": unseen[1::2]}


def _bottleneck(network: UNetEps, latents: Tensor, level: int, batch: int) -> Tensor:
    """Return the middle block's activations of latents, in batches."""
    parts = [network.bottleneck(x.to(network.device), level).cpu() for x in latents.split(batch)]
    return torch.cat(parts)


def scalars_of(table: dict[str, object]) -> dict[str, float]:
    """Return the figures of one level that are worth a curve over levels."""
    gauss, split, gap = table["gaussianity"], table["separability"], table["prior_gap"]
    deep, leak = table["separability bottleneck"], table["leak"]["nats_per_dimension"]
    figures = {
        "norm": gauss["norm"]["mean"], "norm_sd": gauss["norm"]["sd"],
        "norm_over_sqrt_d": gauss["norm"]["mean"] / gauss["norm"]["sqrt_d"],
        "effective_rank": gauss["effective_rank"]["debiased"],
        "projections_rejected": gauss["projections"]["rejected"],
        "projections_rejected_bh": gauss["projections"]["rejected_bh"],
        "components_rejected_bh": gauss["components"]["rejected_bh"],
        "centre_ratio": split["ratio"], "centre_threshold": split["threshold"],
        "centre_ratio_effective": split["effective_ratio"],
        "centre_ratio_bottleneck": deep["ratio"],
        "accuracy_centroid": split["measured"]["centroid"]["value"],
        "accuracy_svm": split["measured"]["svm"]["value"],
        "mean_offset": gap["mean"]["offset"], "mean_offset_noise": gap["mean"]["paired_noise"],
        "trace_ratio": gap["trace_ratio"],
        "nats_per_dimension": gap["nats_per_dimension"]["gap"],
        "leak_pixel_nats": leak["pixel"]["gap"], "leak_dct_nats": leak["dct"]["gap"],
        "bandwidth_content": table["bandwidth"]["content"]["value"],
        "bandwidth_target": table["bandwidth"]["target"]["value"],
    }
    figures |= {f"pair_distance_{side}": table["geometry"][side]["pair_distance"]["mean"]
                for side in ("unseen", "seen")}
    figures |= {f"origin_angle_{side}": table["geometry"][side]["origin_angle"]["mean"]
                for side in ("unseen", "seen")}
    figures |= {f"pass_{name.replace(' ', '_')}": rates["joint"]["value"]
                for name, rates in table["passed"].items()}
    return figures
