"""Percentiles, warm-up, alternating blocks and the plot, with clocks and calls whose answers are known."""

import numpy as np
import pytest
from PIL import Image

from stages.benchmark.contestants import Contestant, Policy
from stages.benchmark.plot import by_contestant, label, plot
from stages.benchmark.run import as_line, summarise
from stages.benchmark.timing import Row, is_stable, percentile, report, run_block, time_batch, warm_up
from stages.progress import progress_bar


def make_row(times, runtime="onnxruntime", provider="CPUExecutionProvider", batch=4):
    row = Row(Contestant(runtime, provider, "cpu", lambda batch: lambda: None), batch, lambda: None, first=0.5)
    row.times, row.rss = times, 300 << 20
    return row


@pytest.mark.parametrize(
    ("count", "q", "expected"),
    [
        (100, 50, 50),
        (100, 95, 95),
        (100, 99, 99),
        (20, 95, 19),
        (20, 50, 10),
        (1000, 99, 990),
        (30, 95, 29),
        (3, 50, 2),
    ],
)
def test_percentiles_are_runs_that_were_seen(count, q, expected):
    times = np.random.default_rng(0).permutation(np.arange(1, count + 1)).astype(float).tolist()
    assert percentile(times, q) == expected


@pytest.mark.parametrize(("count", "q"), [(99, 99), (19, 95), (1, 50), (0, 50)])
def test_too_few_runs_carry_no_percentile(count, q):
    assert percentile([1.0] * count, q) is None


def test_a_row_reports_milliseconds_and_pictures_per_second():
    found = report(make_row([0.010] * 60 + [0.020] * 40))
    assert found["runs"] == 100
    assert found["first_run_ms"] == 500
    assert (found["p50_ms"], found["p95_ms"], found["p99_ms"], found["min_ms"]) == (10, 20, 20, 10)
    assert found["pictures_per_second"] == pytest.approx(4 * 100 / 1.4, abs=1e-3)
    assert found["contention"] == 1
    assert found["rss_mb"] == 300


def test_contention_shows_in_a_row_and_its_line():
    found = report(make_row([0.010] + [0.020] * 29))
    assert found["contention"] == 2
    assert found["p99_ms"] is None
    assert "(contended)" in as_line(found)
    assert "(contended)" not in as_line(report(make_row([0.02] * 30)))


class Clock:
    """A clock that every call moves by the next of some durations; the last one repeats."""

    def __init__(self, durations):
        self.now, self.durations, self.calls = 0.0, durations, 0

    def __call__(self):
        return self.now

    def run(self):
        self.now += self.durations[min(self.calls, len(self.durations) - 1)]
        self.calls += 1


def test_warm_up_goes_on_until_runs_agree():
    clock = Clock([0.9, 0.1, 0.08, 0.06, 0.05, 0.04, 0.02, 0.01])
    first, expected = warm_up(clock.run, clock)
    assert first == pytest.approx(0.9)
    assert expected == pytest.approx(0.01)
    assert 12 <= clock.calls <= 20


def test_warm_up_of_a_slow_model_ends():
    clock = Clock([30.0])
    assert warm_up(clock.run, clock) == (pytest.approx(30), pytest.approx(30))
    assert clock.calls == 2


def test_stable_means_two_windows_within_a_tenth():
    assert is_stable([1.0] * 5 + [1.09] * 5)
    assert not is_stable([1.0] * 5 + [1.2] * 5)
    assert not is_stable([1.0] * 9)


def test_blocks_alternate_between_runtimes_and_reach_runs_and_seconds():
    order: list[str] = []

    def contestant(name):
        return Contestant(name, "p", "cpu", lambda batch: lambda: order.append(name))

    with progress_bar("timing", 60, "runs") as bar:
        rows = time_batch([contestant("onnxruntime"), contestant("torch")], 2, 0.001, 30, bar)
        assert bar.n == sum(row["runs"] for row in rows)
    assert [row["runtime"] for row in rows] == ["onnxruntime", "torch"]
    assert all(row["runs"] >= 30 for row in rows)
    assert all(row["batch"] == 2 for row in rows)
    assert all(row["rss_mb"] > 10 for row in rows)


def test_slow_calls_are_timed_in_short_blocks():
    row = make_row([])
    row.expected = 0.09
    assert run_block(row) == 2
    row.expected = 5.0
    assert run_block(row) == 1
    assert len(row.times) == 3


def test_the_summary_is_of_onnxruntime_only():
    rows = [
        {
            "runtime": "onnxruntime",
            "provider": "A",
            "form": "model",
            "batch": 1,
            "p50_ms": 3.0,
            "pictures_per_second": 300.0,
        },
        {
            "runtime": "onnxruntime",
            "provider": "B",
            "form": "model",
            "batch": 1,
            "p50_ms": 5.0,
            "pictures_per_second": 200.0,
        },
        {
            "runtime": "onnxruntime",
            "provider": "B",
            "form": "model",
            "batch": 8,
            "p50_ms": 9.0,
            "pictures_per_second": 800.0,
        },
        {
            "runtime": "torch",
            "provider": "eager",
            "form": "model",
            "batch": 8,
            "p50_ms": 1.0,
            "pictures_per_second": 9000.0,
        },
    ]
    rows.append({**rows[0], "form": "int8", "p50_ms": 1.0, "pictures_per_second": 9999.0})
    expected = {"p50_ms_batch1": 5.0, "pictures_per_second_best": 800.0, "best_batch": 8, "provider": "B"}
    assert summarise(rows) == expected
    assert summarise(rows[2:4])["p50_ms_batch1"] is None
    assert summarise(rows, "int8")["pictures_per_second_best"] == 9999.0


def test_threads_and_waiting_are_the_same_for_both_runtimes(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert Policy.of_environment(3) == Policy(3, spinning=False)
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert Policy.of_environment(0).spinning
    assert Policy.of_environment(0).threads >= 1


def test_the_plot_is_a_picture_with_all_runtimes(tmp_path):
    rows = [report(make_row([0.001 * b] * 30, *kind, batch=b)) for b in (16, 1, 4) for kind in KINDS]
    series = dict(by_contestant(rows))
    assert list(series) == ["ONNX Runtime, CPU", "torch, eager, CPU"]
    assert [row["batch"] for row in series["torch, eager, CPU"]] == [1, 4, 16]
    assert label("onnxruntime", "CUDAExecutionProvider", "cuda", "model") == "ONNX Runtime, CUDA"
    assert label("onnxruntime", "CPUExecutionProvider", "cpu", "int8") == "ONNX Runtime, CPU, int8"
    plot(rows, "a model", tmp_path / "latency.png")
    image = Image.open(tmp_path / "latency.png").convert("RGB")
    assert image.width > 1000
    colours = set(map(tuple, np.asarray(image).reshape(-1, 3).tolist()))
    assert {(0x1F, 0x77, 0xB4), (0xD9, 0x5F, 0x02)} <= colours


KINDS = (("onnxruntime", "CPUExecutionProvider"), ("torch", "eager"))
