"""Fixtures and settings that all tests share."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from unseen_core.basics.schedule import Schedule

pytest_plugins = ("workspace", "repository", "mirrored", "pipelines")  # tiny projects

# More threads than free cores slow small networks down drastically.
torch.set_num_threads(1)
settings.register_profile("unseen", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("unseen")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the kills unless they are asked for: `make test-faults`."""
    if "faults" not in config.option.markexpr:
        items[:] = [item for item in items if "faults" not in item.keywords]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference material beside the repository; without it the test is skipped."""
    folder = Path(__file__).resolve().parents[1] / "../shared"
    if not folder.is_dir():
        pytest.skip(f"folder {folder} is absent")
    return folder.resolve()


@pytest.fixture(scope="session")
def schedule() -> Schedule:
    """The linear schedule of the paper's models, 1000 steps."""
    return Schedule.linear()
