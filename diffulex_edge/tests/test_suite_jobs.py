"""The rows of a suite: what is measured, what is kept, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffulex_edge.errors import ArtefactError, Interrupted, UsageError
from diffulex_edge.suite.jobs import Results, due, run_here, wanted
from diffulex_edge.tests.suite_toys import Broken, Refused, Stopped, Toy, names, workplace

SUITE = [Toy("a"), Toy("b"), Toy("quality-a", needs=("a",)), Toy("both", needs=("a", "b"))]


def test_a_row_says_what_was_measured_how_and_where(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    assert list(run_here(SUITE[:1], place)) == [(SUITE[0], "")]
    row = Results(place.config.results).read()["a"]
    assert row["settings"] == {"size": 1, "sides": ["a", "b"]}
    assert row["figures"]["ended"] >= row["figures"]["began"]
    assert row["environment"]["torch"]
    assert row["name"] == "a"


def test_a_row_is_not_taken_for_one_of_other_settings(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    list(run_here(SUITE, place))
    results = Results(place.config.results)
    assert results.has(Toy("a"))
    assert not results.has(Toy("c"))
    with pytest.raises(UsageError, match=r"a\.json was measured with other settings"):
        results.has(Toy("a", size=2))


def test_a_row_that_was_changed_is_refused_by_name(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    list(run_here(SUITE, place))
    results = Results(place.config.results)
    path = results.path("both")
    path.write_text(path.read_text().replace('"seconds": 0', '"seconds": 1'))
    for read in (results.read, lambda: results.has(SUITE[3])):
        with pytest.raises(ArtefactError, match=r"both\.json"):
            read()


def test_wanted_rows_bring_the_models_that_they_need(tmp_path: Path) -> None:
    assert names(wanted(SUITE, ())) == ["a", "b", "quality-a", "both"]
    assert names(wanted(SUITE, ("quality",))) == ["a", "quality-a"]
    assert names(wanted(SUITE, ("both",))) == ["a", "b", "both"]
    assert names(wanted(SUITE, ("b",))) == ["a", "b", "both"]
    with pytest.raises(UsageError, match="no row's name begins with 'c'; they are a, b, quality-a, both"):
        wanted(SUITE, ("a", "c"))


def test_a_model_that_is_gone_is_trained_again_only_where_a_missing_row_needs_it(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    list(run_here(SUITE, place))
    assert due(SUITE, place) == []
    for name in ("a", "b"):
        (place.folder(name) / "model").unlink()
    assert due(SUITE, place) == []
    Results(place.config.results).path("quality-a").unlink()
    assert names(due(SUITE, place)) == ["a", "quality-a"]
    (place.folder("a") / "model").touch()
    assert names(due(SUITE, place)) == ["quality-a"]


def test_what_needs_a_failed_job_is_left_out_and_the_rest_is_measured(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    suite = [Refused("a"), Toy("b"), Toy("c", needs=("a", "b")), Toy("d", needs=("c",)), Toy("e", needs=("b",))]
    reasons = {job.name: why for job, why in run_here(suite, place)}
    assert reasons == {"a": "a makes no sense", "b": "", "c": "needs a", "d": "needs c", "e": ""}
    assert set(Results(place.config.results).read()) == {"b", "e"}


@pytest.mark.parametrize(("stops", "error"), [(Stopped, Interrupted), (Broken, ZeroDivisionError)])
def test_what_stops_the_run_costs_no_row_that_was_measured(
    stops: type[Toy], error: type[Exception], tmp_path: Path
) -> None:
    place, done = workplace(tmp_path), list[str]()
    with pytest.raises(error, match="b"):
        done.extend(job.name for job, _ in run_here([Toy("a"), stops("b"), Toy("c")], place))
    assert done == ["a"]
    suite = [Toy("a"), Toy("b"), Toy("c")]
    before = Results(place.config.results).path("a").read_bytes()
    assert names(due(suite, place)) == ["b", "c"]
    assert [why for _, why in run_here(due(suite, place), place)] == ["", ""]
    assert due(suite, place) == []
    assert Results(place.config.results).path("a").read_bytes() == before
