#!/usr/bin/env python3
"""Golden values of tests/eval/test_scorers.c: rouge1 and rougeL by Google's rouge_score, macro-F1 by scikit-learn.

    python3 tests/golden/scorers.py          (rouge-score 0.1.2, scikit-learn)

Writes tests/golden/eval/scorers.json. Same seed, same file.
"""
import json
import pathlib
import random
import re

from rouge_score import rouge_scorer
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

OUT = pathlib.Path(__file__).parent / "eval" / "scorers.json"
IDEOGRAPHS = "\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
LABELS = ["Inducing angiogenesis", "Cellular energetics", "Resisting cell death",
          "Tumor promoting inflammation", "Evading growth suppressors"]


class UnicodeTokenizer:
    """Letters and digits of all scripts; one token an ideograph. The rest of the measure stays rouge_score's."""

    def tokenize(self, text):
        return re.findall(f"[{IDEOGRAPHS}]|[^\\W_{IDEOGRAPHS}]+", text.lower())


def ascii_text(rng, words, length):
    marks = ["", "", "", ",", ".", "!", " -", "'s", "_x"]
    return " ".join(rng.choice(words) + rng.choice(marks) for _ in range(length))


def rouge_cases():
    rng = random.Random(20240501)
    words = ["the", "cat", "Sat", "ON", "mat", "dog", "x1", "42", "plan", "pain", "denies", "chest", "a"]
    pairs = [("the cat sat on the mat", "the mat sat on the cat"), ("", "words"), ("words", ""), ("", ""),
             ("!!! ...", "?"), ("one", "one"), ("a a a a", "a a"), ("a b c d", "d c b a"),
             ("State-of-the-art isn't it?", "state of the art isnt it")]
    for length in (1, 3, 10, 40, 63, 64, 65, 130, 200):
        for _ in range(2):
            pairs.append((ascii_text(rng, words, length), ascii_text(rng, words, max(1, length + rng.randint(-5, 20)))))
    plain = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    wide = rouge_scorer.RougeScorer(["rouge1", "rougeL"], tokenizer=UnicodeTokenizer())
    cases = []
    for answer, output in pairs:
        score = plain.score(answer, output)
        cases.append([answer, output, score["rouge1"].fmeasure, score["rougeL"].fmeasure])
    for answer, output in [("答案:在专利侵权纠纷中", "在专利纠纷中，不构成侵犯专利权。"),
                           ("Café crème, naïve", "café CRÈME naive"), ("Привет мир 12", "мир, привет"),
                           ("これはペンです", "それはpenです"), ("正确答案：D。", "正确答案：A")]:
        score = wide.score(answer, output)
        cases.append([answer, output, score["rouge1"].fmeasure, score["rougeL"].fmeasure])
    return cases


def macro_f1_set(rng, count, labels, right, separator):
    """Rows whose outputs keep each right label with probability `right` and add wrong ones with 1 - right."""
    rows, expected, found = [], [], []
    for _ in range(count):
        truth = [label for label in labels if rng.random() < 0.3]
        guess = [label for label in labels if rng.random() < (right if label in truth else 1 - right)]
        expected.append(truth)
        found.append(guess)
        rows.append([separator.join(truth) or "none", separator.join(guess) or "none"])
    binarizer = MultiLabelBinarizer(classes=labels)
    score = f1_score(binarizer.fit_transform(expected), binarizer.transform(found), average="macro", zero_division=0)
    return {"labels": labels, "separator": separator, "rows": rows, "macro_f1": float(score)}


def main():
    rng = random.Random(7)
    golden = {
        "rouge": rouge_cases(),
        "macro_f1": [macro_f1_set(rng, 40, LABELS, 0.8, "; "), macro_f1_set(rng, 25, LABELS[:2], 0.5, ", "),
                     macro_f1_set(rng, 3, LABELS, 0.9, "; ")],
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
