#!/usr/bin/env python3
"""Golden values of tests/model: tiny random models, their logits, losses and gradients by transformers and PEFT.

    python3 tests/golden/model.py          (torch, transformers, peft, safetensors)

Writes tests/golden/model/<name>/: config.json, weights, a tokenizer, and expected.safetensors with
    ids, targets, starts        the packed batch (targets -1: no loss)
    logits                      (tokens, vocabulary) of each sequence alone
    losses                      (tokens), 0 without a target
    gradient.<parameter>        of the sum of the losses
and in <name>/lora/, for those that have it, a PEFT adapter with expected.safetensors of the same kind.
"""
import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

HERE = pathlib.Path(__file__).parent / "model"
VOCAB = 40
LENGTHS = [9, 1, 5, 8]  # of the packed sequences

SHAPE = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, bos_token_id=1, rms_norm_eps=1e-5, max_position_embeddings=64)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}

MODELS = {
    # Untied head, head size hidden/heads.
    "llama": (LlamaConfig, LlamaForCausalLM, dict(SHAPE, eos_token_id=2), torch.float32),
    # Tied head, llama3 scaling, bf16 on disk in two shards, one key/value head.
    "llama_tied": (LlamaConfig, LlamaForCausalLM,
                   dict(SHAPE, num_key_value_heads=1, tie_word_embeddings=True, eos_token_id=[2, 3],
                        rope_parameters=LLAMA3), torch.bfloat16),
    # QK norm, a head size of its own, f16 on disk.
    "qwen3": (Qwen3Config, Qwen3ForCausalLM,
              dict(SHAPE, head_dim=6, tie_word_embeddings=False, eos_token_id=2,
                   rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}), torch.float16),
    # Tied, every head with its own key and value.
    "qwen3_tied": (Qwen3Config, Qwen3ForCausalLM,
                   dict(SHAPE, num_hidden_layers=1, num_key_value_heads=4, head_dim=8, tie_word_embeddings=True,
                        eos_token_id=2), torch.float32),
}
ADAPTERS = {"llama": ["q_proj", "v_proj", "down_proj"],
            "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}


def build(config_class, model_class, arguments, dtype):
    config = config_class(**arguments)
    config._attn_implementation = "eager"
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2 if "norm" in name else 0.3)
            parameter.copy_(parameter.to(dtype))  # what is on disk is what counts
    return model.double()  # the rotary frequencies stay those of f32, as when transformers loads a model


def make_batch():
    ids = torch.randint(0, VOCAB, (sum(LENGTHS),))
    targets = torch.full_like(ids, -1)
    start = 0
    for length in LENGTHS:
        for i in range(start, start + length - 1):
            if torch.rand(()) < 0.6:
                targets[i] = ids[i + 1]
        start += length
    return ids, targets


def run(model, ids, targets):
    """Each sequence alone: what packing has to equal."""
    logits, losses, start = [], [], 0
    for length in LENGTHS:
        out = model(input_ids=ids[None, start:start + length]).logits[0]
        wanted = targets[start:start + length]
        loss = torch.nn.functional.cross_entropy(out, wanted.clamp(min=0), reduction="none") * (wanted >= 0)
        logits.append(out)
        losses.append(loss)
        start += length
    return torch.cat(logits), torch.cat(losses)


def expected(model, ids, targets):
    model.zero_grad()
    logits, losses = run(model, ids, targets)
    losses.sum().backward()
    starts = [0]
    for length in LENGTHS:
        starts.append(starts[-1] + length)
    out = {"ids": ids.int(), "targets": targets.int(), "starts": torch.tensor(starts).int(),
           "logits": logits.detach().float(), "losses": losses.detach().float()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            out["gradient." + name.replace(".default", "")] = parameter.grad.float().contiguous()
    return out


def save_sharded(state, folder):
    names = sorted(state)
    parts = [names[::2], names[1::2]]
    files = [f"model-{i + 1:05d}-of-00002.safetensors" for i in range(2)]
    for part, file in zip(parts, files):
        save_file({n: state[n] for n in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: f for part, f in zip(parts, files) for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def save_tokenizer(folder):
    """A character tokenizer: unknown, begin, end, and one token for each of some letters."""
    tokens = (["<unk>", "<s>", "</s>"] + list("\u2581abcdefghijklmnopqrstuvwxyz.,!?0123456"))[:VOCAB]
    special = [{"id": i, "content": t, "special": True, "normalized": False, "single_word": False, "lstrip": False,
                "rstrip": False} for i, t in enumerate(tokens[:3])]
    text = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
            "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {t: i for i, t in enumerate(tokens)}, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(text) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
         "unk_token": "<unk>"}) + "\n")


def make_adapter(name, model, targets, folder, ids, wanted):
    folder.mkdir(exist_ok=True)
    adapted = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.normal_(0.0, 0.3)
                parameter.copy_(parameter.float())
    values = expected(adapted, ids, wanted)
    state = {k.replace(".default", ""): v.float().contiguous() for k, v in adapted.state_dict().items()
             if "lora_" in k}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": targets, "task_type": "CAUSAL_LM"}) + "\n")
    save_file(values, folder / "expected.safetensors")


def main():
    torch.manual_seed(20260101)
    for name, (config_class, model_class, arguments, dtype) in MODELS.items():
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        model = build(config_class, model_class, arguments, dtype)
        tied = arguments.get("tie_word_embeddings", False)
        state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()
                 if not (tied and k == "lm_head.weight")}
        if dtype == torch.bfloat16:
            save_sharded(state, folder)
        else:
            save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        config = model.config.to_dict()
        config.pop("transformers_version", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
        config["architectures"] = [model_class.__name__]
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_tokenizer(folder)
        ids, targets = make_batch()
        save_file(expected(model, ids, targets), folder / "expected.safetensors")
        if name in ADAPTERS:
            make_adapter(name, model, ADAPTERS[name], folder / "lora", ids, targets)


if __name__ == "__main__":
    main()
