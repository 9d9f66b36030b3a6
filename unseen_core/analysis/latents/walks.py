"""Walks from inverted images: fresh noise on the way down, and paths from one image to another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from unseen_core.analysis.latents.bandwidth import bandwidth
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.basics.sheets import sheet
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.diffusion.transport import Method, ancestral, denoise
from unseen_core.judging.extractors import metric_names
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import kernel_distance
from unseen_core.judging.probe import Probe, wilson
from unseen_core.laws.references import References
from unseen_core.starts.paths import path
from unseen_core.store import TensorStore
from unseen_core.types import Codec, FeatureExtractor

__all__ = ["Walker"]

_POINTS = 11


@dataclass(frozen=True, eq=False)
class Walker:
    """Carries latents down and judges the images.

    Attributes:
        network: The frozen network.
        codec: Between its states and images.
        grid: The grid of inversion.
        batch: States per network call.
        method: Solver of every run without fresh noise.
        etas: Shares of fresh noise whose effect is measured.
        count: Latents that a bandwidth is measured on.
        paths: Paths of each kind.
        draws: Bootstrap draws of an interval.
        seed: Of all random numbers.
        extractor, probe: Say whether an image is in the target domain.
        unseen, seen: Latents of both domains.
        images: Fit images, uint8 (n, 3, h, w).
    """

    network: UNetEps
    codec: Codec
    grid: tuple[int, ...]
    batch: int
    method: Method
    etas: Sequence[float]
    count: int
    paths: int
    draws: int
    seed: int
    extractor: FeatureExtractor
    probe: Probe
    unseen: TensorStore
    seen: TensorStore
    images: Tensor

    def bandwidth_at(self, level: int) -> dict[str, object]:
        """Return the bandwidth of the first latents at a level, in two senses of content.

        ``target``: the share of images that the probe still puts in the target domain;
        ``content``: the cosine of an image's deviation from the mean fit image with that of the
        original.
        """
        count, etas = self.count, self.etas
        original = to_float(self.images[:count]).flatten(1)
        mean = References.of(self.images).mean.float()
        latents = self.unseen.rows(level, self.unseen.ids[:count])
        content, target = [], []
        for eta in etas:
            streams = Streams(self.seed, f"bandwidth/L{level:04d}/{eta}",
                              [str(i) for i in range(len(latents))])
            images = self._down(latents, level, eta, streams)
            flat = to_float(images).flatten(1)
            content.append(torch.cosine_similarity(flat - mean, original - mean))
            target.append(self.probe.in_target(extract(self.extractor, images)))
        found: dict[str, object] = {"etas": list(etas)}
        for name, kept in (("content", content), ("target", target)):
            rows = torch.stack(kept).double().numpy()
            width = bandwidth(etas, rows, seed=self.seed)
            found[name] = {"kept": rows.mean(1).tolist(), "value": width.value,
                           "low": width.low, "high": width.high}
        return found

    def walks(self, level: int) -> tuple[dict[str, object], Image.Image]:
        """Return the share in the target domain along paths, and a sheet of one path of each.

        From seen to unseen latents along the great circle about the origin; between unseen
        latents along the same, and on the shell about their mean.
        """
        count = min(self.paths, len(self.seen.ids), len(self.unseen.ids) // 2)
        unseen = self.unseen.rows(level, self.unseen.ids[: 2 * count]).double()
        seen = self.seen.rows(level, self.seen.ids[:count]).double()
        mean = References.stored(self.unseen, level).mean.reshape(self.unseen.shape)
        ends = {"seen to unseen, slerp": (seen, unseen[:count], "slerp"),
                "unseen to unseen, slerp": (unseen[:count], unseen[count:], "slerp"),
                "unseen to unseen, shell": (unseen[:count], unseen[count:], "shell")}
        found: dict[str, object] = {"level": level}
        pictures = []
        for name, (first, last, kind) in ends.items():
            states = torch.stack([path(x, y, _POINTS, kind=kind, mean=mean)
                                  for x, y in zip(first, last, strict=True)])
            images = self._down(states.flatten(0, 1).float(), level)
            odds = self.probe.log_odds(extract(self.extractor, images)).reshape(count, _POINTS)
            shares = [wilson(int((column > 0).sum()), count) for column in odds.T]
            found[name] = {"paths": count, "in_target": [share.value for share in shares],
                           "low": [share.low for share in shares],
                           "high": [share.high for share in shares],
                           "log_odds": odds.mean(0).tolist()}
            pictures.append(images[:_POINTS])
        return found, sheet(torch.cat(pictures), columns=_POINTS, captions=list(ends))

    def gap(self, seen: Tensor) -> dict[str, object]:
        """Return how far the domain is from the one that the network has seen.

        The kernel distance of the fit images to seen images, uint8 (n, 3, h, w).
        """
        kernel, _ = metric_names(self.extractor.name)
        found = kernel_distance(*(extract(self.extractor, x) for x in (self.images, seen)),
                                draws=self.draws, seed=self.seed)
        return {"metric": kernel, "value": found.value, "low": found.low, "high": found.high}

    def _down(
        self, states: Tensor, level: int, eta: float = 0.0, streams: Streams | None = None
    ) -> Tensor:
        """Return images of states, uint8; by the ancestral sampler where there are streams."""
        part = self.grid[: self.grid.index(level) + 1]
        size, images = self.batch, []
        for i in range(0, len(states), size):
            x = states[i : i + size].to(self.network.device)
            if eta > 0 and streams is not None:
                down = ancestral(self.network, x, part, eta=eta, streams=streams[i : i + size])
            else:
                down = denoise(self.network, x, part, method=self.method)
            images.append(self.codec.decode(down).cpu())
        return to_uint8(torch.cat(images))
