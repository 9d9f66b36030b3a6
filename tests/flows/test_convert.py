"""Published files through ``fetch`` and ``convert``: hashes, labels, folders for diffusers."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from published import SMALL_DDPM, SMALL_GUIDED, SMALL_IDDPM, random_state
from workspace import DOMAIN, MODEL, SEEN, SIZE, change, contents, run_stages

from flows.dispatch import run_stage
from flows.loading.frozen import load_frozen
from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.loading import load_checkpoint
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash

FETCHED = Path("data/source/models", MODEL)
HEADS = {"num_heads": 2, "use_new_attention_order": False, "noise_schedule": "linear",
         "diffusion_steps": 1000}
OPTIONS = ["--num-heads", "2", "--no-use-new-attention-order", "--noise-schedule", "linear",
           "--diffusion-steps", "1000", "--size", "16"]


def publish(shapes, **model: object) -> str:
    """Write a checkpoint of random weights and point the model at it; return its hash."""
    torch.save(random_state(shapes), "x.pt")
    change(Path(), "models", MODEL, to={"path": "x.pt", "seen": SEEN, **model})
    return file_hash(Path("x.pt"))


def states() -> torch.Tensor:
    """States, float32 (2, 3, 16, 16)."""
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_a_published_file_goes_through_the_pipeline(workspace) -> None:
    found = publish(SMALL_IDDPM, architecture=HEADS)
    for domain in (SEEN, DOMAIN):
        run_stage("fetch", {"domain": domain})
    with pytest.raises(UnseenError, match=rf"{found}; compare it .*models\.{MODEL}\.sha256"):
        run_stage("fetch_model", {"model": MODEL})
    change(workspace, "models", MODEL, "sha256", to=64 * "0")
    with pytest.raises(UnseenError, match=f"has sha256 {found}, not the one in params.yaml"):
        run_stage("fetch_model", {"model": MODEL})
    assert not FETCHED.exists()
    change(workspace, "models", MODEL, "sha256", to=found)
    fetched = run_stage("fetch_model", {"model": MODEL})
    assert fetched.items() >= {"model": MODEL, "sha256": found}.items()
    first = contents(FETCHED)
    assert sorted(first) == ["law.safetensors", "scheduler/scheduler_config.json", "seen.parquet",
                             "unet/config.json",
                             "unet/diffusion_pytorch_model.safetensors", "unet/weights.sha256"]
    asked = Architecture.from_settings({**HEADS, "image_size": SIZE})
    wanted = load_checkpoint(Path("x.pt"), architecture=asked)
    opened = load_frozen(MODEL, device="cpu", precision="float32", batch=1)
    model, weights = opened.network, opened.weights
    lines = first["unet/weights.sha256"].decode().splitlines()
    assert lines[0] == f"{weights}  unet/diffusion_pytorch_model.safetensors" and len(lines) == 3
    assert torch.equal(model(states(), 400),
                       UNetEps(wanted.network, wanted.schedule)(states(), 400))
    run_stages(["invert"])
    manifest = json.loads(Path("data/latents", MODEL, DOMAIN, "manifest.json").read_text())
    assert manifest["weights"] == weights
    run_stage("fetch_model", {"model": MODEL})
    assert contents(FETCHED) == first


def test_a_hash_comes_before_the_file_is_opened(workspace) -> None:
    Path("x.pt").write_bytes(b"no checkpoint")
    change(workspace, "models", MODEL, to={"path": "x.pt", "seen": SEEN})
    with pytest.raises(UnseenError, match="compare it"):
        run_stage("fetch_model", {"model": MODEL})
    change(workspace, "models", MODEL, "sha256", to=file_hash(Path("x.pt")))
    with pytest.raises(UnseenError, match=f"models.{MODEL}: checkpoint x.pt is damaged"):
        run_stage("fetch_model", {"model": MODEL})


def test_a_label_goes_through_fetch(workspace) -> None:
    found = publish(SMALL_GUIDED, architecture=HEADS)
    change(workspace, "models", MODEL, "sha256", to=found)
    run_stage("fetch", {"domain": SEEN})
    with pytest.raises(UnseenError, match=rf"models\.{MODEL}: .*set label .* to 0\.\.4"):
        run_stage("fetch_model", {"model": MODEL})
    outputs = []
    for label in (1, 4):
        change(workspace, "models", MODEL, "label", to=label)
        run_stage("fetch_model", {"model": MODEL})
        model = load_frozen(MODEL, device="cpu", precision="float32", batch=1).network
        network = UNet2DModel.from_pretrained(FETCHED / "unet")
        labels = torch.tensor([label, label])
        with torch.no_grad():
            wanted = network(states(), 399, class_labels=labels, return_dict=False)[0][:, :3]
        outputs.append(model(states(), 400))
        torch.testing.assert_close(outputs[-1], wanted, rtol=1e-5, atol=1e-5)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


@pytest.mark.parametrize("model, words", [
    ({"architecture": {"preset": "ddmp"}}, "architecture.preset 'ddmp' is not known"),
    ({"architecture": {**HEADS, "num_heads": None}}, "set architecture.num_heads"),
    ({"architecture": {"preset": "afhqdog-p2"}}, "works on 3 x 256 x 256 images"),
    ({"architecture": HEADS, "label": 0}, "knows no classes; remove label"),
])
def test_a_wrong_section_is_one_line(workspace, model: dict[str, object], words: str) -> None:
    shapes = SMALL_IDDPM if "label" in model or "num_heads" in model["architecture"] \
        else {name: shape for name, shape in SMALL_GUIDED.items() if name != "label_emb.weight"}
    found = publish(shapes, **model)
    change(workspace, "models", MODEL, "sha256", to=found)
    with pytest.raises(UnseenError, match=words) as caught:
        run_stage("fetch_model", {"model": MODEL})
    assert MODEL in str(caught.value) and "\n" not in str(caught.value)


def test_a_misspelt_key_of_the_architecture_is_named(workspace) -> None:
    publish(SMALL_IDDPM, architecture={"nun_heads": 2})
    with pytest.raises(UnseenError, match="nun_heads is not a parameter; did you mean num_heads"):
        run_stage("fetch_model", {"model": MODEL})


@pytest.fixture
def converted(tmp_path, monkeypatch, command):
    """Run ``python -m flows convert`` in an empty folder; return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        code, out, err = command("convert", *words)
        return code, out + err

    return run


@pytest.mark.parametrize("shapes, label", [(SMALL_DDPM, None), (SMALL_GUIDED, 2)])
def test_a_converted_folder_is_one_of_diffusers(converted, shapes, label: int | None) -> None:
    torch.save(random_state(shapes), "x.ckpt")
    code, printed = converted("x.ckpt", "out", *OPTIONS, "--sha256", file_hash(Path("x.ckpt")))
    assert code == 0 and file_hash(Path("x.ckpt")) in printed
    assert "_name_or_path" not in json.loads(Path("out/unet/config.json").read_text())
    pipeline = DDPMPipeline.from_pretrained("out")
    unet = UNet2DModel.from_pretrained("out/unet").eval()
    labels = None if label is None else torch.tensor([label])
    asked = Architecture.from_settings({**HEADS, "image_size": SIZE})
    loaded = load_checkpoint(Path("x.ckpt"), architecture=asked)
    wanted = UNetEps(loaded.network, loaded.schedule).bound(label)(states(), 400)
    for network in (unet, pipeline.unet.eval()):
        with torch.no_grad():
            found = network(states(), 399, class_labels=labels, return_dict=False)[0][:, :3]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    betas = 1 - loaded.schedule.alpha_bar[1:] / loaded.schedule.alpha_bar[:-1]
    torch.testing.assert_close(pipeline.scheduler.betas.double(), betas, rtol=1e-4, atol=1e-9)
    if label is None:
        assert torch.equal(load_model(Path("out"))(states(), 400), wanted)


def test_the_hash_of_several_files_is_that_of_what_sha256sum_says_of_them(converted) -> None:
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=8, block_out_channels=(8,), layers_per_block=1,
                       norm_num_groups=4, down_block_types=("DownBlock2D",),
                       up_block_types=("UpBlock2D",))
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained("whole")
    unet.save_pretrained("spread/unet", max_shard_size="20KB")
    shutil.copytree("whole/scheduler", "spread/scheduler")
    files = sorted(Path("spread/unet").glob("*.safetensors"))
    said = subprocess.run(["sha256sum", *(file.name for file in files)], cwd="spread/unet",
                          capture_output=True, check=True).stdout
    wanted = hashlib.sha256(said).hexdigest()
    assert len(files) > 1
    code, printed = converted("spread", "out", "--sha256", wanted)
    assert code == 0, printed
    assert wanted in printed
    assert file_hash(Path("out/unet/diffusion_pytorch_model.safetensors")) == file_hash(
        Path("whole/unet/diffusion_pytorch_model.safetensors"))


@pytest.mark.parametrize("words, said", [
    (["x.pt", "full", *OPTIONS], "full is not empty"),
    (["x.pt", "x.pt", *OPTIONS], "x.pt is not empty"),
    (["y.pt", "out", *OPTIONS], "y.pt"),
    (["x.pt", "out"], "set architecture.image_size"),
    (["x.pt", "out", *OPTIONS], "give the file itself as a model's path"),
    (["x.pt", "out", *OPTIONS, "--sha256", 64 * "0"], "not 0000"),
    (["x.pt", "out", "--preset", "iddpm"], "architecture.preset 'iddpm' is not known"),
])
def test_a_wrong_command_is_one_line(converted, words: list[str], said: str) -> None:
    torch.save(random_state(SMALL_IDDPM), "x.pt")
    Path("full").mkdir()
    Path("full/note").write_text("mine")
    code, printed = converted(*words)
    assert code == 2 and said in printed
    assert printed.startswith("error: ") and len(printed.splitlines()) == 1
    assert not Path("out").exists() and Path("full/note").read_text() == "mine"
