"""Golden training trajectories: ten AdamW steps of tiny models in transformers, peft and torch, full and LoRA.

    python tests/golden/train.py > tests/golden/train/trajectories.json

Nothing random is stored: parameters and tokens come from a formula over names and indices that test_golden.c has as
well. Every step takes the mean loss over the answer tokens of all sequences."""
import json
import math

import numpy
import peft
import torch
import transformers

SHAPE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=8, vocab_size=64, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False)
LENGTHS = [9, 12, 10, 11, 9, 12]  # of sequences
ANSWER = 5  # last tokens of each are learned
STEPS, WARMUP, FINAL_RATIO, CLIP = 10, 2, 0.1, 1.0
RANK, ALPHA = 4, 8.0


def fnv1a(name):
    value = 2166136261
    for byte in name.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def numbers(name, count):
    """32-bit integers of a name: a multiplicative hash of index and name, exact in both languages."""
    index = numpy.arange(count, dtype=numpy.uint64)
    mixed = (index * 2654435761 + fnv1a(name)) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> numpy.uint64(15))) * 2246822519) & 0xFFFFFFFF
    return mixed ^ (mixed >> numpy.uint64(13))


def fill(named_parameters):
    for name, parameter in named_parameters:
        unit = numbers(name, parameter.numel()).astype(numpy.float64) / 2**32 - 0.5
        scale, shift = (0.2, 1.0) if "norm" in name else (0.4, 0.0)
        values = (shift + scale * unit).astype(numpy.float32).reshape(tuple(parameter.shape))
        parameter.data.copy_(torch.from_numpy(values))


def sequences():
    return [torch.from_numpy((numbers(f"sequence {i}", n) % SHAPE["vocab_size"]).astype(numpy.int64))
            for i, n in enumerate(LENGTHS)]


def learning_rate(peak, step):
    if step <= WARMUP:
        return peak * step / WARMUP
    done = (step - WARMUP) / (STEPS - WARMUP)
    return peak * (FINAL_RATIO + (1 - FINAL_RATIO) * 0.5 * (1 + math.cos(math.pi * done)))


def loss_of(model):
    total = 0.0
    for ids in sequences():
        logits = model(input_ids=ids[None]).logits[0]
        total = total + torch.nn.functional.cross_entropy(logits[-ANSWER - 1:-1], ids[-ANSWER:], reduction="sum")
    return total / (ANSWER * len(LENGTHS))


def train(model, peak):
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [{"params": [p for n, p in trained if "norm" not in n], "weight_decay": 0.1},
              {"params": [p for n, p in trained if "norm" in n], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99), eps=1e-8)
    losses, norms = [], []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak, step)
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_([p for _, p in trained], CLIP)))
        optimizer.step()
        losses.append(float(loss))
    return {"learning_rate": peak, "losses": losses, "gradient_norms": norms, "final_loss": float(loss_of(model))}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, rope_theta=10000.0))
    fill(llama.named_parameters())
    full = train(llama, 3e-3)

    qwen = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SHAPE, rope_theta=10000.0))
    fill(qwen.named_parameters())
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = peft.get_peft_model(qwen, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    fill((n.replace(".default", ""), p) for n, p in adapted.named_parameters() if p.requires_grad)
    lora = train(adapted, 1e-2)
    print(json.dumps({"llama_full": full, "qwen3_lora": lora}, indent=1))


if __name__ == "__main__":
    main()
