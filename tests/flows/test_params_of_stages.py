"""The `params` of each stage of dvc.yaml against what its code reads of params.yaml."""

import importlib

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML
from workspace import CHAIN, DOMAIN, MODEL, OTHER, ROOT, SEEN, change, fetch_all, run_stages

from flows.dispatch import run_stage
from flows.running.registry import MODULES
from flows.settings.params import load_params

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
RUNS = {  # entry of dvc.yaml: stage, targets
    "fetch-model": ("fetch_model", {"model": MODEL}), "fetch": ("fetch", {"domain": DOMAIN}),
    "invert-seen": ("invert", {"model": MODEL}), "plan": ("plan", {}), "compare": ("compare", {}),
    "trajectory": ("trajectory", {"model": MODEL}),
    "analyze": ("analyze", {"model": MODEL, "domain": OTHER}),
    "applications": ("applications", {"model": MODEL}), "steer": ("steer", {"model": MODEL}),
    **{name: (name, {"model": MODEL, "domain": DOMAIN}) for name in CHAIN},
}
TUNED = {"short": {"noise": "white", "images": 3, "steps": [1], "batch": 2,
                   "learning_rate": 0.001, "seed": 0}}
# How many cores share the work decides no byte that is worth a rerun: see flows/running/cores.py.
FREE = {"compute.threads"}


class Watched:
    """Parameters, or a section of them, that note the dotted name of every value read."""

    def __init__(self, section, place, read):
        self._section, self._place, self._read = section, place, read

    def __getattr__(self, name):
        value, place = getattr(self._section, name), f"{self._place}{name}"
        if name in ("model", "domain"):
            return lambda key: Watched(value(key), f"{place}s.{key}.", self._read)
        if isinstance(value, BaseModel):
            return Watched(value, f"{place}.", self._read)
        if not callable(value):
            self._read.add(place)
        return value


def leaves(section, place=""):
    """Return the dotted names of the values of a section; a mapping of names is one value."""
    if not isinstance(section, BaseModel):
        return {place.rstrip(".")}
    return {name for key in type(section).model_fields
            for name in leaves(getattr(section, key), f"{place}{key}.")}


def at(params, place):
    """Return what stands at a dotted name."""
    for key in place.split("."):
        params = params[key] if isinstance(params, dict) else getattr(params, key)
    return params


def enough_for_analyze(project):
    """Bring twenty images of either domain to the stage: on fewer it reads nothing."""
    for domain in (OTHER, SEEN):
        change(project, "domains", domain, "fit", to=20)
        change(project, "domains", domain, "limit", to=40)
    for name, value in {"steps": [5], "images": 2, "etas": [0.0, 0.5], "paths": 2}.items():
        change(project, "analyze", name, to=value)
    fetch_all((OTHER, SEEN))
    run_stage("invert", {"model": MODEL})
    run_stages(["invert", "fit"], OTHER)


@pytest.fixture
def read_by(done, monkeypatch):
    """Run an entry of dvc.yaml and return the parameters that it reads."""

    def run(entry):
        stage, targets = RUNS[entry]
        module, read = importlib.import_module(MODULES[stage]), set()
        monkeypatch.setattr(module, "load_params", lambda: Watched(load_params(), "", read))
        if stage == "analyze":
            enough_for_analyze(done)
        if stage == "finetune":
            change(done, "finetune", to=TUNED)
        run_stage(stage, targets)
        return read

    return run


@pytest.mark.parametrize("entry", RUNS)
def test_a_stage_lists_what_it_reads_and_no_more(entry, read_by):
    body = STAGES[entry].get("do", STAGES[entry])
    key = MODEL if entry == "fetch-model" else DOMAIN
    params = load_params()
    places = [place.replace("${key}", key).replace("${item.model}", MODEL)
              for place in body["params"]]
    listed = {name for place in places for name in leaves(at(params, place), f"{place}.")}
    read = read_by(entry)
    assert read - listed <= FREE
    assert not listed & FREE
    # A model or a domain is one thing, and not every kind of it has every key.
    assert {name for name in listed - read if not name.startswith(("models.", "domains."))} == set()


def test_every_entry_is_looked_at_but_two():
    assert set(STAGES) - set(RUNS) == {"download", "pretrain"}
