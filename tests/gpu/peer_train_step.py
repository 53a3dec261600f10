"""The full training step of bench_train_step in plain PyTorch at its best: bf16, SDPA, torch.compile, fused AdamW.

    peer_train_step.py CASE [--device cuda|cpu] [--steps 5] [--each 2] [--limit-s S]

CASE is what bench_train_step --list prints. Query, key, value and gate, up are one product each; each layer and the head
with its loss are compiled (once for all layers: compiling them together takes minutes and gains nothing that was seen).
Two modes: pure (bf16 weights and moments: less memory, other numbers) and masters (f32 weights, autocast), as TREX does.
"""
import torch
import torch.nn.functional as F

from peer_common import case_arguments, emit, median_seconds, open_device, peak_mb, reset_peak, try_modes

WARMUP_STEPS = 2
EPSILON = 1e-5


def parameter(*shape):
    return torch.nn.Parameter(torch.randn(shape) * 0.02 if len(shape) > 1 else torch.ones(shape))


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class Layer(torch.nn.Module):
    def __init__(self, d):
        super().__init__()
        self.heads, self.kv_heads, self.size = d["heads"], d["kv_heads"], d["head_dim"]
        width, inner = d["hidden"], d["intermediate"]
        self.qkv = parameter((self.heads + 2 * self.kv_heads) * self.size, width)
        self.out = parameter(width, self.heads * self.size)
        self.gate_up = parameter(2 * inner, width)
        self.down = parameter(width, inner)
        self.norm1, self.norm2 = parameter(width), parameter(width)
        self.query_norm, self.key_norm = parameter(self.size), parameter(self.size)

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        h = F.linear(F.rms_norm(x, (width,), self.norm1.to(x.dtype), EPSILON), self.qkv)
        h = h.view(batch, length, -1, self.size)
        q, k, v = h.split([self.heads, self.kv_heads, self.kv_heads], dim=2)
        q = F.rms_norm(q, (self.size,), self.query_norm.to(q.dtype), EPSILON).transpose(1, 2)
        k = F.rms_norm(k, (self.size,), self.key_norm.to(k.dtype), EPSILON).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        h = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True)
        x = x + F.linear(h.transpose(1, 2).reshape(batch, length, -1), self.out)
        h = F.linear(F.rms_norm(x, (width,), self.norm2.to(x.dtype), EPSILON), self.gate_up)
        gate, up = h.chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


def head_loss(x, norm, embedding, target):
    x = F.rms_norm(x, (x.shape[-1],), norm.to(x.dtype), EPSILON)
    logits = F.linear(x, embedding)
    return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), target.view(-1), ignore_index=-1)


class Model(torch.nn.Module):
    """Tied embeddings."""

    def __init__(self, d):
        super().__init__()
        self.embedding = parameter(d["vocabulary"], d["hidden"])
        self.norm = parameter(d["hidden"])
        self.layers = torch.nn.ModuleList(Layer(d) for _ in range(d["layers"]))
        size = d["head_dim"]
        turn = torch.outer(torch.arange(d["length"]).float(), 10000.0 ** (-torch.arange(0, size, 2).float() / size))
        self.register_buffer("cos", turn.cos())
        self.register_buffer("sin", turn.sin())
        self.head_loss = head_loss

    def compile_parts(self):
        for layer in self.layers:
            layer.compile()
        self.head_loss = torch.compile(head_loss)

    def forward(self, ids, target, dtype):
        x = F.embedding(ids, self.embedding).to(dtype)
        cos, sin = self.cos.to(dtype), self.sin.to(dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head_loss(x, self.norm, self.embedding, target)


def make(mode, case, device):
    torch.manual_seed(42)
    dtype = torch.bfloat16 if case["precision"] == "bf16" else torch.float32
    with torch.device(device):
        model = Model(case["dimensions"])
    if mode.startswith("pure"):
        model.to(dtype)
    if mode.endswith("compile"):
        model.compile_parts()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, fused=True), dtype


def measure(mode, case, device):
    model, optimizer, dtype = make(mode, case, device)
    d, losses = case["dimensions"], []
    ids = torch.randint(0, d["vocabulary"], (d["sequences"], d["length"]), device=device)
    target = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -1)], dim=1)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=mode.startswith("masters") and dtype != torch.float32):
            loss = model(ids, target, dtype)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        losses.append(loss.item())

    for _ in range(WARMUP_STEPS):
        step()
    reset_peak(device)
    step_s = median_seconds(step, device, ARGUMENTS.steps, ARGUMENTS.each)
    return {"step_s": step_s, "tokens_per_s": ids.numel() / step_s, "device_peak_mb": peak_mb(device), "losses": losses}


if __name__ == "__main__":
    ARGUMENTS = case_arguments()
    MODES = ["pure_compile", "masters_compile", "pure"]
    try_modes(MODES, ARGUMENTS.case, open_device(ARGUMENTS.device), ARGUMENTS.limit_s, measure)
