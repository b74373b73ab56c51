"""Jobs by Ray, on this machine: they share it, or have it to themselves, and end with the rows that `run_here` has."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from diffulex_edge.cli.main import main
from diffulex_edge.errors import BackendUnavailable, Interrupted
from diffulex_edge.suite import cluster, seeds
from diffulex_edge.suite.cluster import run_on_ray
from diffulex_edge.suite.jobs import Job, Results, due
from diffulex_edge.suite.probes import Step
from diffulex_edge.suite.workplace import SuiteConfig
from diffulex_edge.tests.suite_toys import Broken, Dying, Endless, Refused, Stopped, Toy, names, wait_for, workplace
from diffulex_edge.tests.tree import ROOT


def test_nothing_to_measure_needs_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(run_on_ray([], workplace(tmp_path, workers=2))) == []
    with pytest.raises(BackendUnavailable, match=r"needs ray: pip install 'diffulex-edge\[ray\]'"):
        list(run_on_ray([Toy("a")], workplace(tmp_path, workers=2)))


def test_the_command_line_asks_ray_for_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "held_out.txt").write_text("मैं कल बाज़ार गया था")
    where = ["--results", str(tmp_path / "rows"), "--suite_dir", str(tmp_path / "models")]
    assert main(["bench", "--suite", "seeds", "--workers", "1", *where]) == 2
    assert "needs documents" in capsys.readouterr().err
    assert main(["bench", "--suite", "seeds", "--workers", "1", *where, "--data", str(tmp_path / "held_out.txt")]) == 2
    assert "--workers needs ray" in capsys.readouterr().err


def test_the_jobs_of_the_seeds_can_be_sent_and_those_that_measure_speed_are_alone() -> None:
    jobs = seeds.jobs(SuiteConfig())
    assert pickle.loads(pickle.dumps(jobs)) == jobs
    assert [job for job in jobs if job.alone] == [Step(), *seeds.comparisons(SuiteConfig())]


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    """One Ray of two CPUs for all tests, as a run starts it; a run that finds it goes there."""
    with cluster._ray(2) as started:
        yield started


def measured(jobs: Sequence[Job], root: Path) -> dict[str, str]:
    """Runs them by two workers; each is handed over with its row on disk, or with why it has none."""
    place, reasons = workplace(root, workers=2), {}
    for job, why in run_on_ray(jobs, place):
        assert Results(place.config.results).path(job.name).exists() == (not why)
        reasons[job.name] = why
    return reasons


def times(root: Path) -> dict[str, tuple[float, float]]:
    rows = Results(root / "rows").read()
    return {name: (row["figures"]["began"], row["figures"]["ended"]) for name, row in rows.items()}


@pytest.mark.slow
def test_two_workers_are_at_work_at_once_and_what_needs_them_comes_after(ray: object, tmp_path: Path) -> None:
    jobs = [Toy("c", needs=("a", "b", "made before")), Toy("a", meets="b"), Toy("b", meets="a"), Toy("d", needs=("c",))]
    (tmp_path / "models" / "made before").mkdir(parents=True)
    (tmp_path / "models" / "made before" / "model").touch()
    assert measured(jobs, tmp_path) == dict.fromkeys("abcd", "")
    assert len({row["figures"]["pid"] for name, row in Results(tmp_path / "rows").read().items() if name in "ab"}) == 2


@pytest.mark.slow
def test_a_job_that_measures_speed_has_the_machine_to_itself(ray: object, tmp_path: Path) -> None:
    jobs = [Toy("x", alone=True, seconds=0.3), Toy("y", alone=True, seconds=0.3), Toy("a"), Toy("b", seconds=1.0)]
    jobs += [Toy("c", needs=("a",), seconds=0.3), Toy("d", needs=("x",), seconds=0.3)]
    assert measured(jobs, tmp_path) == dict.fromkeys("xyabcd", "")
    spans = times(tmp_path)
    for name in "xy":
        began, ended = spans.pop(name)
        assert not [other for other, (start, end) in spans.items() if start < ended and began < end], name


@pytest.mark.slow
def test_failures_are_told_left_out_and_measured_by_the_next_run_alone(ray: object, tmp_path: Path) -> None:
    jobs = [Refused("a"), Toy("b"), Toy("c", needs=("a", "b")), Toy("d", needs=("c",)), Toy("e", needs=("b",))]
    reasons = measured(jobs, tmp_path)
    assert reasons == {"a": "a makes no sense", "b": "", "c": "needs a", "d": "needs c", "e": ""}
    mended, before = [Toy("a"), *jobs[1:]], times(tmp_path)
    missing = due(mended, workplace(tmp_path))
    assert names(missing) == ["a", "c", "d"]
    assert measured(missing, tmp_path) == dict.fromkeys("acd", "")
    assert times(tmp_path).items() >= before.items()


@pytest.mark.slow
@pytest.mark.parametrize(("stops", "error"), [(Stopped, Interrupted), (Broken, ZeroDivisionError)])
def test_what_stops_a_worker_stops_the_run_and_trainings_write_their_checkpoints(
    stops: type[Toy], error: type[Exception], ray: object, tmp_path: Path
) -> None:
    jobs = [Toy("a"), Endless("b"), stops("c", needs=("a",), meets="b", seconds=0.2)]
    with pytest.raises(error) as raised:
        measured(jobs, tmp_path)
    assert str(raised.value) in ("c", "c was stopped"), "the error itself, not a page about where it was"
    assert list(times(tmp_path)) == ["a"]
    assert (tmp_path / "models" / "b" / "checkpoint").exists()


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_row(ray: object, tmp_path: Path) -> None:
    reasons = measured([Dying("a"), Toy("b"), Toy("c", needs=("a",))], tmp_path)
    assert reasons.pop("a").startswith("its worker died: ")
    assert reasons == {"b": "", "c": "needs a"}


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from diffulex_edge.errors import Interrupted
from diffulex_edge.suite.cluster import run_on_ray
from diffulex_edge.tests.suite_toys import Endless, Toy, workplace
try:
    for job, why in run_on_ray([Toy("a"), Endless("b", needs=("a",))], workplace(Path("here"), workers=1)):
        print(job.name, why, flush=True)
except Interrupted as error:
    import ray
    print(error, ray.is_initialized())
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_ray_that_was_started_and_keeps_what_was_done(tmp_path: Path) -> None:
    """From another folder, that has a package of the same name: the workers import this checkout all the same."""
    (tmp_path / "diffulex_edge").mkdir()
    (tmp_path / "diffulex_edge" / "__init__.py").write_text("raise ImportError('another checkout')")
    models = tmp_path / "here" / "models"
    command = [sys.executable, "-c", RUN, str(ROOT)]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (models / "b" / "at-work").exists() or run.poll() is not None)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=300)
    assert out == "a \nstopped; the same command goes on with what is in here/rows and here/models False\n", err
    offline = "network_util.cc"  # where there is no network, Ray says so
    assert [line for line in err.splitlines() if offline not in line] == []
    assert (models / "b" / "checkpoint").exists()
    assert list(times(tmp_path / "here")) == ["a"]
