"""The LoRA step of bench_train_step in transformers with PEFT: bf16, SDPA, fused AdamW, adapters on every projection.

    peer_lora.py CASE [--device cuda|cpu] [--steps 5] [--each 2] [--limit-s S]

CASE is what bench_train_step --list prints. Modes: eager as most people run it, and with each layer compiled.
"""
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from peer_common import case_arguments, median_seconds, open_device, peak_mb, reset_peak, try_modes

WARMUP_STEPS = 2
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def config_of(d, positions):
    return Qwen3Config(vocab_size=d["vocabulary"], hidden_size=d["hidden"], num_hidden_layers=d["layers"],
                       num_attention_heads=d["heads"], num_key_value_heads=d["kv_heads"], head_dim=d["head_dim"],
                       intermediate_size=d["intermediate"], max_position_embeddings=positions, tie_word_embeddings=True,
                       rms_norm_eps=1e-5, use_cache=False, attn_implementation="sdpa")


def make(mode, case, device):
    torch.manual_seed(42)
    d = case["dimensions"]
    dtype = torch.bfloat16 if case["precision"] == "bf16" else torch.float32
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = Qwen3ForCausalLM(config_of(d, d["length"]))
        adapter = LoraConfig(r=case["lora_rank"], lora_alpha=2 * case["lora_rank"], target_modules=TARGETS,
                             task_type="CAUSAL_LM")
        model = get_peft_model(model, adapter, autocast_adapter_dtype=False)
    torch.set_default_dtype(torch.float32)
    if mode == "compile":
        for layer in model.base_model.model.model.layers:
            layer.compile()
    trained = [p for p in model.parameters() if p.requires_grad]
    model.train()
    return model, trained, torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)


def measure(mode, case, device):
    model, trained, optimizer = make(mode, case, device)
    d, losses = case["dimensions"], []
    ids = torch.randint(0, d["vocabulary"], (d["sequences"], d["length"]), device=device)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimizer.step()
        losses.append(loss.item())

    for _ in range(WARMUP_STEPS):
        step()
    reset_peak(device)
    step_s = median_seconds(step, device, ARGUMENTS.steps, ARGUMENTS.each)
    return {"step_s": step_s, "tokens_per_s": ids.numel() / step_s, "device_peak_mb": peak_mb(device), "losses": losses}


if __name__ == "__main__":
    ARGUMENTS = case_arguments()
    try_modes(["eager", "compile"], ARGUMENTS.case, open_device(ARGUMENTS.device), ARGUMENTS.limit_s, measure)
