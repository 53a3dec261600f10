"""What the peers share: the device, the clock, and one line of JSON a result."""
import argparse
import json
import statistics
import sys
import time

import torch


def case_arguments():
    """The command line of a peer that runs one case: its JSON, as our programs list it, and how long to measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", type=json.loads)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=1e9)
    return parser.parse_args()


def open_device(name):
    """Best settings: TF32 for what is left in f32, as every recipe for training sets it."""
    torch.set_float32_matmul_precision("high")
    if name == "cuda":
        torch.cuda.init()
        return torch.device("cuda")
    return torch.device("cpu")


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_mb(device):
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None


def reset_peak(device):
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def forget(device):
    """Leaves nothing of one mode to the next."""
    import gc

    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def median_seconds(run, device, steps, each):
    """Median over `steps` groups of `each` runs."""
    times = []
    for _ in range(steps):
        wait(device)
        begin = time.perf_counter()
        for _ in range(each):
            run()
        wait(device)
        times.append((time.perf_counter() - begin) / each)
    return statistics.median(times)


def emit(row):
    print(json.dumps(row), flush=True)


def try_modes(modes, case, device, limit_s, measure):
    """One line for each mode that works, until the time is up; the first mode always gets its turn."""
    begin = time.monotonic()
    keys = ("bench", "shape", "method", "precision")
    done = 0
    for mode in modes:
        spent = time.monotonic() - begin
        if done > 0 and spent + spent / done > limit_s:
            print(f"{mode}: left out, {limit_s - spent:.0f} s are left", file=sys.stderr)
            continue
        done += 1
        try:
            row = measure(mode, case, device)
        except Exception as error:  # a mode that does not work here (no memory, no compiler) is no candidate
            print(f"{mode}: {type(error).__name__}: {str(error).splitlines()[0][:300]}", file=sys.stderr)
            row = None
        forget(device)
        if row is not None:
            emit({**{key: case[key] for key in keys}, "side": "peer", "mode": mode, "torch": torch.__version__, **row})
