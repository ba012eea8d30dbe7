"""Worker processes: started, spoken to with time limits, stopped (SIGSTOP) while others run."""

import json
import os
import selectors
import signal
import subprocess
import time


class Failure(Exception):
    """A worker that is of no further use: `status` is one word for the table."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


def thread_environment(cpus, openmp=True):
    """Threads as many as `cpus`; pinned one by one where the program computes with OpenMP. Others
    pin theirs themselves: OpenMP would bind the first thread, and all it starts, to one CPU."""
    env = dict(os.environ, OMP_NUM_THREADS=str(len(cpus)), MKL_NUM_THREADS=str(len(cpus)))
    env.pop("OMP_PLACES", None)
    env.pop("OMP_PROC_BIND", None)
    if openmp:
        env["OMP_PLACES"] = ",".join("{%d}" % cpu for cpu in cpus)
        env["OMP_PROC_BIND"] = "true"
    return env


def output(command, cpus, openmp=True):
    """What a program prints that runs on `cpus` alone, as text."""
    return subprocess.run(command, env=thread_environment(cpus, openmp), check=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, cpus),
                          stdout=subprocess.PIPE).stdout


class Worker:
    """A process that speaks the protocol of worker.py. Its process group is its own, so that it is
    stopped, continued and ended with all it started."""

    def __init__(self, command, cpus, env, log):
        self.buffer = b""
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env,
            start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def answer(self, seconds):
        """The value of the next line; a line `failed` raises."""
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            if not self.selector.select(max(0, end - time.monotonic())):
                raise Failure("timeout", f"no answer in {seconds:.0f} s")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise Failure("failed", f"ended with status {self.process.wait()}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        word, value = line.decode().split(" ", 1)
        value = json.loads(value)
        if word == "failed":
            raise Failure(value["status"], value["why"])
        return value

    def run(self, n, seconds):
        """{"ms": times of n runs, ...}; the worker is running only meanwhile."""
        self.resume()
        try:
            self.process.stdin.write(b"run %d\n" % n)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        said = self.answer(seconds)
        self.pause()
        return said

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def close(self):
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.selector.close()
