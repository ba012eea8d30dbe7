"""The parts of the benchmark, without a benchmark: python3 tests/bench/test_bench.py [CNXC]

With the compiler at hand, also one short run of tasks that need no peers; no times are asserted."""

import array
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import types
import unittest
import xml.dom.minidom
import zlib

import artifact
import measure
import pictures
import report
import roofline
import tables
import tasks
import worker
from process import Failure, Worker

HERE = os.path.dirname(os.path.abspath(__file__))
CNXC = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else None


def times(ms, median=None, **more):
    return {"status": "ok", "min_ms": ms, "median_ms": median or ms, "version": "1.0", **more}


def record(task, threads, peers, model="convnextv2_atto", **more):
    return {"task": task, "model": model, "batch": 1, "threads": threads, "gflop": 1.0,
            "bytes": 4e6, "peak_gflops": 200.0 * threads, "fma_ratio": float(threads),
            "date": "2026-01-0%d" % threads, "commit": "c", "peers": peers, **more}


def results():
    """Two configurations of inference, one of most other tasks."""
    ours = {"gflop": 1.0, "peak_rss_mb": 50.0}
    steps = {"cnxc": times(10.0, **ours), "torch-eager": times(30.0, gflop=2.0, peak_rss_mb=200.0),
             "torch-compile": times(25.0, gflop=2.0, peak_rss_mb=150.0)}
    figures = {"infer_seconds": 1.5, "all_seconds": 5.25, "infer_bytes": 400000,
               "all_bytes": 900000, "start_ms": 21.0, "packed_start_ms": 12.0,
               "target_seconds": {"x86-64": 0.5, "riscv64-v": 1.75}, "fat_bytes": 1200000}
    profile = {"kernels": [{"kernel": "adamw", "ms": 2.0}, {"kernel": "gemm {}", "ms": 9.0}]}
    return {"machine": {"cpu": "A & B", "family": "1 2", "features": ["fma"], "cores": 2,
                        "virtual": True, "caches": {"L1d": "32K"}, "memory_gb": 1.0,
                        "kernel": "6", "load_at_start": 0.0, "commit": "c", "date": "d"},
            "cnxc": "0", "commands": ["run"], "bandwidth_gbs": {"1": 10.0, "2": 20.0},
            "results": [
                record("infer", 1, {"cnxc": times(10.0), "openvino": times(20.0, 30.0)}),
                record("infer", 2, {"cnxc": times(6.25),
                                    "openvino": {"status": "timeout", "why": "late"}}),
                record("avx2", 1, {"cnxc": times(20.0)}),
                record("train", 1, steps, parameters=1e6, profile=profile),
                record("train-bf16", 1, {"cnxc": times(8.0, **ours),
                                         "torch-eager": times(20.0, peak_rss_mb=90.0)}),
                record("fcmae", 1, {**steps, "cnxc-dense": times(16.0, gflop=2.0)}),
                record("kernels", 1, {"cnxc": times(10.0), "onednn": times(8.0),
                                      "blis": {"status": "cannot", "why": "no"}}, "gemm 1 2 3"),
                record("int8", 1, {"cnxc": times(4.0, relative_error=0.012),
                                   "onnxruntime": times(9.0, relative_error=0.05)}),
                record("build", 1, {}, figures=figures, gflop=None, peak_gflops=None)]}


def table(task, threads=1):
    data = results()
    chosen = [r for r in data["results"] if (r["task"], r["threads"]) == (task, threads)]
    return tables.TABLES[task](data, chosen, 1, threads)


class Reports(unittest.TestCase):
    def test_figures(self):
        one, two, _avx2, train, narrow, fcmae, *_ = results()["results"]
        self.assertAlmostEqual(tables.percent_of_peak(one), 50.0)
        self.assertAlmostEqual(tables.percent_of_peak(fcmae, "cnxc-dense"), 62.5)
        self.assertAlmostEqual(tables.scaling(results(), two), 0.8)
        self.assertIsNone(tables.scaling(results(), one))
        self.assertEqual(tables.advantage(one), ("2.00x", "3.00x"))
        self.assertEqual(tables.advantage(two), ("–", "–"))
        self.assertEqual(tables.packed_to_dense(fcmae), (0.625, 0.5))
        self.assertEqual(tables.packed_to_dense(one), (None, None))
        self.assertEqual(tables.memory(fcmae), ["50", "150 (3.0x)"])
        self.assertEqual(tables.best_peer(fcmae)[0], "torch-compile")
        self.assertAlmostEqual(tables.over_float32(results(), narrow, "train"), 1.25)
        self.assertIsNone(tables.over_float32(results(), narrow, "kernels"))
        self.assertAlmostEqual(tables.adamw_gbs(train), 14.0)
        self.assertIsNone(tables.adamw_gbs(one))

    def test_markdown_names_what_was_not_measured(self):
        text = report.markdown(results())
        self.assertIn("| atto | 1.00 | 10.0 | 50 | 20.0 (2.00x) | 2.00x | 3.00x |", text)
        self.assertIn("OpenVINO, timeout: late (infer atto b1 t2)", text)
        self.assertIn("| atto | 1 | 10.0 | 50 | 16.0 | 62 | 0.62 | 0.50 | 30.0 (3.00x)", text)
        self.assertIn("| atto | 1.00 | 4.00 | 2.50x | 9.00 (2.25x) | 2.25x | 2.25x | 1.2 % | 5.0 % |", text)
        self.assertIn("| gemm 1 2 3 | 10000.0 | 50 | 62 | cannot | 0.80x |", text)
        self.assertIn("| atto | 1.50 | 1.75 (riscv64-v) | 5.25 | 400 | 1200 | 900 | 21.0 |", text)
        self.assertIn("by code for AVX2, batch 1, 1 thread\n\n| model | GFLOP | cnxc | % of FMA peak |\n",
                      text)
        self.assertIn("| atto | 1 | 8.00 | 1.25x | 20.0 (2.50x) |", text)
        self.assertIn("| 150 (3.0x) | 14 |", text)
        self.assertIn("2026-01-01, commit c; 2026-01-02, commit c", text)

    def test_rows_have_the_columns_of_the_header(self):
        for _heading, header, rows in tables.all_tables(results()):
            self.assertEqual({len(header)}, {len(r) for r in rows})
        self.assertEqual(len(list(tables.all_tables(results()))), 9)

    def test_tables_survive_a_failure_of_ours(self):
        data = results()
        for r in data["results"]:
            r["peers"] = {p: {"status": "failed", "why": "w"} for p in r["peers"]}
            r["gflop"] = None if r["task"] in ("train", "train-bf16", "fcmae") else r["gflop"]
        self.assertIn("failed: w", report.markdown(data))
        self.assertIn("failed", report.markdown_short(data) + report.text(data))
        self.assertIsNone(roofline.plot(data))

    def test_insertion_is_repeatable_and_needs_markers(self):
        page = "a\n<!-- bench:begin short -->\nold\n<!-- bench:end -->\nb\n"
        once = report.insert(page, results())
        self.assertNotIn("old", once)
        self.assertIn("| FCMAE step, atto, batch 1 | 10.0, 25.0 (2.50x) torch.compile | – |", once)
        self.assertEqual(report.insert(once, results()), once)
        with self.assertRaises(ValueError):
            report.insert("nothing", results())

    def test_plot_is_xml_with_a_point_a_time(self):
        svg = xml.dom.minidom.parseString(roofline.plot(results()))
        self.assertEqual(len(svg.getElementsByTagName("title")), 3 + 1 + 3 + 4 + 2)
        self.assertEqual(len(svg.getElementsByTagName("svg")), 1)


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
            print('ms {"ms": %s}' % ([1.5] * n), flush=True)
            input()""")
        self.assertEqual(w.answer(60), {"form": "x"})
        w.pause()
        self.assertEqual(w.run(3, 60), {"ms": [1.5, 1.5, 1.5]})

    def failure(self, program, seconds=60):
        with self.assertRaises(Failure) as caught:
            self.worker(program).answer(seconds)
        return caught.exception.status

    def test_failures(self):
        self.assertEqual(self.failure("import time; time.sleep(60)", 0.2), "timeout")
        self.assertEqual(self.failure("raise SystemExit(3)"), "failed")
        self.assertEqual(self.failure(
            """print('failed {"status": "not installed", "why": "x"}', flush=True)"""),
            "not installed")

    def test_a_peer_that_is_not_there(self):
        c = measure.Configuration(types.SimpleNamespace(
            start=lambda *_: (["/nonexistent/kernel"], ""), needs=lambda _: None,
            environment=lambda *_: {}), 1, [0], types.SimpleNamespace(timeout=1), None)
        c.prepare("blis", set())
        self.assertEqual(c.results["blis"]["status"], "not installed")

    def test_a_worker_ends_whatever_stops_its_check(self):
        program = "print('ready {}', flush=True); input()"
        c = measure.Configuration(types.SimpleNamespace(
            start=lambda *_: ([sys.executable, "-c", program], ""), needs=lambda _: None,
            environment=lambda *_: dict(os.environ)), 1, sorted(os.sched_getaffinity(0))[:1],
            types.SimpleNamespace(timeout=60), None)

        def interrupted(*_):
            raise KeyboardInterrupt
        c.check = interrupted
        with self.assertRaises(KeyboardInterrupt):
            c.prepare("cnxc", set())
        worker, = c.workers.values()
        c.close()
        self.assertIsNotNone(worker.process.returncode)

    def test_answers_carry_times_and_memory(self):
        calls = []
        answer = worker.Ready({}, lambda: calls.append(1)).answer(3)
        self.assertEqual((len(answer["ms"]), len(calls)), (3, 3))
        worker.forget_peak()
        self.assertGreater(worker.peak_rss_mb(), 1)


class Repetitions(unittest.TestCase):
    def measured(self, ratios):
        """A configuration of one peer that takes 2 ms a run, with these answers of the probe."""
        c = measure.Configuration.__new__(measure.Configuration)
        c.cpus, c.results = [0, 1], {"cnxc": {"status": "ok"}}
        c.workers = {"cnxc": types.SimpleNamespace(
            run=lambda n, limit: {"ms": [2.0] * n, "peak_rss_mb": 7.0})}
        c.options = types.SimpleNamespace(repeats=2, burst=0.01, min_ratio=0.95, timeout=1)
        answers = iter(ratios)
        c.measure(lambda: {"gflops": 1.0, "ratio": next(answers)})
        return c.results["cnxc"]

    def test_a_shared_core_drops_both_neighbours(self):
        r = self.measured([2.0, 1.0, 2.0, 2.0, 2.0])
        self.assertEqual((r["repetitions"], r["dropped"], r["min_ms"]), (2, 2, 2.0))
        self.assertEqual(r["peak_rss_mb"], 7.0)

    def test_no_clean_repetition(self):
        self.assertEqual(self.measured([1.0] * 7)["status"], "no clean repetition")

    def test_errors_lose_their_folders(self):
        self.assertEqual(measure.plain("no /usr/lib/x.so, 1/2 or a/b/c"), "no x.so, 1/2 or a/b/c")

    def test_difference(self):
        with tempfile.TemporaryDirectory() as folder:
            def file(name, values):
                path = os.path.join(folder, name)
                with open(path, "wb") as f:
                    array.array("f", values).tofile(f)
                return path
            a = file("a", [1, 2])
            self.assertEqual(measure.difference(a, file("b", [1, 2.5])), 0.5)
            self.assertAlmostEqual(measure.relative_error(file("r", [1.3, 2.4]), a), 0.05 ** 0.5, 5)
            self.assertEqual(measure.relative_error(file("n", [1, float("nan")]), a), float("inf"))
            self.assertEqual(measure.difference(file("n", [1, float("nan")]), a), float("inf"))
            with self.assertRaises(Failure):
                measure.difference(a, file("c", [1]))


class Pictures(unittest.TestCase):
    def test_a_picture_is_the_same_as_file_and_tensor(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "p.png")
            pictures.write_png(path, 3, 5, 7)
            with open(path, "rb") as f:
                data = f.read()
        body = zlib.decompress(data[41:-16])
        tensor, rows = pictures.tensor(3, 5, 7), list(pictures.rows(3, 5, 7))
        self.assertEqual(body, b"".join(b"\0" + r for r in rows))
        self.assertEqual(len(tensor), 3 * 5 * 7)
        value = (rows[1][3 * 2 + 1] / 255 - pictures.MEAN[1]) / pictures.DEVIATION[1]
        self.assertAlmostEqual(tensor[35 + 7 + 2], value, 5)


class Subjects(unittest.TestCase):
    def test_models_go_to_the_tasks_that_know_them(self):
        o = types.SimpleNamespace(models=["convnextv2_atto", "gemm 1 2 3"], quick=False)
        self.assertEqual(tasks.Training.chosen(o), ["convnextv2_atto"])
        self.assertEqual(tasks.Kernels.chosen(o), ["gemm 1 2 3"])
        o.models = None
        self.assertEqual(tasks.Kernels.chosen(o), tasks.SHAPES)

    def test_the_network_is_read_off_the_facts(self):
        t = tasks.Pretraining.__new__(tasks.Pretraining)
        t.programs, t.facts = {}, {
            "channels": 3, "height": 64, "width": 32, "classes": 10, "parameters": 5,
            "fcmae": {"keep": 2, "parameters": 4},
            "stages": [{"shape": "32x16x40", "blocks": 2}, {"shape": "16x8x80", "blocks": 1}]}
        c = t.config("torch-eager", 4)
        self.assertEqual((c["strides"], c["dims"], c["depths"]), ([2, 2], [40, 80], [2, 1]))
        self.assertEqual((c["parameters"], c["keep"], t.batches()), (4, 2, [128]))

    def test_flop_of_peers_is_that_of_masked_dense(self):
        t = tasks.Pretraining.__new__(tasks.Pretraining)
        t.facts = {"channels": 1, "height": 2, "width": 3, "parameters": 10}
        peers = {"cnxc": times(1, gflop=1.0), "cnxc-dense": times(1, gflop=2.0),
                 "torch-eager": times(1)}
        figures = t.figures(2, peers)
        self.assertEqual((figures["gflop"], peers["torch-eager"]["gflop"]), (1.0, 2.0))
        self.assertEqual(figures["bytes"], 4 * (80 + 12))

    def test_an_image_is_a_numpy_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = artifact.image_file({"channels": 2, "height": 3, "width": 5},
                                       os.path.join(folder, "x.npy"))
            with open(path, "rb") as f:
                data = f.read()
        self.assertEqual(len(data) - 4 * 30, 128)
        self.assertIn(b"(1, 2, 3, 5)", data)


@unittest.skipUnless(CNXC, "no compiler given")
class Runs(unittest.TestCase):
    def run_tool(self, folder, *arguments):
        return subprocess.run(
            [sys.executable, os.path.join(HERE, "run"), "--cnxc", CNXC, "--out",
             os.path.join(folder, "r.json"), *arguments], check=True, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True).stdout

    def test_mistakes_are_found_before_measuring(self):
        def refused(status, said, *arguments):
            run = subprocess.run([sys.executable, os.path.join(HERE, "run"), "--cnxc", CNXC, "--quick",
                                  *arguments], capture_output=True, text=True)
            self.assertEqual(run.returncode, status, run.stderr)
            self.assertIn(said, run.stderr)
            self.assertNotIn("Traceback", run.stderr)
        refused(2, "did you mean 'convnextv2_atto'", "--models", "convnextv2_tiny,convnextv2_ato")
        refused(2, "'gemm 1 2' is no shape", "--models", "gemm 1 2")
        refused(2, "--threads", "--threads", "1,0")
        refused(2, "--batches", "--batches=-1")
        refused(2, "--cnxc: ", "--cnxc", "/nonexistent/cnxc")
        refused(1, "run: --out /dev/null/r.json: ", "--only", "build", "--out", "/dev/null/r.json")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "r.json")
            for text in ("", "{}", "[]", '{"results":'):
                with open(path, "w") as f:
                    f.write(text)
                refused(1, path, "--only", "build", "--out", path)
                refused(1, path, "--markdown", path)
            with open(path) as f:
                self.assertEqual(f.read(), text)  # what was there stays

    def test_steps_and_builds_add_up_in_one_file(self):
        """Packed and dense, then what a compiled model costs, into the same JSON."""
        with tempfile.TemporaryDirectory() as folder:
            tiny = ["--models", "convnextv2_fashion", "--batches", "2", "--repeats", "1", "--burst",
                    "0.001", "--profile", "1", "--quick"]
            shown = self.run_tool(folder, "--only", "fcmae", "--peers", "cnxc,cnxc-dense", *tiny)
            self.assertIn("FCMAE step, 1 thread", shown)
            self.run_tool(folder, "--only", "build", *tiny)
            shown = self.run_tool(folder, "--only", "fcmae,build", "--resume", "--peers",
                                  "cnxc,cnxc-dense", *tiny)
            self.assertIn("cold start", shown)
            with open(os.path.join(folder, "r.json")) as f:
                data = json.load(f)
            self.assertTrue(os.path.exists(os.path.join(folder, "r.svg")))
        step, build = data["results"]
        packed, dense = step["peers"]["cnxc"], step["peers"]["cnxc-dense"]
        self.assertEqual((packed["status"], dense["status"]), ("ok", "ok"))
        self.assertLess(packed["gflop"], dense["gflop"])
        self.assertGreater(packed["peak_rss_mb"], 1)
        self.assertTrue(step["profile"]["kernels"])
        self.assertGreater(build["figures"]["all_bytes"], build["figures"]["infer_bytes"])
        self.assertEqual(len(data["commands"]), 2)  # the last one had nothing to do
        self.assertIn("riscv64-v", build["figures"]["target_seconds"])


if __name__ == "__main__":
    unittest.main()
