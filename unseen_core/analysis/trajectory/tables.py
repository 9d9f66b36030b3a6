"""The tables of stage ``trajectory``: measurements beside predictions, rows that CSV can hold."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unseen_core.analysis.trajectory import (
    LAGS,
    Misfit,
    Spectrum,
    best_of,
    dimension,
    emergence_level,
    explained_variance,
    half_levels,
    predicted_gain,
    predicted_levels,
    rank_correlation,
)
from unseen_core.basics.schedule import Schedule
from unseen_core.judging.metrics import Interval

__all__ = ["better", "dimensions", "emergence_table", "figures", "gains_table", "lags",
           "levels_table"]

_DRAWS = 200
_NAMES = ("gaussian", "mean", "delta")
_AXES = 12  # Cumulative shares that the report lists.


def _band(values: Tensor) -> Interval:
    """Return the mean over runs and the band of 5 to 95 % of them."""
    low, high = values.double().quantile(values.new_tensor([0.05, 0.95], dtype=torch.float64))
    return Interval(values.double().mean().item(), low.item(), high.item())


def levels_table(
    found: Mapping[str, Tensor],
    noised: Mapping[int, Mapping[str, Misfit]],
    inverted: Mapping[str, Mapping[str, Tensor]],
    levels: Sequence[int],
    schedule: Schedule,
) -> pd.DataFrame:
    """Return a row per level, from noise to images.

    Means over runs; ``_low`` and ``_high`` of them are the band of 5 to 95 % of the runs, of
    explained variances a 95 % interval. ``_predicted`` is the same measure of the closed form's
    run from the same start. Distances are in units of the mean distance of final images.
    """
    features, rows = found["features"].double(), []
    unit = torch.pdist(features).mean() if len(features) > 1 else torch.ones(())
    images = found["states/whole"][:, -1].mean().sqrt()
    for n, level in enumerate(levels):
        row: dict[str, object] = {"level": level, "sigma": schedule.sigma(level).item(),
                                  "runs": len(features)}
        for name in ("rotation", "plane", "size", "pair", "span", "norm"):
            for end in ("", "_predicted"):
                _put(row, f"{name}{end}", _band(found[f"{name}{end}"][:, n]))
        for what in ("states", "clean"):
            whole = found[f"{what}/whole"][:, n].mean()
            errors = {name: (found[f"{what}/{name}"][:, n].mean() / whole).item()
                      for name in _NAMES}
            row |= {f"error_{what}_{name}": error for name, error in errors.items()}
            row[f"best_{what}"] = best_of(errors) if level < levels[0] or what == "clean" else ""
        _put(row, "distance", _band(found["distance"][:, n] / unit))
        for end in ("", "_predicted"):
            _put(row, f"pixels{end}", _band(found[f"pixels{end}"][:, n] / images))
        for name in _NAMES if level in noised else ():
            _put(row, f"ev_clean_{name}", explained_variance(noised[level][name].clean))
            _put(row, f"ev_noise_{name}", explained_variance(noised[level][name].noise))
        for side, measures in inverted.items():
            for name in ("rotation", "plane"):
                _put(row, f"{name}_{side}", _band(measures[name][:, n]))
        rows.append(row)
    return pd.DataFrame(rows)


def emergence_table(
    energy: Tensor,
    energy_predicted: Tensor,
    spectrum: Spectrum,
    groups: Sequence[range],
    levels: Sequence[int],
    schedule: Schedule,
    *,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Return a row per group of modes, and how well the predicted order is the measured one.

    ``predicted`` is `predicted_levels`, ``exact_run`` what the closed form's runs give on the same
    grid and starts, ``measured`` the network's, with a 95 % bootstrap interval over runs.

    Args:
        energy: Of predicted images along the groups, (n, nodes, groups).
        energy_predicted: The same of the closed form's runs.
        spectrum: The modes.
        groups: Their indices.
        levels: Level of each node, falling to 0.
        schedule: The network's.
        seed: Of the bootstrap.
    """
    def halves(values: Tensor) -> list[float]:
        total = values.sum(0)
        tiny = torch.finfo(total.dtype).tiny
        return half_levels(total[:-1] / total[-1].clamp_min(tiny), levels[:-1], schedule)

    predicted = predicted_levels(spectrum.variances, groups, schedule)
    measured, exact = halves(energy), halves(energy_predicted)
    random = np.random.default_rng(seed)
    drawn = [halves(energy[random.integers(len(energy), size=len(energy))])
             for _ in range(_DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    share = spectrum.variances / spectrum.variances.sum()
    table = pd.DataFrame([{
        "mode": group.start, "modes": len(group),
        "variance": spectrum.variances[list(group)].mean().item(),
        "share": share[list(group)].sum().item(),
        "sigma": spectrum.variances[list(group)].mean().sqrt().item(),
        "predicted": predicted[i], "measured": measured[i], "low": low[i], "high": high[i],
        "exact_run": exact[i]} for i, group in enumerate(groups)])
    order: dict[str, object] = {"first": emergence_level(spectrum.variances[0].item(), schedule)}
    for name, rows in (("all", table), ("single_modes", table[table["modes"] == 1])):
        order[name] = _agreement(rows["predicted"], rows["measured"], rows["low"], rows["high"])
    order["exact_run"] = _agreement(table["predicted"], table["exact_run"])
    return table, order


def gains_table(
    kicks: Mapping[int, Mapping[str, Tensor]],
    modes: Sequence[int],
    spectrum: Spectrum,
    features: Tensor,
    schedule: Schedule,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Return a row per level and direction, and how near the gains are to `predicted_gain`.

    Args:
        kicks: By level, ``gain``, ``response`` and ``distance``, (n, directions) each.
        modes: The directions but the last, which lies off the span.
        spectrum: The modes.
        features: Of final images, for the unit of distance, (n, D).
        schedule: The network's.
    """
    unit = torch.pdist(features.double()).mean() if len(features) > 1 else torch.ones(())
    directions = [(f"mode {mode}", spectrum.variances[mode].item()) for mode in modes]
    rows = []
    for level, table in sorted(kicks.items()):
        for i, (name, variance) in enumerate([*directions, ("off span", spectrum.remainder)]):
            row: dict[str, object] = {
                "level": level, "direction": name, "variance": variance,
                "runs": len(table["gain"]), "predicted": predicted_gain(variance, schedule, level)}
            _put(row, "measured", _band(table["gain"][:, i]))
            _put(row, "response", _band(table["response"][:, i]))
            _put(row, "distance", _band(table["distance"][:, i] / unit))
            rows.append(row)
    frame = pd.DataFrame(rows)
    near = frame[frame["direction"] != "off span"]
    agreement = _agreement(near["predicted"], near["measured"], near["measured_low"],
                           near["measured_high"])
    ratio = frame["measured"] / frame["predicted"]
    agreement["median_ratio"] = {str(name): float(rows.median())
                                 for name, rows in ratio.groupby(frame["direction"], sort=False)}
    return frame, agreement


def dimensions(found: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the axes that explain 99.9 %, and the cumulative shares of the first ones."""
    table: dict[str, object] = {}
    for what in ("states", "differences", "noise"):
        for end in ("", "_predicted"):
            shares = found[f"explained/{what}{end}"]
            table[f"{what}{end}"] = {
                "dimension": vars(_band(dimension(shares).double())),
                "explained": shares.mean(0)[:_AXES].tolist()}
    return table


def lags(found: Mapping[str, Tensor]) -> list[dict[str, object]]:
    """Return the mean cosine of differences by lag, measured and predicted."""
    rows = []
    for lag in LAGS:
        if f"cosine/{lag}" in found:
            row: dict[str, object] = {"lag": lag}
            for end in ("", "_predicted"):
                _put(row, f"cosine{end}", _band(found[f"cosine/{lag}{end}"]))
            rows.append(row)
    return rows


def better(levels: pd.DataFrame) -> dict[str, dict[str, list[int]]]:
    """Return, of states and predicted images, the levels at which each closed form is nearest."""
    return {what: {name: levels.loc[levels[f"best_{what}"] == name, "level"].tolist()
                   for name in _NAMES} for what in ("states", "clean")}


def figures(levels: pd.DataFrame) -> dict[str, float]:
    """Return the scalars worth a line: extremes over levels, and where they lie.

    ``ev_noise_NAME_there`` is taken where the Gaussian explains least of the predicted image.
    """
    between = levels[(levels["level"] > 0) & (levels["level"] < levels["level"].max())]
    found: dict[str, float] = {}
    for name in ("rotation", "rotation_predicted", "plane", "plane_predicted"):
        worst = between.loc[between[name].idxmax()]
        found |= {f"{name}_mean": float(between[name].mean()), f"{name}_max": float(worst[name]),
                  f"{name}_max_level": int(worst["level"])}
    for name in _NAMES:
        lowest = between.loc[between[f"ev_clean_{name}"].idxmin()]
        found |= {f"ev_clean_{name}_min": float(lowest[f"ev_clean_{name}"]),
                  f"ev_clean_{name}_min_level": int(lowest["level"])}
    there = between.loc[between["ev_clean_gaussian"].idxmin()]
    final = levels.iloc[-1]
    for name in _NAMES:
        found[f"ev_noise_{name}_there"] = float(there[f"ev_noise_{name}"])
        found[f"error_final_{name}"] = float(final[f"error_states_{name}"])
    return found


def _agreement(
    predicted: pd.Series,
    measured: pd.Series,
    low: pd.Series | None = None,
    high: pd.Series | None = None,
) -> dict[str, object]:
    """Say how near measured numbers are to predicted ones, in size and in order."""
    gap = measured - predicted
    found: dict[str, object] = {"count": len(gap), "mean_gap": float(gap.mean()),
                                "rms_gap": float((gap**2).mean() ** 0.5)}
    if low is not None and high is not None:
        found["predicted_inside"] = float(((low <= predicted) & (predicted <= high)).mean())
    if len(gap) > 2:
        found["rank_correlation"] = vars(rank_correlation(predicted.tolist(), measured.tolist()))
    return found


def _put(row: dict[str, object], name: str, found: Interval) -> None:
    """Write a figure and its ends into a row."""
    row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
