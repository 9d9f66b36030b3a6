"""Presets: each, laid over params.yaml, gives a run that can start."""

import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from workspace import ROOT

from flows.dvc.overrides import overlay
from flows.settings.params import Params, load_params
from flows.settings.plan import Plan
from unseen_core.errors import UnseenError

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
COMMAND = "python -m flows run"
OVERLAYS = [*PRESETS, ROOT / "tests/reduced.yaml"]
# Twins that do not carry the name of what they are compared with.
TWINS = {"pixel-gaussian": "prior-empirical", "pixel-blend": "geometric"}


def command_of(preset: Path) -> list[Path]:
    """Return the files that the command in a preset's head lays over the parameters, in order."""
    head = preset.read_text("utf-8").partition("\npipeline:")[0]
    named = re.findall(rf"{COMMAND}((?: --params presets/\S+\.yaml)+)", head)
    return [ROOT / file for file in re.findall(r"presets/\S+\.yaml", " ".join(named[:1]))]


def laid_over(preset: Path, folder: Path) -> Params:
    """Return the parameters with a preset laid over them, checked as before a run."""
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    for layer in (command_of(preset) if preset in PRESETS else [preset]):
        overlay(folder / "params.yaml", layer)
    params = load_params(folder / "params.yaml")
    Plan.of(params)
    return params


def written(preset: Path) -> dict:
    """Return what a preset says."""
    return YAML(typ="safe").load(preset.read_text("utf-8"))


@pytest.mark.parametrize("preset", OVERLAYS, ids=lambda path: path.stem)
def test_a_preset_gives_parameters_samplers_and_cells(tmp_path, preset):
    params = laid_over(preset, tmp_path)
    asked = written(preset).get("samplers", {})
    assert set(params.samplers) >= {name for name, value in asked.items() if value is not None}
    assert not set(params.samplers) & {name for name, value in asked.items() if value is None}
    # A null under a name that is not there would take nothing away, without a word.
    assert set(asked) - set(load_params(ROOT / "params.yaml").samplers) <= set(params.samplers)
    reached = {cell.level for cell in Plan.of(params).cells}
    assert set(params.levels) <= reached


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_begins_with_its_command(preset):
    assert preset in command_of(preset)


@pytest.mark.parametrize(("edit", "said"), [
    ({"samplers": {"x": {"sampler": "noise", "levels": [450]}}}, "samplers.x.levels: 450"),
    ({"levels": [500]}, "is not in levels"),
    ({"samplers": {"x": {"sampler": "bands", "shell": "soft"}}}, "samplers.x: shell 'soft'"),
    ({"pipeline": {"domains": ["facess"]}}, "did you mean faces?"),
], ids=["level", "levels", "setting", "domain"])
def test_a_wrong_preset_is_refused(tmp_path, edit, said):
    preset = tmp_path / "wrong.yaml"
    with preset.open("w", encoding="utf-8") as stream:
        YAML().dump(edit, stream)
    with pytest.raises(UnseenError) as caught:
        laid_over(preset, tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_pixel_twins_have_the_settings_of_what_they_are_compared_with(tmp_path, preset):
    samplers = laid_over(preset, tmp_path).samplers
    twins = {name: TWINS.get(name, name.replace("pixel-blend-", "geometric-")
                                 .removeprefix("pixel-")) for name in samplers
             if name.startswith("pixel-")}
    if "local-score" not in samplers:  # the same finished by the network: presets/study.yaml
        twins.pop("pixel-local-score", None)
    assert twins
    for name, other in twins.items():
        assert samplers[name].space == "pixels"
        assert samplers[name].settings() == samplers[other].settings(), name


def test_the_ablation_tries_each_value_of_each_setting_of_bands(tmp_path):
    samplers = laid_over(ROOT / "presets/ablation.yaml", tmp_path).samplers
    bands = [s.settings() for s in samplers.values()
             if s.sampler == "bands" and s.space == "latents"]
    assert len(bands) == 12
    assert len({tuple(sorted(settings.items())) for settings in bands}) == 12
    tried = {"cut": {4.0, 8.0}, "coarse": {1, 2}, "fine": {1, 2}, "near": {8, 20},
             "shell": {"none", "parents", "bands"}}
    for setting, values in tried.items():
        assert {settings[setting] for settings in bands} == values
    etas = {s.settings().get("eta", 0.0) for s in samplers.values() if s.sampler == "geometric"}
    assert etas == {0.0, 0.1, 0.3}


def test_six_domains_are_all_embedded_ones_but_the_seen(tmp_path):
    params = laid_over(ROOT / "presets/six-domains.yaml", tmp_path)
    embedded = {name for name, domain in params.domains.items() if domain.path == "constraints.txt"}
    assert set(params.pipeline.domains) == embedded
    assert len(params.pipeline.domains) == 6
