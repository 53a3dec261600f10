"""Drives the benchmarks of TREX and of its peers in turn, and writes one line of JSON a result.

    bench.py --programs FOLDER --out FILE [--backend cuda|cpu] [--small] [--seconds S] [--list]

Kernels: both programs live at once and take turns at each case, five times. Steps and generation need the GPU's memory for
themselves: TREX, the peer, TREX again. Each part has a share of the seconds; what does not fit, or fails, becomes a line
with "error" that says so, and the rest goes on. --list writes the cases alone, with the operations and bytes of each.
"""
import argparse
import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROUNDS = 5
PEER_OPS = {"copy", "matmul", "low_rank_add", "attention_forward", "attention_backward"}
# Shares of the seconds; what a part leaves goes to the next.
SHARES = {"kernels": 0.22, "full": 0.30, "lora": 0.26, "decode": 0.22}


class Failure(Exception):
    pass


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"


def name_of(command):
    return next(Path(part).name for part in command if Path(part).name.startswith(("bench_", "peer_")))


def trex_environment():
    """The programs may need libraries from places that the peer must not see: it has its own."""
    folders = [os.environ.get(name) for name in ("TREX_LIBRARY_PATH", "LD_LIBRARY_PATH")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folder for folder in folders if folder)}


class Side:
    """A program that answers each line with a line."""

    def __init__(self, command, environment, log):
        self.log = open(log, "w+")
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, bufsize=1)
        self.name = name_of(command)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def read(self, until):
        if not self.selector.select(timeout=max(0.0, until - time.monotonic())):
            raise Failure(f"{self.name}: no answer in the time that it had")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise Failure(f"{self.name}: {last_line(self.log.read())}")
        return json.loads(line)

    def ask(self, line, until):
        self.say(line)
        return self.read(until)

    def say(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            self.log.seek(0)
            raise Failure(f"{self.name}: {last_line(self.log.read())}") from error

    def end(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.out = open(arguments.out, "w")
        self.folder = Path(arguments.out).parent
        self.peer = self.peer_python()
        self.environment = trex_environment()
        if arguments.backend == "cpu":  # both sides live at once: one thread each
            os.environ["OMP_NUM_THREADS"] = self.environment["OMP_NUM_THREADS"] = "1"

    def peer_python(self):
        """Command of a Python with PyTorch, or None."""
        if self.arguments.list:
            return None
        tried = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True)
        if tried.returncode != 0:
            self.emit({"bench": "peer", "error": f"no peer: {last_line(tried.stderr)}"})
            return None
        return [sys.executable]

    def emit(self, row):
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()

    def program(self, name, *options):
        return [str(Path(self.arguments.programs) / name), *options]

    def peer_command(self, name, *options):
        return [*self.peer, str(HERE / name), *options, "--device", self.arguments.backend]

    def cases(self, command):
        output = subprocess.run([*command, "--list"], capture_output=True, text=True, env=self.environment)
        if output.returncode != 0:
            raise Failure(last_line(output.stderr))
        return [json.loads(line) for line in output.stdout.splitlines()]

    def run_once(self, command, environment, until):
        """Lines of a program that runs to its end."""
        left = until - time.monotonic()
        name = name_of(command)
        if left < 5.0:
            raise Failure(f"{name}: no time left for it")
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=left)
        except subprocess.TimeoutExpired as late:
            text = late.stdout or ""  # what was measured until then counts
            text = text.decode() if isinstance(text, bytes) else text
            rows = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
            if rows:
                return rows
            raise Failure(f"{name}: not done after {left:.0f} s") from late
        sys.stderr.write(done.stderr)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if not rows:
            raise Failure(f"{name}: {last_line(done.stderr)}")
        return rows

    # -- kernels --

    def kernels(self, until):
        small = self.arguments.small
        options = ["--model", "tiny" if small else "qwen3-1.7b", "--dtype", "bf16"]
        cases = self.cases(self.program("bench_kernels", *options))
        if self.arguments.list:
            for case in cases:
                self.emit(case)
            return
        ours = Side(self.program("bench_kernels", *options, "--backend", self.arguments.backend, "--lockstep"),
                    self.environment, self.folder / "bench_kernels.log")
        peer = Side(self.peer_command("peer_kernels.py"), None, self.folder / "peer_kernels.log") if self.peer else None
        try:
            ours.read(until)
            if peer is not None:
                peer.read(until)
            for case in cases:
                self.kernel(case, ours, peer, until)
        finally:
            for side in (ours, peer):
                if side is not None:
                    side.end()

    def kernel(self, case, ours, peer, until):
        mine, theirs = [], []
        for _ in range(ROUNDS):
            mine.append(ours.ask("again", until)["us"])
            if peer is not None and case["op"] in PEER_OPS:
                answer = peer.ask(json.dumps(case), until)["us"]
                theirs += [answer] if answer is not None else []
        ours.say("next")
        row = {**case, "us": statistics.median(mine), "us_all": mine}
        if theirs:
            row.update(peer_us=statistics.median(theirs), peer_us_all=theirs)
        self.emit(row)

    # -- steps and generation --

    def in_turn(self, command, peer, until):
        """TREX, the peer, TREX again; each of their lines as a row, ours of both runs under one case."""
        case = self.cases(command)[0]
        if self.arguments.list:
            self.emit(case)
            return
        command = [*command, "--backend", self.arguments.backend]
        first = self.run_once(command, self.environment, until)[0]
        self.emit({**first, "run": 1})
        if self.peer is not None:
            name, *options = peer
            reserve = 15.0  # for the second run of ours
            left = until - time.monotonic() - reserve
            try:
                for row in self.run_once(self.peer_command(name, json.dumps(case), *options, "--limit-s", f"{left:.0f}"),
                                         None, until - reserve):
                    self.emit(row)
            except Failure as failure:
                self.fail(case["bench"], failure, method=case["method"], side="peer")
        self.emit({**self.run_once(command, self.environment, until)[0], "run": 2})

    def train(self, method, until):
        small = self.arguments.small
        counts = ["--steps", "2" if small else "5", "--each", "1" if small else "2"]
        command = self.program("bench_train_step", "--shape", "qwen3-tiny" if small else "qwen3-1.7b", "--method", method,
                               "--precision", "bf16", *counts)
        self.in_turn(command, ["peer_train_step.py" if method == "full" else "peer_lora.py", *counts], until)

    def decode(self, until):
        small = self.arguments.small
        for slots, share in ((1, 0.5), (64, 1.0)):
            command = self.program("bench_decode", "--shape", "qwen3-tiny" if small else "qwen3-1.7b", "--precision", "bf16",
                                   "--slots", str(slots), "--new", "8" if small else "128",
                                   "--repeats", "2" if small else "5")
            part = time.monotonic() + share * (until - time.monotonic())
            self.part("decode", lambda: self.in_turn(command, ["peer_decode.py", "--steps", "2" if small else "5"], part),
                      method=f"greedy_{slots}")

    # -- all of it --

    def fail(self, bench, failure, **more):
        print(f"{bench}: {failure}", file=sys.stderr)
        self.emit({"bench": bench, **more, "error": str(failure)})

    def part(self, bench, run, **more):
        try:
            run()
        except (Failure, OSError, ValueError) as failure:
            self.fail(bench, failure, **more)

    def all(self):
        begin = time.monotonic()
        share = 0.0
        for name, part in SHARES.items():
            share += part
            until = begin + share * self.arguments.seconds
            began = time.monotonic()
            if name in ("full", "lora"):
                self.part("train_step", lambda: self.train(name, until), method=name)
            else:
                self.part(name, lambda: getattr(self, name)(until))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--backend", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--list", action="store_true")
    Bench(parser.parse_args()).all()
