"""The parts of the benchmark, without a benchmark: python3 tests/bench/test_bench.py"""

import os
import sys
import tempfile
import textwrap
import types
import unittest
import xml.dom.minidom

import measure
import report
import roofline
from process import Failure, Worker


def record(threads, ours, other, **more):
    peers = {"cnxc": {"status": "ok", "min_ms": ours, "median_ms": ours, "version": ""}, **other}
    return {"task": "infer", "model": "convnextv2_atto", "batch": 1, "threads": threads,
            "gflop": 1.0, "parameters": 1000000, "image_floats": 1000,
            "peak_gflops": 200.0 * threads, "fma_ratio": float(threads), "peers": peers, **more}


def results():
    slower = {"status": "ok", "min_ms": 20.0, "median_ms": 30.0, "version": "1.0"}
    return {"machine": {"cpu": "A & B", "family": "1 2", "features": ["fma"], "cores": 2,
                        "virtual": True, "caches": {"L1d": "32K"}, "memory_gb": 1.0,
                        "kernel": "6", "load_at_start": 0.0, "commit": "c", "date": "d"},
            "cnxc": "0", "command": "run", "bandwidth_gbs": {"1": 10.0, "2": 20.0},
            "results": [record(1, 10.0, {"openvino": slower}),
                        record(2, 6.25, {"openvino": {"status": "timeout", "why": "late"}})]}


class Reports(unittest.TestCase):
    def test_figures(self):
        one, two = results()["results"]
        self.assertAlmostEqual(report.percent_of_peak(one), 50.0)
        self.assertAlmostEqual(report.scaling(results(), two), 0.8)
        self.assertIsNone(report.scaling(results(), one))
        self.assertEqual(report.advantage(one), ("2.00x", "3.00x"))
        self.assertEqual(report.advantage(two), ("–", "–"))

    def test_markdown_names_what_was_not_measured(self):
        text = report.markdown(results())
        self.assertIn("| atto | 1.00 | 10.0 | 50 | 20.0 (2.00x) | 2.00x | 3.00x |", text)
        self.assertIn("OpenVINO, timeout: late (atto b1 t2)", text)

    def test_rows_have_the_columns_of_the_header(self):
        for threads in (1, 2):
            header, rows = report.table(results(), 1, threads)
            self.assertEqual({len(header)}, {len(r) for r in rows})

    def test_insertion_is_repeatable_and_needs_markers(self):
        page = "a\n<!-- bench:begin short -->\nold\n<!-- bench:end -->\nb\n"
        once = report.insert(page, results())
        self.assertNotIn("old", once)
        self.assertEqual(report.insert(once, results()), once)
        with self.assertRaises(ValueError):
            report.insert("nothing", results())

    def test_plot_is_xml(self):
        svg = xml.dom.minidom.parseString(roofline.plot(results()))
        self.assertEqual(len(svg.getElementsByTagName("title")), 3)


class Workers(unittest.TestCase):
    def worker(self, program):
        w = Worker([sys.executable, "-c", textwrap.dedent(program)],
                   sorted(os.sched_getaffinity(0))[:1], dict(os.environ), sys.stderr)
        self.addCleanup(w.close)
        return w

    def test_runs(self):
        w = self.worker("""
            print('ready {"form": "x"}', flush=True)
            n = int(input().split()[1])
            print('ms', [1.5] * n, flush=True)
            input()""")
        self.assertEqual(w.answer(20), {"form": "x"})
        w.pause()
        self.assertEqual(w.run(3, 20), [1.5, 1.5, 1.5])

    def failure(self, program, seconds=20):
        with self.assertRaises(Failure) as caught:
            self.worker(program).answer(seconds)
        return caught.exception.status

    def test_failures(self):
        self.assertEqual(self.failure("import time; time.sleep(60)", 0.2), "timeout")
        self.assertEqual(self.failure("raise SystemExit(3)"), "failed")
        self.assertEqual(self.failure(
            """print('failed {"status": "not installed", "why": "x"}', flush=True)"""),
            "not installed")


class Repetitions(unittest.TestCase):
    def measured(self, ratios):
        """A configuration of one peer that takes 2 ms a run, with these answers of the probe."""
        c = measure.Configuration.__new__(measure.Configuration)
        c.cpus, c.results = [0, 1], {"cnxc": {"status": "ok"}}
        c.workers = {"cnxc": types.SimpleNamespace(run=lambda n, limit: [2.0] * n)}
        c.options = types.SimpleNamespace(repeats=2, burst=0.01, min_ratio=0.95, timeout=1)
        answers = iter(ratios)
        c.measure(lambda: {"gflops": 1.0, "ratio": next(answers)})
        return c.results["cnxc"]

    def test_a_shared_core_drops_both_neighbours(self):
        r = self.measured([2.0, 1.0, 2.0, 2.0, 2.0])
        self.assertEqual((r["repetitions"], r["dropped"], r["min_ms"]), (2, 2, 2.0))

    def test_no_clean_repetition(self):
        self.assertEqual(self.measured([1.0] * 7)["status"], "no clean repetition")

    def test_errors_lose_their_folders(self):
        self.assertEqual(measure.plain("no /usr/lib/x.so, 1/2 or a/b/c"), "no x.so, 1/2 or a/b/c")

    def test_difference(self):
        with tempfile.TemporaryDirectory() as folder:
            def file(name, values):
                path = os.path.join(folder, name)
                with open(path, "wb") as f:
                    measure.array.array("f", values).tofile(f)
                return path
            a = file("a", [1, 2])
            self.assertEqual(measure.difference(a, file("b", [1, 2.5])), 0.5)
            self.assertEqual(measure.difference(file("n", [1, float("nan")]), a), float("inf"))
            with self.assertRaises(Failure):
                measure.difference(a, file("c", [1]))


if __name__ == "__main__":
    unittest.main()
