"""The small figures: calibration, repetition, bootstrap, energy, environment; each against a value known beforehand."""

import math
import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from diffulex_edge.bench import calibration, repetition
from diffulex_edge.bench.energy import energy_source
from diffulex_edge.bench.environment import environment
from diffulex_edge.bench.statistics import paired_bootstrap
from diffulex_edge.machine import PeakMemory, cpu_model


def test_ece_is_zero_for_the_calibrated_and_the_gap_for_the_rest():
    confidence = np.repeat([0.25, 0.75], 400)
    correct = np.tile([1, 0, 0, 0], 100), np.tile([1, 1, 1, 0], 100)
    assert calibration.ece(confidence, np.concatenate(correct).astype(float)) == pytest.approx(0)
    assert calibration.ece(np.ones(10), np.zeros(10)) == pytest.approx(1)
    assert calibration.ece(np.full(10, 0.9), np.repeat([1.0, 0.0], 5)) == pytest.approx(0.4)


def test_aurc_prefers_the_model_that_is_sure_where_it_is_right():
    confidence, right_first = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 0.0, 0.0])
    assert calibration.aurc(confidence, right_first) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert calibration.aurc(confidence, right_first[::-1].copy()) == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


def test_aurc_of_equal_confidences_does_not_depend_on_their_order():
    confidence = np.array([0.9, 0.5, 0.5, 0.5])
    figures = {
        round(calibration.aurc(confidence, np.array([1.0, *order])), 12) for order in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    }
    assert len(figures) == 1


def test_guesses_note_the_probability_of_the_best_token_and_whether_it_was_right():
    guesses = calibration.Guesses()
    guesses(torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log(), torch.tensor([0, 0]), torch.tensor([0.5, 1.0]))
    confidence, correct, noise = guesses.arrays()
    np.testing.assert_allclose(confidence, [0.9, 0.7], rtol=1e-6)
    assert correct.tolist() == [1, 0]
    assert noise.tolist() == [0.5, 1.0]


def test_a_stuck_text_has_no_entropy_and_repeats_and_a_varied_one_does_not():
    stuck, varied = [7] * 13, list(range(13))
    assert repetition.entropy([stuck]) == 0
    assert repetition.entropy([varied]) == pytest.approx(math.log(13))
    assert repetition.rep([stuck]) == pytest.approx(9 / 10)
    assert repetition.rep([varied]) == 0
    assert repetition.distinct([stuck]) == pytest.approx(1 / 12)
    assert repetition.distinct([varied]) == 1


def test_rep_counts_within_a_text_and_distinct_over_all_texts():
    texts = [list(range(8)), list(range(8))]
    assert repetition.rep(texts) == 0
    assert repetition.distinct(texts) == pytest.approx(0.5)
    assert math.isnan(repetition.rep([[1, 2]]))
    assert repetition.entropy([[], [1, 2]]) == pytest.approx(math.log(2) / 2)


def test_paired_bootstrap_sees_through_a_drift_that_slows_both():
    rng = np.random.default_rng(0)
    drift = np.linspace(1, 4, 40)
    a, b = 100 / drift * rng.normal(1, 0.01, 40), 50 / drift * rng.normal(1, 0.01, 40)
    interval = paired_bootstrap(a, b)
    assert interval.low < 2 < interval.high
    assert interval.high - interval.low < 0.25  # unpaired it would be wider than 1
    same = paired_bootstrap(a, a)
    assert (same.ratio, same.low, same.high) == (1, 1, 1)


def zone(root: Path, folder: str, name: str, energy: int, most: int = 1000_000) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", most)):
        (path / file).write_text(f"{value}\n")
    return path


def test_energy_sums_packages_and_memory_once_and_follows_a_wrap(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    memory = zone(tmp_path, "intel-rapl:0/intel-rapl:0:2", "dram", 100)
    core = zone(tmp_path, "intel-rapl:0/intel-rapl:0:0", "core", 0)
    psys = zone(tmp_path, "intel-rapl:1", "psys", 0)
    mmio = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    (tmp_path / "intel-rapl:0:2").symlink_to(memory)  # the kernel lists a part twice
    source = energy_source(tmp_path)
    assert source.name == "rapl dram+package-0"
    for counted in (core, psys, mmio):
        (counted / "energy_uj").write_text("500000")
    (package / "energy_uj").write_text("400000")  # wrapped at a million: 500,001 microjoules later
    (memory / "energy_uj").write_text("300")
    assert source.lap() == pytest.approx(0.500201)
    assert source.lap() == 0


def test_no_counter_is_no_source_and_says_why(tmp_path):
    source = energy_source(tmp_path)
    assert source.lap() is None
    assert source.name.startswith("none: no package or dram counter")
    broken = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (broken / "energy_uj").write_text("not a number")
    assert energy_source(tmp_path).name.startswith("none: the counters")


def test_peak_memory_is_of_the_stretch_and_sees_what_was_held():
    memory = PeakMemory()
    if memory.scope != "run":
        pytest.skip("this kernel does not reset the high-water mark")
    before = memory.read()
    page = b"x" * mmap.PAGESIZE
    with mmap.mmap(-1, 50_000 * len(page)) as held:  # and by pages: the heap keeps what a large temporary used
        for _ in range(50_000):
            held.write(page)
    assert memory.read() - before > 150_000_000
    memory.reset()
    assert memory.read() - before < 50_000_000


def test_without_proc_the_lifetime_peak_is_used_and_named(tmp_path):
    memory = PeakMemory(tmp_path)
    assert memory.scope == "process"
    assert memory.read() > 10_000_000
    assert cpu_model(tmp_path)


def test_environment_names_what_a_reader_needs():
    found = environment(torch.bfloat16)
    assert found["number_type"] == "bfloat16"
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__
    assert found["cpu"]
