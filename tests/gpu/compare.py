"""One training run on two backends: 50 steps of a small model from the same start, f32 and bf16; losses must agree.

    compare.py --programs FOLDER [--backend cuda] [--steps 50]

Prints one line a precision and returns 1 if one is out of bounds: 1e-4 relative in f32, 1 % in bf16.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench import trex_environment

BOUNDS = {"f32": 1e-4, "bf16": 1e-2}
RUN_S = 100


def losses(arguments, backend, precision, method):
    command = [Path(arguments.programs) / "bench_train_step", "--shape", "qwen3-tiny", "--method", method, "--precision",
               precision, "--backend", backend, "--steps", str(arguments.steps - 2)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=trex_environment(), timeout=RUN_S)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{backend}, {precision}: not done after {RUN_S} s") from None
    if done.returncode != 0:
        raise SystemExit(f"{backend}, {precision}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])["losses"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", required=True)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    wrong = 0
    for method in ("full", "lora"):
        for precision, bound in BOUNDS.items():
            cpu = losses(arguments, "cpu", precision, method)
            other = losses(arguments, arguments.backend, precision, method)
            worst = max(abs(a - b) / abs(a) for a, b in zip(cpu, other))
            good = len(cpu) == len(other) and worst <= bound and cpu[-1] < cpu[0]
            wrong += not good
            print(f"{method} {precision}: {len(cpu)} losses differ by at most {worst:.1e} (allowed {bound:.0e}), "
                  f"from {cpu[0]:.3f} to {cpu[-1]:.3f}{'' if good else ': WRONG'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
