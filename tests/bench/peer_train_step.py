"""The training step of bench_train_step in PyTorch, at its best on this CPU: same start, same tokens, same optimizer.

    peer_train_step.py --start FILE --shape 125m --method full --mode compile [--steps 6] [--threads N]
    peer_train_step.py --start FILE --shape 125m --method full --precision bf16 --choose

FILE is what bench_train_step --save wrote. Query, key, value and gate, up are one product each, attention is SDPA, AdamW
and clipping are fused. --choose times every mode of a precision in a process of its own and prints the fastest, and on a
second line the fastest that keeps f32 weights, as TREX does, if that is another:

    f32:  eager, compile
    bf16: autocast, autocast_compile (f32 weights), pure, pure_compile (bf16 weights and moments)

A mode with "+keep" runs with an allocator that keeps freed memory and uses huge pages: faster for large tensors, but
more memory.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HEADS = {"260k": 8, "15m": 6, "125m": 12}
LORA_SCALE = 2.0  # alpha / rank
MODES = {"f32": ["eager", "compile"], "bf16": ["autocast", "autocast_compile", "pure", "pure_compile"]}
WARMUP_STEPS = 2
KEEP = "+keep"
KEEP_ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**63 - 1),
                    "MALLOC_TOP_PAD_": str(2**28), "THP_MEM_ALLOC_ENABLE": "1"}


class Linear(torch.nn.Module):
    """Several matrices that read the same input as one, with their adapters if there are any."""

    def __init__(self, tensors, prefix, names):
        super().__init__()
        weights = [tensors[f"{prefix}.{name}.weight"] for name in names]
        self.weight = torch.nn.Parameter(torch.cat(weights))
        adapters = [f"base_model.model.{prefix}.{name}.lora_%s.weight" for name in names]
        self.lora = adapters[0] % "A" in tensors
        if self.lora:
            self.weight.requires_grad_(False)
            self.a = torch.nn.Parameter(torch.cat([tensors[name % "A"] for name in adapters]))
            self.b = torch.nn.ParameterList(torch.nn.Parameter(tensors[name % "B"]) for name in adapters)

    def forward(self, x):
        y = F.linear(x, self.weight)
        if self.lora:
            inner = (F.linear(x, self.a) * LORA_SCALE).chunk(len(self.b), dim=-1)
            y = y + torch.cat([F.linear(u, b) for u, b in zip(inner, self.b)], dim=-1)
        return y


class Layer(torch.nn.Module):
    def __init__(self, tensors, prefix, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = torch.nn.Parameter(tensors[f"{prefix}.input_layernorm.weight"])
        self.norm2 = torch.nn.Parameter(tensors[f"{prefix}.post_attention_layernorm.weight"])
        self.qkv = Linear(tensors, prefix, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])
        self.out = Linear(tensors, prefix, ["self_attn.o_proj"])
        self.gate_up = Linear(tensors, prefix, ["mlp.gate_proj", "mlp.up_proj"])
        self.down = Linear(tensors, prefix, ["mlp.down_proj"])

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        h = F.rms_norm(x, (width,), self.norm1, 1e-5)
        q, k, v = self.qkv(h).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(h.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(F.rms_norm(x, (width,), self.norm2, 1e-5)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class Llama(torch.nn.Module):
    """Tied embeddings."""

    def __init__(self, tensors, heads, length, dtype):
        super().__init__()
        layers = 1 + max(int(n.split(".")[2]) for n in tensors if n.startswith("model.layers."))
        self.embedding = torch.nn.Parameter(tensors["model.embed_tokens.weight"])
        self.norm = torch.nn.Parameter(tensors["model.norm.weight"])
        self.layers = torch.nn.ModuleList(Layer(tensors, f"model.layers.{i}", heads) for i in range(layers))
        size = self.embedding.shape[1] // heads
        turn = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(0, size, 2).float() / size))
        self.register_buffer("cos", turn.cos().to(dtype))
        self.register_buffer("sin", turn.sin().to(dtype))

    def forward(self, ids):
        """Mean loss of each next token."""
        x = F.embedding(ids, self.embedding)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        x = F.rms_norm(x[:, :-1], (x.shape[-1],), self.norm, 1e-5)
        logits = F.linear(x, self.embedding)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1))


def build(arguments):
    tensors = load_file(arguments.start)
    ids = tensors.pop("ids").long()
    dtype = torch.bfloat16 if arguments.mode.startswith("pure") else torch.float32
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    model = Llama(tensors, HEADS[arguments.shape], ids.shape[1], dtype)
    if arguments.method == "lora":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".a" in name or ".b." in name)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.01},
              {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, fused=True)
    return model, trained, optimizer, ids


def measure(arguments):
    name = arguments.mode
    if name.endswith(KEEP):
        if "MALLOC_TOP_PAD_" not in os.environ:  # read once, when a process starts
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_ENVIRONMENT})
        arguments.mode = name.removesuffix(KEEP)
    model, trained, optimizer, ids = build(arguments)
    forward = torch.compile(model) if arguments.mode.endswith("compile") else model
    losses, times = [], []
    for step in range(WARMUP_STEPS + arguments.steps):
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.mode.startswith("autocast")):
            loss = forward(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimizer.step()
        losses.append(round(loss.item(), 6))
        times.append(time.perf_counter() - begin)
    step_s = statistics.median(times[WARMUP_STEPS:])
    print(json.dumps({
        "bench": "train_step", "side": "torch", "shape": arguments.shape, "method": arguments.method,
        "precision": arguments.precision, "mode": name, "tokens_per_s": round(ids.numel() / step_s, 1), "step_s": round(step_s, 4),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "losses": losses}))


def speed_of(mode, arguments):
    command = [sys.executable, __file__, "--start", arguments.start, "--shape", arguments.shape, "--method",
               arguments.method, "--mode", mode, "--steps", "3", "--threads", str(arguments.threads)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:  # a mode that does not run here (no compiler, no bf16) is no candidate
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        print(f"{mode}: {lines[-1]}", file=sys.stderr)
        return 0.0
    return json.loads(result.stdout.splitlines()[-1])["tokens_per_s"]


def choose(arguments):
    speeds = {mode: speed_of(mode, arguments) for mode in MODES[arguments.precision]}
    fastest = max(speeds, key=speeds.get)
    masters = max((mode for mode in speeds if not mode.startswith("pure")), key=speeds.get)
    for mode in dict.fromkeys([fastest, masters]):
        speeds[mode + KEEP] = speed_of(mode + KEEP, arguments)
        print(max(mode, mode + KEEP, key=speeds.get))
    print(f"tokens/s of each mode: {speeds}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", required=True)
    parser.add_argument("--shape", choices=list(HEADS), required=True)
    parser.add_argument("--method", choices=["full", "lora"], required=True)
    parser.add_argument("--precision", choices=list(MODES), default="f32")
    parser.add_argument("--mode", default="eager")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    choose(arguments) if arguments.choose else measure(arguments)


if __name__ == "__main__":
    main()
