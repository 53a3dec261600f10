"""Greedy generation of bench_decode's cases in transformers: random weights of the same shapes, prompts of 32 tokens.

    peer_decode.py [--threads N] [--new N]

Two ways are timed and the faster counts: generate(), and a plain loop over the model with its cache, which leaves out
what generate() does around each step.
"""
import argparse
import json
import time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

SHAPES = {"15m": (288, 6, 6, 768), "125m": (768, 12, 12, 2048)}
PROMPT = 32


def build(shape, dtype):
    hidden, layers, heads, intermediate = SHAPES[shape]
    config = LlamaConfig(vocab_size=32000, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                         intermediate_size=intermediate, tie_word_embeddings=True, max_position_embeddings=4096,
                         eos_token_id=None, pad_token_id=None)
    torch.manual_seed(42)
    return LlamaForCausalLM(config).to(dtype).eval()


def by_generate(model, prompt, new):
    model.generate(prompt, do_sample=False, max_new_tokens=new, min_new_tokens=new,
                   attention_mask=torch.ones_like(prompt))


def by_loop(model, prompt, new):
    cache, ids = DynamicCache(config=model.config), prompt
    for _ in range(new):
        logits = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits
        ids = logits[:, -1].argmax(-1, keepdim=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--new", type=int, default=128)
    arguments = parser.parse_args()
    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    for shape in SHAPES:
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            model = build(shape, dtype)
            for slots in (1, 16):
                prompt = torch.randint(0, 32000, (slots, PROMPT))
                best = {}
                with torch.inference_mode():
                    for way in (by_generate, by_loop):
                        way(model, prompt, 4)
                        begin = time.monotonic()
                        way(model, prompt, arguments.new)
                        best[way.__name__] = time.monotonic() - begin
                mode = min(best, key=best.get)
                print(json.dumps({"bench": "decode", "side": "torch", "shape": shape, "method": f"greedy_{slots}",
                                  "precision": name, "mode": mode,
                                  "tokens_per_s": round(slots * arguments.new / best[mode], 1)}),
                      flush=True)


if __name__ == "__main__":
    main()
