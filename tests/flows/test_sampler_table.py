"""The table of all samplers: order, missing cells, and the cost of training."""

import math

import pandas as pd
from workspace import ROOT

from flows.report.sampler_table import sampler_table
from flows.settings.params import load_params

KERNEL = "kd_features_imagenet"


def row(domain, sampler, level, distance, calls=20.0, images=math.nan):
    return {"model": "m", "domain": domain, "sampler": sampler, "level": level, KERNEL: distance,
            f"{KERNEL}_low": distance - 0.1, f"{KERNEL}_high": distance + 0.1, "novelty": 1.0,
            "in_target": 0.5, "calls": calls,
            "training_steps": images * 4, "training_images": images}


def test_rows_follow_params_and_domains_stand_side_by_side():
    table = pd.DataFrame([
        row("a", "geometric", 300, 0.2), row("a", "noise", 500, 0.3), row("b", "noise", 500, 0.4),
        row("a", "noise", 100, 0.9), row("a", "real", 0, 0.1, calls=math.nan)])
    lines = sampler_table(table, KERNEL, load_params(ROOT / "params.yaml")).splitlines()[2:]
    assert lines[0] == "| sampler | level | network calls | a | b |"
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| fit images", ""], ["| noise", "100"], ["| noise", "500"], ["| geometric", "300"]]
    assert lines[4].endswith("| 20 | 0.300 (0.200 to 0.400), 1.00, 0.50 "
                             "| 0.400 (0.300 to 0.500), 1.00, 0.50 |")
    assert lines[3].endswith("| 0.900 (0.800 to 1.000), 1.00, 0.50 |  |")


def test_training_cost_stands_beside_what_needed_it():
    table = pd.DataFrame([row("a", "noise", 500, 0.3), row("a", "tuned", 1000, 0.1, 40, 20),
                          row("b", "tuned", 1000, 0.1, 40, 25)])
    lines = sampler_table(table, KERNEL, load_params(ROOT / "params.yaml")).splitlines()[2:]
    assert "trained" in lines[0]
    assert "| frozen |" in lines[2]
    assert "| 80 steps on 20 or 25 images |" in lines[3]
