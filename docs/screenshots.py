"""Pictures of the MLflow and Prefect UIs: docs/mlflow.png and docs/prefect.png.

Run it at the root of a repository in which the pipeline has run, `python docs/screenshots.py`.
It starts both servers on loopback, runs one stage as a recorded flow run, and needs Chromium (or
Chrome) on the path, which is not a dependency of the project.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import requests
from PIL import Image

from flows.mlflow.store import FoundRun, connect
from unseen_core.errors import UnseenError

__all__ = ["main"]

METRIC = "kd_features_imagenet/geometric"
WIDTH, HEIGHT = 1400, 820
ASSISTANT = 475  # pixels of a panel that MLflow opens at the right on a first visit
LOAD_MS = 60_000  # of a page's own time, which Chromium lets pass quickly


def main() -> None:
    """Start the servers, take both pictures, and stop the servers."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser",
                                                   "google-chrome"))), None)
    if browser is None:
        raise UnseenError("no Chromium on the path; install one, such as `apt install chromium`")
    runs = _newest_series()
    with tempfile.TemporaryDirectory() as home, _servers(Path(home)) as (mlflow, prefect):
        page = _comparison(mlflow, runs)
        _picture(browser, page, Path("docs/mlflow.png"), Path(home), cut=ASSISTANT)
        page = f"{prefect}/runs/flow-run/{_flow_run(prefect, runs[0])}"
        _picture(browser, page, Path("docs/prefect.png"), Path(home))


def _newest_series() -> list[FoundRun]:
    """Return the runs over levels of the newest parent, one per model and domain."""
    query = "tags.`unseen.kind` = 'series' and tags.`unseen.first` = 'true'"
    newest: dict[str, FoundRun] = {}
    for run in connect(Path.cwd()).find(query):
        newest.setdefault(run.name, run)
    if not newest:
        raise UnseenError("the MLflow store holds no runs over levels; run `python -m flows sync`")
    return sorted(newest.values(), key=lambda run: run.name)


def _comparison(address: str, runs: list[FoundRun]) -> str:
    """Return MLflow's page of one metric over levels, a line per domain."""
    experiment = connect(Path.cwd()).experiment
    words = {"runs": [run.id for run in runs], "experiments": [experiment], "metric": METRIC,
             "plot_metric_keys": [METRIC], "plot_layout": {}, "deselected_curves": [],
             "last_linear_y_axis_range": []}
    query = "&".join(f"{name}={quote(json.dumps(value))}" for name, value in words.items())
    return (f"{address}/#/metric?{query}&x_axis=step&y_axis_scale=log&line_smoothness=1"
            "&show_point=true")


def _flow_run(address: str, run: FoundRun) -> str:
    """Run a quick stage as a flow run and return its id."""
    words = ["fit", "--model", run.parameters["model"], "--domain", run.parameters["domain"]]
    subprocess.run([sys.executable, "-m", "flows", *words], check=True,
                   env=os.environ | {"PREFECT_API_URL": f"{address}/api"})
    found = requests.post(f"{address}/api/flow_runs/filter", timeout=30,
                          json={"sort": "START_TIME_DESC", "limit": 1})
    return str(found.json()[0]["id"])


@contextmanager
def _servers(home: Path) -> Iterator[tuple[str, str]]:
    """Run ``python -m flows serve`` on free ports; yield both addresses."""
    ports = [_free_port(), _free_port()]
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    variables = {"UNSEEN_MLFLOW_PORT": str(ports[0]), "UNSEEN_PREFECT_PORT": str(ports[1]),
                 "PREFECT_HOME": str(home / "prefect"),
                 "PREFECT_UI_API_URL": f"{addresses[1]}/api"}
    with subprocess.Popen([sys.executable, "-m", "flows", "serve"],
                          env=os.environ | variables) as server:
        try:
            for address, path in zip(addresses, ("health", "api/health"), strict=True):
                while not _answers(f"{address}/{path}"):
                    if server.poll() is not None:
                        raise UnseenError("the servers ended; their reason stands above")
                    time.sleep(0.5)
            yield addresses[0], addresses[1]
        finally:
            server.terminate()


def _answers(address: str) -> bool:
    """Say whether a server is there."""
    try:
        return requests.get(address, timeout=2).ok
    except requests.RequestException:
        return False


def _free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _picture(browser: str, page: str, file: Path, home: Path, cut: int = 0) -> None:
    """Write a picture of a page, without ``cut`` pixels at the right."""
    taken = home / file.name
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={home / 'browser'}", f"--window-size={WIDTH + cut},{HEIGHT}",
               "--run-all-compositor-stages-before-draw", f"--virtual-time-budget={LOAD_MS}",
               f"--screenshot={taken}", page]
    subprocess.run(command, check=True, timeout=180, capture_output=True)
    with Image.open(taken) as image:
        whole = image.convert("RGB").crop((0, 0, image.width - cut, image.height))
        # Few colours, and a third of the bytes.
        whole.quantize(256).save(file, optimize=True)


if __name__ == "__main__":
    main()
