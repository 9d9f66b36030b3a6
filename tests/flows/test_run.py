"""The direct loop and the choice between direct and recorded runs."""

import logging
import threading
import time

import pytest

from flows.dispatch import run_stage
from flows.running import registry as stages
from flows.running.registry import stage
from flows.running.run import DirectRun
from unseen_core.errors import UnseenError


def test_an_interrupted_command_says_that_nothing_is_lost(command, workspace, monkeypatch):
    def interrupted(run, **targets):
        raise KeyboardInterrupt

    monkeypatch.setitem(stages.STAGES, "plan", interrupted)
    code, _, said = command("plan")
    assert code == 130
    assert said.startswith("stopped; a stage, run or generate goes on from here")


def test_map_keeps_order_and_logs_tenths(caplog):
    caplog.set_level(logging.INFO, logger="unseen")
    run = DirectRun(delay=0)
    assert run.map(lambda x: x * x, range(40), name=str) == [x * x for x in range(40)]
    assert [record.args[1] for record in caplog.records] == list(range(4, 41, 4))
    assert run.map(lambda x: x, [], name=str) == []


def test_io_errors_are_tried_again_twice_and_then_named(caplog):
    calls = []

    def flaky(item):
        calls.append(item)
        if len(calls) < 3:
            raise OSError("disk away")
        return item

    assert DirectRun(delay=0).map(flaky, ["a"], name=str) == ["a"]
    assert len(calls) == 3

    def broken(item):
        calls.append(item)
        raise OSError("disk gone")

    calls.clear()
    with pytest.raises(OSError, match="disk gone"):
        DirectRun(delay=0).map(broken, ["part-7"], name=lambda item: f"shapes/{item}")
    assert len(calls) == 3
    assert "shapes/part-7 failed: disk gone" in caplog.text


@pytest.mark.parametrize("error", [UnseenError("params.yaml: levels"), ZeroDivisionError()])
def test_other_errors_are_never_tried_again(error):
    calls = []

    def fails(item):
        calls.append(item)
        raise error

    with pytest.raises(type(error)) as caught:
        DirectRun(delay=0).map(fails, [1, 2], name=str)
    assert caught.value is error
    assert calls == [1]


def test_workers_work_at_the_same_time_and_results_keep_their_order():
    meeting = threading.Barrier(3)

    def fn(item):
        meeting.wait(timeout=600)  # passes only if three parts are under way at once
        return -item

    assert DirectRun().map(fn, range(6), name=str, workers=3) == [0, -1, -2, -3, -4, -5]


def test_a_failing_worker_stops_the_parts_that_have_not_begun():
    begun, error = [], UnseenError("params.yaml: levels")

    def fn(item):
        begun.append(item)
        if item == 0:
            raise error
        time.sleep(0.05)

    with pytest.raises(UnseenError) as caught:
        DirectRun(delay=0).map(fn, range(50), name=str, workers=2)
    assert caught.value is error
    assert 0 in begun and len(begun) < 50


def test_a_terminal_gets_a_bar_and_the_same_results(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert DirectRun().map(lambda x: -x, [1, 2], name=str) == [-1, -2]


def test_run_stage_passes_targets(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(stages, "STAGES", {})

    @stage("double")
    def double(run, *, model, domain):
        return {"where": f"{model}/{domain}", "values": run.map(lambda x: 2 * x, [1], name=str)}

    assert stages.STAGES == {"double": double}
    targets = {"model": "m", "domain": "d"}
    assert run_stage("double", targets) == {"where": "m/d", "values": [2]}


@pytest.mark.parametrize("name", ["inver", "no such", "os.path", "../x"])
def test_an_unknown_stage_is_one_line(name):
    with pytest.raises(UnseenError, match="unknown stage"):
        run_stage(name)
