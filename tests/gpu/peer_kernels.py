"""Products, adapters, attention and copies of bench_kernels in PyTorch: one case a line in, as bench_kernels prints it, one
line out with the median "us" of an operation (null where there is no peer for it).

    peer_kernels.py [--device cuda|cpu]

Queued operations on buffers that take turns, as there. Attention is SDPA in the fastest of its backends, each case in its
own fastest, so forward and backward may differ.
"""
import argparse
import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from peer_common import emit, open_device, wait

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
TURN_BYTES, SETS_MAX, BATCH_S, BATCHES = 512e6, 8, 0.02, 5
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def random(shape, dtype, device):
    return torch.rand(shape, dtype=torch.float32, device=device).mul_(2).sub_(1).to(dtype)


def sets_of(set_bytes, device):
    return 1 if device.type == "cpu" else int(min(max(math.ceil(TURN_BYTES / set_bytes), 1), SETS_MAX))


def batch_seconds(runs, queue, device):
    wait(device)
    begin = time.perf_counter()
    for n in range(queue):
        runs[n % len(runs)]()
    wait(device)
    return (time.perf_counter() - begin) / queue


def microseconds(runs, device):
    batch_seconds(runs, len(runs), device)  # warm up
    once = batch_seconds(runs, len(runs), device)
    queue = int(min(max(math.ceil(BATCH_S / once), 1), 2000))
    return 1e6 * statistics.median(batch_seconds(runs, queue, device) for _ in range(BATCHES))


def copies(case, dtype, device):
    rows, cols = case["dimensions"][:2]
    runs = []
    for _ in range(sets_of(case["bytes"], device)):
        to, source = (random((rows, cols), dtype, device) for _ in range(2))
        runs.append(lambda to=to, source=source: to.copy_(source))
    return [runs]


def products(case, dtype, device):
    m, n, depth, transpose_a, transpose_b = case["dimensions"]
    runs = []
    for _ in range(sets_of(case["bytes"], device)):
        a = random((depth, m), dtype, device).t() if transpose_a else random((m, depth), dtype, device)
        b = random((n, depth), dtype, device).t() if transpose_b else random((depth, n), dtype, device)
        c = torch.empty((m, n), dtype=dtype, device=device)
        runs.append(lambda a=a, b=b, c=c: torch.matmul(a, b, out=c))
    return [runs]


def low_rank(case, dtype, device):
    """y += u b' for each part, in place."""
    rows, *widths, rank = case["dimensions"]
    runs = []
    for _ in range(sets_of(case["bytes"], device)):
        y, u = random((rows, sum(widths)), dtype, device), random((rows, len(widths) * rank), dtype, device)
        parts = [(part, inner, random((part.shape[1], rank), dtype, device).t())
                 for part, inner in zip(y.split(widths, dim=1), u.split(rank, dim=1))]
        runs.append(lambda parts=parts: [part.addmm_(inner, b) for part, inner, b in parts])
    return [runs]


def attention(case, dtype, device):
    """The runs of each backend that can do the case."""
    sequences, length, heads, kv_heads, size = case["dimensions"]
    backward = case["op"] == "attention_backward"
    inputs = []
    for _ in range(sets_of(case["bytes"], device)):
        q, k, v = (random((sequences, length, h, size), dtype, device).transpose(1, 2).requires_grad_(backward)
                   for h in (heads, kv_heads, kv_heads))
        inputs.append((q, k, v, random((sequences, length, heads, size), dtype, device).transpose(1, 2)))

    def forward(q, k, v, backend):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)

    ways = []
    for backend in BACKENDS:
        try:
            if backend == SDPBackend.MATH and ways:
                continue  # it keeps T x T scores
            runs = []
            for q, k, v, d_out in inputs:
                if backward:
                    out = forward(q, k, v, backend)
                    runs.append(lambda o=out, x=(q, k, v), d=d_out: torch.autograd.grad(o, x, d, retain_graph=True))
                else:
                    runs.append(lambda q=q, k=k, v=v, b=backend: forward(q, k, v, b))
            runs[0]()
            wait(device)
            ways.append(runs)
        except RuntimeError:
            continue  # this backend cannot
    return ways


MAKERS = {"copy": copies, "matmul": products, "low_rank_add": low_rank, "attention_forward": attention,
          "attention_backward": attention}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = open_device(parser.parse_args().device)
    last, ways = None, []
    emit({"torch": torch.__version__})
    for line in sys.stdin:
        case = json.loads(line)
        if case["op"] not in MAKERS:
            emit({"us": None})
            continue
        if line != last:
            last, ways = line, []
            ways = MAKERS[case["op"]](case, DTYPES[case["dtype"]], device)
            if len(ways) > 1:
                ways = [min(ways, key=lambda runs: microseconds(runs, device))]
        emit({"us": microseconds(ways[0], device) if ways else None})


if __name__ == "__main__":
    main()
