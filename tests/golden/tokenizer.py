"""Small tokenizers and what the `tokenizers` library makes of text with them.

Usage: python tokenizer.py [OUTPUT_FOLDER [LINES]]     default: "tokenizer" beside this script, 24 lines

Writes one folder per tokenizer: tokenizer.json, tokenizer_config.json and vectors.jsonl with, for each text:
  ids      with special tokens found in the text
  plain    with special tokens as plain text
  decoded  of ids, and "skipped" without special tokens
What is left out equals another field: skipped decoded, decoded text, plain ids.
Texts are random characters from several alphabets, so that every step of a tokenizer is met. With more LINES than are
committed (say 20000) and TOKENIZER_VECTORS set to OUTPUT_FOLDER, the test compares many more.
"""

import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CORPUS = """
The quick brown fox jumps over the lazy dog. It's what they'd said: we'll see, you've seen, I'm here, they're there.
Once upon a time there was a little girl who liked to read the long letters that her friend had written to her.
Positive or negative? The film is a gorgeous, witty and touching thing; the other one was dull, long and very bad.
int main(void) { return 0; }  for (int i = 0; i < 10; i++) { sum += values[i]; }    if (x == 12345) { y = 67890; }
Der schnelle braune Fuchs springt über den faulen Hund. Größe, Äpfel, Öl und Übung macht den Meister. Straße.
Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë au delà des îles, près du mälström.
Съешь же ещё этих мягких французских булок, да выпей чаю. Это предложение на русском языке.
公司法第十条规定了什么？他们说中文。今天天气很好，我们去公园吧。日本語のテキストもあります。カタカナとひらがな。
한국어 문장도 있습니다. 오늘은 날씨가 좋습니다. नमस्ते दुनिया। สวัสดีชาวโลก  مرحبا بالعالم  שלום עולם  😀🎉👍🏽
"""

POOLS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "          ",
    " \t\n\r\v\f\u0085\u00a0\u1680\u180e\u2000\u2003\u200b\u2028\u2029\u202f\u205f\u3000",
    "\n\n\r\n",
    ".,;:!?'\"()[]{}<>|/\\+-*=_#@$%^&~`",
    "äöüßéèñçœÿåøſKÅΩ½²Ⅷ①",
    "\u0301\u0327\u0308\u0323\u0345\u20d0\u3099\u0f71\u0f72\u0f80",
    "\u1100\u1161\u11a8가각힣\uac00",
    "中文字公司法的是了日本語カタガヒら。，",
    "абвгдеёжзийАБВ",
    "\u0958\u0928\u093c\u0915\u09cb\u09c7\u09be\u0b94\u0dda\u0344\u0387\u212b\u2126\ufb1d\uf900",
    "😀🎉👍🏽\u200d❤\ufe0f",
    "▁",
]
PHRASES = [" the", "It's", "'ll", "'S", "'ſ", " they'RE", "12345", "   x", "\n\n ", "<", "|", "im_end", "<0x41>", " friend"]
ADDED = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<s>", "</s>", "<mask>", "<word>", "<norm>", "<|im_", "Ärm"]


def random_text(rng):
    parts = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.15:
            parts.append(rng.choice(ADDED))
        elif kind < 0.35:
            parts.append(rng.choice(PHRASES))
        elif kind < 0.45:
            words = CORPUS.split(" ")
            parts.append(" ".join(words[(i := rng.randrange(len(words))) : i + rng.randint(1, 4)]))
        else:
            pool = rng.choice(POOLS)
            parts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 6))))
    return "".join(parts)


def compact(tokenizer):
    return json.loads(tokenizer.to_str())


def add_tokens(tokenizer):
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    tokenizer.add_tokens(
        [
            AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("<word>", single_word=True, normalized=False),
            AddedToken("<norm>", normalized=True),
            AddedToken("Ärm", normalized=True),
        ]
    )


def byte_level():
    """As Qwen's: NFC, a regular expression, bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.split("\n"), trainer)
    add_tokens(tokenizer)
    config = {"bos_token": None, "eos_token": "<|im_end|>", "add_bos_token": False}
    return compact(tokenizer), config


def gpt2():
    """As GPT-2's and SmolLM's: digits apart, ByteLevel's own pattern, a space in front; a known word is never split."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.split("\n"), trainer)
    add_tokens(tokenizer)
    spec = compact(tokenizer)
    # Words that no merge makes, which ignore_merges finds all the same. In the old format of merges.
    spec["model"]["vocab"]["Ġfriendly"] = spec["model"]["vocab"].pop(list(spec["model"]["vocab"])[-1])
    known = spec["model"]["vocab"]
    pairs = [m for m in spec["model"]["merges"] if m[0] in known and m[1] in known and "".join(m) in known]
    spec["model"]["merges"] = [" ".join(pair) for pair in pairs]
    return spec, {"eos_token": {"content": "<|im_end|>"}}


def sentence_pieces(byte_fallback):
    """A vocabulary of characters and words with U+2581 for spaces: <unk>, <s>, </s>, perhaps bytes, then pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=330, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.split("\n"), trainer)
    model = compact(tokenizer)["model"]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256) if byte_fallback]
    pieces += [piece for piece in model["vocab"] if piece not in pieces]
    model["vocab"] = {piece: index for index, piece in enumerate(pieces)}
    return model


def special(index, content):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": content, **flags}


def with_special(model, **parts):
    added = [special(index, content) for index, content in enumerate(("<unk>", "<s>", "</s>"))]
    post = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    spec = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": post}
    return {**spec, "normalizer": None, "pre_tokenizer": None, "model": model, **parts}


def sentence_piece():
    """As Llama 2's: spaces become U+2581, one is put in front, bytes for unknown characters."""
    model = sentence_pieces(True)
    model.update({"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True})
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    spec = with_special(
        model, normalizer=json.loads(normalizer.__getstate__()), decoder=json.loads(decoder.__getstate__())
    )
    return spec, {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": False}


def metaspace(scheme, fuse):
    """The same words through the Metaspace pre-tokenizer, without bytes: unknown characters become <unk>."""
    model = sentence_pieces(False)
    model.update({"unk_token": "<unk>", "fuse_unk": fuse})
    split = json.loads(pre_tokenizers.Metaspace(prepend_scheme=scheme).__getstate__())
    decoder = json.loads(decoders.Metaspace(prepend_scheme=scheme).__getstate__())
    spec = with_special(model, pre_tokenizer=split, decoder=decoder)
    spec["normalizer"] = {"type": "NFKC"}
    return spec, {"bos_token": "<s>", "eos_token": "</s>"}


def vectors(spec, count, seed):
    rng = random.Random(seed)
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    for index in range(count):
        text = "" if index == 0 else random_text(rng)
        line = {"text": text}
        tokenizer.encode_special_tokens = False
        line["ids"] = tokenizer.encode(text, add_special_tokens=False).ids
        line["decoded"] = tokenizer.decode(line["ids"], skip_special_tokens=False)
        line["skipped"] = tokenizer.decode(line["ids"], skip_special_tokens=True)
        tokenizer.encode_special_tokens = True
        line["plain"] = tokenizer.encode(text, add_special_tokens=False).ids
        # What equals another field is left out.
        for key, other in (("skipped", "decoded"), ("decoded", "text"), ("plain", "ids")):
            if line[key] == line[other]:
                del line[key]
        yield line


def main():
    here = pathlib.Path(__file__).parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "tokenizer"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    made = {
        "byte_level": byte_level(),
        "gpt2": gpt2(),
        "sentence_piece": sentence_piece(),
        "metaspace_first": metaspace("first", False),
        "metaspace_always": metaspace("always", True),
    }
    for seed, (name, (spec, config)) in enumerate(made.items()):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
        (target / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        (target / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
        lines = [json.dumps(line, separators=(",", ":")) + "\n" for line in vectors(spec, count, seed)]
        (target / "vectors.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
