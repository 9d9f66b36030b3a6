"""One invocation of the whole pipeline: parent run, ``dvc repro``, mirror."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from flows import tracking
from flows.provenance import read_cells, read_latents, store_label
from flows.run import LOG
from unseen_core.errors import UnseenError

__all__ = ["overlay", "run_pipeline", "serve_schedule"]

Say = Callable[[str], None]

LOCKED = ("Unable to acquire lock", "is busy, it is being blocked by")
LOCK_ATTEMPTS = 3
LOCK_DELAY = 10.0
"""Seconds between attempts while another DVC process holds the repository."""

TARGET = re.compile(r"[a-z0-9][a-z0-9_-]*(@[a-z0-9][a-z0-9_-]*)?")


@dataclass
class _Outcome:
    """What a ``dvc repro`` did: exit code, seconds by stage that ran, whether it was locked out."""

    code: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    locked: bool = False


def run_pipeline(
    *,
    root: Path | None = None,
    params: Path | None = None,
    targets: Sequence[str] = (),
    say: Say = print,
) -> None:
    """Bring the pipeline up to date, mirror it to MLflow, and tell where to look.

    Args:
        root: The repository's root; the working directory by default.
        params: A YAML file laid over ``params.yaml``, which it changes; see `overlay`.
        targets: Stages to bring up to date, such as ``evaluate@faces``; all by default.
        say: Receives each line of output.

    Raises:
        UnseenError: If a target is no stage name, a file is unreadable, another DVC process keeps
            the repository locked, or a stage failed (its own message stands above).
    """
    root = (root or Path.cwd()).resolve()
    for target in targets:
        if not TARGET.fullmatch(target):
            raise UnseenError(f"target {target!r} is no stage name; try one such as invert@faces")
    if params is not None:
        overlay(root / "params.yaml", params)
    parent = tracking.open_parent(_load(root / "params.yaml"), root=root)
    before, start = _stamps(root), time.monotonic()
    status = "FAILED"
    outcome = _Outcome()
    try:
        outcome = _repro(root, targets, parent, say)
        status = "FAILED" if outcome.code else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        _record(root, parent, before, status, outcome, time.monotonic() - start)
    if outcome.locked:
        raise UnseenError("another DVC process works in this repository; wait until it has ended")
    if outcome.code:
        stage = next(reversed(outcome.seconds), "")
        where = f" at stage {stage}" if stage else ""
        raise UnseenError(f"the pipeline stopped{where}; the reason stands above")
    for line in _places(root):
        say(line)


def overlay(base: Path, extra: Path) -> None:
    """Lay the keys of ``extra`` over the YAML file ``base``, keeping its comments.

    Mappings are merged, other values replaced, and a null takes the key away, so that
    ``domains: {faces: null}`` drops a domain.

    Raises:
        UnseenError: If a file is missing, no YAML, or no mapping at the top.
    """
    parser = YAML()
    content = _load(base, parser)
    _merge(content, _load(extra))
    with base.open("w", encoding="utf-8") as stream:
        parser.dump(content, stream)


def serve_schedule(*, cron: str, name: str = "nightly") -> None:
    """Serve the scheduled deployment ``unseen-pipeline/<name>`` until interrupted.

    Args:
        cron: When to run, such as ``0 3 * * *``.
        name: What the deployment is called.

    Raises:
        UnseenError: If no Prefect server answers at ``PREFECT_API_URL``.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise UnseenError("set PREFECT_API_URL to the Prefect server's address (`make serve`)")
    # Prefect takes seconds to import, so `run` does without.
    from flows.scheduled import serve

    serve(cron=cron, name=name)


def _repro(root: Path, targets: Sequence[str], parent: str | None, say: Say) -> _Outcome:
    """Run ``dvc repro``, again while another DVC process holds the lock."""
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    environment = _environment(parent)
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        outcome = _stream(command, root, environment, say)
        if not outcome.locked or attempt == LOCK_ATTEMPTS:
            break
        LOG.warning("another DVC process holds the lock; trying again in %g s", LOCK_DELAY)
        time.sleep(LOCK_DELAY)
    return outcome


def _stream(
    command: Sequence[str], root: Path, environment: Mapping[str, str], say: Say
) -> _Outcome:
    """Run a command, pass its lines on as they come, and read from them what happened."""
    outcome = _Outcome()
    stage, since, locked = "", time.monotonic(), False
    with subprocess.Popen(
        command,
        cwd=root,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            say(line.rstrip("\n"))
            locked = locked or any(sign in line for sign in LOCKED)
            if started := re.match(r"Running stage '([^']+)'", line):
                now = time.monotonic()
                if stage:
                    outcome.seconds[stage] = now - since
                stage, since = started[1], now
                outcome.seconds[stage] = 0.0
    if stage:
        outcome.seconds[stage] = time.monotonic() - since
    outcome.code = process.returncode
    outcome.locked = bool(process.returncode) and locked
    return outcome


def _environment(parent: str | None) -> dict[str, str]:
    """Return the environment of ``dvc repro``: this one, this interpreter first, the parent's id.

    An empty id tells the stages that tracking is in hands, or given up, here.
    """
    # A scheduled flow run's own marks would make a stage believe that it is that run.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT__")}
    tools = str(Path(sys.executable).parent)
    path = os.pathsep.join([tools, kept.get("PATH", os.defpath)])
    return kept | {"PATH": path, "PYTHONUNBUFFERED": "1", "UNSEEN_PARENT_RUN": parent or ""}


def _record(
    root: Path,
    parent: str | None,
    before: Mapping[tuple[str, str, str], int],
    status: str,
    outcome: _Outcome,
    seconds: float,
) -> None:
    """Mirror the metrics files to MLflow, those left alone by this invocation as cached."""
    if parent is None:
        return
    fresh = {key[:2] for key, stamp in _stamps(root).items() if before.get(key) != stamp}
    cells = [*read_cells(root / "data/metrics"), *read_latents(root / "data/analysis")]
    tracking.mirror(parent, cells, root=root, fresh=fresh)
    timings = {f"seconds/{name.replace('@', '/')}": took for name, took in outcome.seconds.items()}
    report = root / "data/report"
    tracking.close_parent(
        parent,
        root=root,
        status=status,
        metrics=timings | {"seconds": seconds},
        artifacts=sorted(report.glob("*.csv")) + sorted(report.glob("*.png")),
    )


def _stamps(root: Path) -> dict[tuple[str, str, str], int]:
    """Return when each model's and domain's metrics and analysis were written, nanoseconds."""
    data = root / "data"
    return {(path.relative_to(data).parts[1], path.relative_to(data).parts[2].removesuffix(".json"),
             path.relative_to(data).parts[0]): path.stat().st_mtime_ns
            for pattern in ("metrics/*/*.json", "analysis/*/*/analysis.json")
            for path in data.glob(pattern)}


def _places(root: Path) -> Iterable[str]:
    """Yield the lines that tell where the results are."""
    yield ""
    yield f"pictures  {root / 'data/generated'}  (contact sheets, *.png)"
    yield f"table     {root / 'data/report/compare.csv'}"
    yield f"MLflow    {store_label(root)}  (open it with `make serve`)"


def _load(path: Path, parser: YAML | None = None) -> dict[str, object]:
    """Return the mapping in a YAML file, read as DVC reads it."""
    try:
        content = (parser or YAML(typ="safe")).load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UnseenError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(content, dict):
        raise UnseenError(f"{path}: holds no parameters; write `key: value` lines as params.yaml")
    return content


def _merge(base: dict[str, object], extra: Mapping[str, object]) -> None:
    """Lay ``extra`` over ``base`` in place."""
    for key, value in extra.items():
        below = base.get(key)
        if value is None:
            base.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below, dict):
            _merge(below, value)
        else:
            base[key] = value
