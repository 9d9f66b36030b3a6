"""`load_prior` from a folder: the law that `sample` draws from, and what it refuses."""

import shutil
from pathlib import Path

import pytest
import torch
from workspace import DOMAIN, MODEL, OTHER

from flows.loading.fitted import load_fitted
from flows.priors import load_prior
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError

FOLDER = Path("data/priors", MODEL, DOMAIN)


@pytest.mark.parametrize("level", [0, 200])
def test_it_is_the_law_of_the_pipeline(done, level):
    laws = load_prior(FOLDER, level, "empirical"), load_fitted(
        MODEL, DOMAIN, level).priors["empirical"]
    mine, theirs = (law.sample(Streams(0, "draws", ["0", "1", "2"])) for law in laws)
    assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9)
    assert len(torch.unique(mine, dim=0)) == 3


def test_what_is_not_there_is_named(done):
    with pytest.raises(UnseenError, match="no prior 'spiked' at level 200; it has empirical, iso"):
        load_prior(FOLDER, 200, "spiked")
    with pytest.raises(UnseenError, match=r"L0300\.safetensors"):
        load_prior(FOLDER, 300, "empirical")


def test_other_latents_are_refused(done):
    shutil.rmtree(Path("data/latents", MODEL, DOMAIN))
    shutil.copytree(Path("data/latents", MODEL, OTHER), Path("data/latents", MODEL, DOMAIN))
    with pytest.raises(UnseenError, match="fitted to other inverted images"):
        load_prior(FOLDER, 200, "empirical")
