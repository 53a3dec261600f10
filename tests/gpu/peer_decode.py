"""Greedy generation of bench_decode's case in transformers: random weights of the same shape, the same prompt length.

    peer_decode.py CASE [--device cuda|cpu] [--steps 5] [--limit-s S]

CASE is what bench_decode --list prints. Modes: generate() with a static cache, which compiles the step into CUDA graphs,
and generate() with its ordinary cache.
"""
import torch
from transformers import Qwen3ForCausalLM

from peer_common import case_arguments, median_seconds, open_device, peak_mb, reset_peak, try_modes
from peer_lora import config_of


def measure(mode, case, device):
    torch.manual_seed(42)
    prompt, new = case["prompt"], case["new"]
    dtype = torch.bfloat16 if case["precision"] == "bf16" else torch.float32
    config = config_of(case["dimensions"], prompt + new)
    config.use_cache, config.eos_token_id, config.pad_token_id = True, None, 0
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = Qwen3ForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    ids = torch.randint(0, config.vocab_size, (case["slots"], prompt), device=device)
    options = {"cache_implementation": "static"} if mode == "static" else {}

    def run():
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, min_new_tokens=new,
                       **options)

    with torch.inference_mode():
        run()
        run()
        reset_peak(device)
        seconds = median_seconds(run, device, ARGUMENTS.steps, 1)
    return {"tokens_per_s": case["slots"] * new / seconds, "device_peak_mb": peak_mb(device)}


if __name__ == "__main__":
    ARGUMENTS = case_arguments()
    try_modes(["static", "dynamic"], ARGUMENTS.case, open_device(ARGUMENTS.device), ARGUMENTS.limit_s, measure)
