"""A workspace of a few made-up metrics files, with an empty MLflow store."""

import json
import shutil

import pytest
from PIL import Image
from workspace import made_once

from flows.loading.metrics import read_cells

LEVELS, SAMPLERS = (300, 500), ("noise", "geometric")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """An MLflow database with its tables made: creating them takes seconds, copying does not."""
    from mlflow import MlflowClient

    def make(folder):
        folder.mkdir()
        MlflowClient(f"sqlite:///{folder / 'empty.db'}").get_experiment_by_name("unseen")

    return made_once(tmp_path_factory, "mlflow", make) / "empty.db"


@pytest.fixture
def root(tmp_path, migrated, monkeypatch):
    """A workspace with metrics of two domains, sheets, and an empty MLflow store."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "UNSEEN_PARENT_RUN"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    for domain in ("digits", "faces"):
        cells = []
        for level in LEVELS:
            for sampler in SAMPLERS:
                sheet = f"data/generated/m/{domain}/L{level:04d}-{sampler}.png"
                (tmp_path / sheet).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 20), (level % 256, 0, 0)).save(tmp_path / sheet)
                metrics = {"kd_pixels": level / 1000, "novelty": None, "n_near": float("inf")}
                cells.append(
                    {
                        "model": "m",
                        "domain": domain,
                        "level": level,
                        "sampler": sampler,
                        "n": 64,
                        "settings": {"kind": "shrunk"},
                        "metrics": metrics,
                        "sheet": sheet,
                    }
                )
        path = tmp_path / f"data/metrics/m/{domain}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cells": cells}))
    return tmp_path


@pytest.fixture
def cells(root):
    """The cells of that workspace."""
    return read_cells(root / "data/metrics")
