"""Folders that are not a Stable Diffusion pipeline give one line; nothing in them is run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unseen_core.checkpoints.pipeline import load_parts, pipeline_files
from unseen_core.errors import UnseenError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(pipelines: dict[str, Path], tmp_path: Path) -> Path:
    """A pipeline that may be damaged."""
    return Path(shutil.copytree(pipelines["epsilon"], tmp_path / "pipeline"))


def refused(folder: Path) -> str:
    """Return the one line that a folder is refused with."""
    with pytest.raises(UnseenError) as caught:
        load_parts(folder)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


def edit(file: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(("changes", "said"), [
    ({"unet": ["diffusers", "UNet2DModel"]}, "unet is 'UNet2DModel', not UNet2DConditionModel"),
    ({"vae": ["my_code", "Mine"]}, "vae is 'Mine', not AutoencoderKL"),
    ({"text_encoder": None}, "text_encoder is None"),
    ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "Stable Diffusion XL"),
])
def test_an_index_of_another_pipeline(folder: Path, changes: dict, said: str) -> None:
    edit(folder / "model_index.json", **changes)
    assert said in refused(folder)


def test_folders_that_are_no_pipeline(tmp_path: Path, folder: Path) -> None:
    assert "model_index.json cannot be read" in refused(tmp_path)
    assert "model_index.json cannot be read" in refused(tmp_path / "absent")
    (folder / "model_index.json").write_text("[]")
    assert "no JSON object" in refused(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_in_a_pickle_are_not_opened(folder: Path, part: str) -> None:
    weights, = (folder / part).glob("*.safetensors")
    state = load_file(weights)
    weights.unlink()
    torch.save(state, folder / part / "pytorch_model.bin")
    torch.save(state, folder / part / "diffusion_pytorch_model.bin")
    assert f"{folder / part} has no weights as safetensors" in refused(folder)


def cut(file: Path) -> None:
    """Leave half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose(file: Path) -> None:
    """Leave all tensors but the first."""
    state = load_file(file)
    save_file({name: state[name] for name in sorted(state)[1:]}, file, {"format": "pt"})


@pytest.mark.parametrize("damage", [cut, lose])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_damaged_weights(folder: Path, part: str, damage: Callable[[Path], None]) -> None:
    damage(next((folder / part).glob("*.safetensors")))
    line = refused(folder)
    assert str(folder / part) in line
    assert ("lacks the weights" in line) == (damage is lose)


@pytest.mark.parametrize(("file", "changes", "said"), [
    ("unet/config.json", {"in_channels": 9}, "unet"),
    ("unet/config.json", {"sample_size": [8, 16]}, "sample_size"),
    ("unet/config.json", {"time_cond_proj_dim": 8}, "unet"),
    ("vae/config.json", {"latent_channels": 8}, "vae"),
    ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"},
     "prediction_type"),
    ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "use_flow_sigmas"),
])
def test_configurations_of_something_else(
    folder: Path, file: str, changes: dict, said: str
) -> None:
    edit(folder / file, **changes)
    assert said in refused(folder)


@pytest.mark.parametrize("part", ["tokenizer", "scheduler"])
def test_parts_that_are_missing(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    assert f"{folder / part} has no configuration" in refused(folder)


def test_code_in_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    code = f"open({str(flag)!r}, 'w').close()\n"
    for name in ("pipeline.py", "unet/my_code.py", "StableDiffusionPipeline.py"):
        (folder / name).write_text(code)
    edit(folder / "model_index.json", _class_name=["pipeline", "Mine"])
    edit(folder / "tokenizer/tokenizer_config.json",
         auto_map={"AutoTokenizer": ["my_code.X", None]})
    assert load_parts(folder).schedule.top == 1000
    assert not flag.exists()


def test_half_precision_files_serve_where_there_are_no_others(folder: Path) -> None:
    full = load_parts(folder)
    whole = pipeline_files(folder)
    for part in ("unet", "vae"):
        half = {name: x.half() for name, x in load_file(folder / part / WEIGHTS).items()}
        save_file(half, folder / part / "diffusion_pytorch_model.fp16.safetensors",
                  {"format": "pt"})
    assert pipeline_files(folder) == whole  # the full ones are there
    for part in ("unet", "vae"):
        (folder / part / WEIGHTS).unlink()
    assert [file.name for file in pipeline_files(folder)].count(
        "diffusion_pytorch_model.fp16.safetensors") == 2
    found = load_parts(folder)
    assert found.pipeline.unet.dtype == found.pipeline.vae.dtype == torch.float32
    for name, x in full.pipeline.unet.state_dict().items():
        torch.testing.assert_close(found.pipeline.unet.state_dict()[name], x, rtol=1e-3, atol=1e-3)


def test_files_as_the_first_releases_have_them_say_the_same(
    folder: Path, pipelines: dict[str, Path]
) -> None:
    encoder, vae = folder / "text_encoder/model.safetensors", folder / "vae" / WEIGHTS
    state = {f"text_model.{name.removeprefix('text_model.')}": x
             for name, x in load_file(encoder).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(8)[None]
    save_file(state, encoder, {"format": "pt"})
    renamed = {}
    for name, x in load_file(vae).items():
        if "attentions" in name:
            for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"),
                             ("to_out.0", "proj_attn")):
                name = name.replace(new, old)
        renamed[name] = x
    assert any(".query." in name for name in renamed)
    save_file(renamed, vae, {"format": "pt"})
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "unet/diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"not read")
    found, wanted = load_parts(folder).pipeline, load_parts(pipelines["epsilon"]).pipeline
    for name in ("text_encoder", "vae"):
        state = getattr(wanted, name).state_dict()
        for key, x in getattr(found, name).state_dict().items():
            assert torch.equal(x, state[key])
    assert found.tokenizer("red a").input_ids == wanted.tokenizer("red a").input_ids


def test_without_the_library_of_text_encoders_it_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unseen_core.checkpoints.pipeline.find_spec", lambda name: None)
    assert "transformers" in refused(folder) and "latent" in refused(folder)
