"""The pictures of stage ``applications``: curves, and outputs beside their sources."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
import torch
from PIL import Image

from flows.report.applications_data import Made, side
from flows.settings.params import Params
from unseen_core.applications import enlarge, shrink
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.sheets import sheet

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["anonymise_sheet", "enhance_sheet", "plot_applications"]

_ROWS = 6  # originals of each domain on a sheet
_TILE = 64  # pixels that a smaller image is enlarged to


def plot_applications(tables: Mapping[str, Sequence[Mapping[str, object]]], model: str,
                      file: Path) -> None:
    """Plot tracing and use against the fraction, accuracy by arm, and enhancement."""
    figure, axes = plt.subplots(1, 4, figsize=(18, 4))
    hiding, arms, sharper = (pd.DataFrame(tables[name])
                             for name in ("anonymise", "augment", "enhance"))
    for axis, draw, rows in zip(axes, (_tracing, _use, _arms, _sharpness),
                                (hiding, hiding, arms, sharper), strict=True):
        if len(rows):
            draw(axis, rows)
        else:
            axis.set_axis_off()
    figure.suptitle(f"Boomerang with {model}", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=90, format="png", metadata={"Software": None})
    plt.close(figure)


def _tracing(axis: plt.Axes, rows: pd.DataFrame) -> None:
    """Plot how many outputs are traced to their source."""
    for domain, line in rows.groupby("domain"):
        axis.errorbar(line["fraction"], line["top1"], yerr=[line["top1"] - line["top1_low"],
                      line["top1_high"] - line["top1"]], marker="o", label=f"{domain}, features")
        axis.plot(line["fraction"], line["top1_pixels"], marker="s", ls=":",
                  label=f"{domain}, pixels")
        axis.plot(line["fraction"], line["verified"], marker="^", ls="--",
                  label=f"{domain}, verified at 1 % false")
        axis.axhline(line["top1_chance"].iloc[0], color="grey", lw=0.5)
    axis.set(title="anonymise: traced to the source (no guarantee)", xlabel="fraction k / T",
             ylim=(-0.03, 1.03))
    axis.legend(fontsize=6)


def _use(axis: plt.Axes, rows: pd.DataFrame) -> None:
    """Plot what is left of the domain, and how far outputs moved beside the prediction."""
    for domain, line in rows.groupby("domain"):
        axis.plot(line["fraction"], line["moved_rms"], marker="o", label=f"{domain}, moved (rms)")
        axis.plot(line["fraction"], line["moved_rms_predicted"], ls=":",
                  label=f"{domain}, predicted")
        axis.plot(line["fraction"], line["in_target"], marker="^", ls="--",
                  label=f"{domain}, in the domain")
        if line["utility"].notna().all():
            axis.plot(line["fraction"], line["utility"], marker="s", label=f"{domain}, accuracy")
    axis.set(title="anonymise: distance and use", xlabel="fraction k / T")
    axis.legend(fontsize=6)


def _arms(axis: plt.Axes, rows: pd.DataFrame) -> None:
    """Plot the accuracy of every arm."""
    axis.errorbar(rows["accuracy"], rows["arm"],
                  xerr=[rows["accuracy"] - rows["accuracy_low"],
                        rows["accuracy_high"] - rows["accuracy"]], fmt="o", ms=4)
    axis.set(title=f"augment {rows['domain'][0]}: {rows['labels_a_class'][0]} labels a class, "
                   f"{rows['seeds'][0]} seeds", xlabel="accuracy on held-out images, 95 %")
    axis.axvline(rows["accuracy"][0], color="grey", lw=0.5)
    axis.invert_yaxis()


def _sharpness(axis: plt.Axes, rows: pd.DataFrame) -> None:
    """Plot the perceptual distance less bicubic's."""
    for (domain, factor, passes), line in rows.groupby(["domain", "factor", "passes"]):
        axis.errorbar(line["fraction"], line["perceptual_gain"], yerr=[
            line["perceptual_gain"] - line["perceptual_gain_low"],
            line["perceptual_gain_high"] - line["perceptual_gain"]], marker="o",
            label=f"{domain} x{factor}, {passes} passes")
    axis.axhline(0, color="grey", lw=0.5)
    axis.set(title="enhance: perceptual distance - bicubic's", xlabel="fraction k / T")
    axis.legend(fontsize=6)


def anonymise_sheet(params: Params, made: Sequence[Made]) -> Image.Image:
    """Return originals, each followed by its output at every fraction."""
    asked = params.applications.anonymise
    columns, rows = sorted(asked.fractions), []
    for domain in sorted({one.domain for one in made}):
        sets = {one.fraction: one.images for one in made if one.domain == domain}
        for i in range(min(_ROWS, len(side(domain, "fit")[0]))):
            rows += [side(domain, "fit")[0][i], *(sets[fraction][i] for fraction in columns)]
    title = "source | " + " | ".join(f"p = {fraction:g}" for fraction in columns)
    return _sheet(rows, 1 + len(columns), title)


def enhance_sheet(params: Params, made: Sequence[Made]) -> Image.Image:
    """Return, row by row, what was given, bicubic, every setting, and the original."""
    asked = params.applications.enhance
    order = sorted({(one.passes, one.fraction) for one in made})
    rows = []
    for domain, factor in sorted({(one.domain, one.factor) for one in made}):
        sets = {(one.passes, one.fraction): one.images for one in made
                if (one.domain, one.factor) == (domain, factor)}
        for i in range(min(_ROWS, asked.images, len(side(domain, "fit")[0]))):
            original = side(domain, "fit")[0][i]
            small = shrink(to_float(original[None]), factor)
            given = small.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
            rows += [to_uint8(given)[0], to_uint8(enlarge(small, factor))[0],
                     *(sets[key][i] for key in order), original]
    title = "given | bicubic | " + " | ".join(f"{n} x p={p:g}" for n, p in order) + " | original"
    return _sheet(rows, 3 + len(order), title)


def _sheet(images: Sequence[torch.Tensor], columns: int, title: str) -> Image.Image:
    """Return tiles in columns, small images enlarged."""
    stack = torch.stack(list(images))
    return sheet(stack, columns=columns, scale=max(1, _TILE // stack.shape[-1]), title=title)
