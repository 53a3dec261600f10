#!/usr/bin/env python3
"""Loads what the program exports in transformers and PEFT, and compares logits.

    EXPORT_FOLDER=/tmp/exports build/tests/test_model_check_export
    python3 tests/golden/check_export.py /tmp/exports        (torch, transformers, peft, safetensors)

Prints, for each folder, the largest difference of a logit relative to the largest logit; ends with 1 if one is over its
tolerance: 1e-5 for f32, 0.05 for bf16 (whose logits the program and PyTorch both round).
"""
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder):
    if (folder / "adapter_config.json").exists():
        base = AutoModelForCausalLM.from_pretrained(folder.parent / "base", dtype="auto")
        return PeftModel.from_pretrained(base, folder)
    AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def main():
    failed = False
    root = pathlib.Path(sys.argv[1])
    for folder in sorted(p.parent for p in root.glob("*/trex_logits.safetensors")):
        expected = load_file(folder / "trex_logits.safetensors")
        model = load(folder)
        dtype = next(model.parameters()).dtype
        with torch.no_grad():
            logits = model(input_ids=expected["ids"][None].long()).logits[0].float()
        worst = ((logits - expected["logits"]).abs().max() / logits.abs().max()).item()
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        failed |= not worst <= tolerance
        print(f"{folder.name:16} {str(dtype):16} {worst:.2e}  {'ok' if worst <= tolerance else 'DIFFERS'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
