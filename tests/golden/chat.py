"""Random conversations through a model's own chat template, rendered by Jinja.

Usage: python chat.py TOKENIZER_CONFIG [OUTPUT_FILE [LINES]]     default: "chat_qwen3.jsonl" beside this script, 24 lines

TOKENIZER_CONFIG is tokenizer_config.json of Qwen3. Each line has messages, add_generation_prompt, enable_thinking, text.
"""

import json
import pathlib
import random
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

PARTS = ["hi", " ", "\n", "\n\n", "<think>", "</think>", "why", "<tool_response>", "</tool_response>", "中", "<|im_end|>"]


def conversation(rng):
    messages = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": "Be brief."})
    for _ in range(rng.randint(1, 5)):
        role = rng.choice(["user", "assistant", "user", "assistant", "system"])
        if rng.random() < 0.1:
            content = "<tool_response>7</tool_response>"
        elif rng.random() < 0.3:
            content = "<think>\n" + rng.choice(PARTS) + "\n</think>\n\n" + rng.choice(PARTS)
        else:
            content = "".join(rng.choice(PARTS) for _ in range(rng.randint(0, 5)))
        messages.append({"role": role, "content": content})
    return messages


def main():
    config = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    here = pathlib.Path(__file__).parent
    output = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else here / "chat_qwen3.jsonl"
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 24
    # As transformers sets it up.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(config["chat_template"])
    rng = random.Random(1)
    lines = []
    for _ in range(count):
        values = {
            "messages": conversation(rng),
            "add_generation_prompt": rng.random() < 0.5,
            "enable_thinking": rng.random() < 0.5,
        }
        lines.append(json.dumps({**values, "text": template.render(**values)}, separators=(",", ":")) + "\n")
    output.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
