"""The table of tests/gpu/run as Markdown: what ran, the goals, every case, from the lines of bench.py.

    table.py --cases FILE [--results FILE] [--steps FILE] [--head FILE]

--cases are the lines of bench.py --list: the operations and bytes of each case, as the programs count them. The floor of a
case is the longer of its operations at the rate of products and its bytes at the rate of copies; with results, the rates
are those that PyTorch (products) and the faster side (copies) reached in the same run, else those below.
"""
import argparse
import json
import statistics

DATASHEET_FLOPS = 989e12  # one H200, bf16 without sparsity
PRODUCT_FLOPS = 790e12    # large bf16 products on random numbers: assumed until a run measures them
COPY_BYTES = 4.3e12       # a second, read and written: likewise
LAYERS = 28               # of the shape whose products are summed up
HEAD_CHUNKS = 4           # of the benchmark's rows, in a step
MEMORY_BOUND = ("qk_norm_rope_forward", "qk_norm_rope_backward", "rmsnorm_forward", "rmsnorm_backward", "swiglu_forward",
                "swiglu_backward", "cross_entropy", "gradient_norm", "adamw")


def read_lines(path):
    if path is None:
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def key_of(row):
    return tuple(row.get(name) for name in ("bench", "op", "detail", "method"))


class Table:
    def __init__(self, cases, results):
        self.cases = cases
        self.ours, self.peers, self.errors = {}, {}, {}
        for row in results:
            if "error" in row:
                self.errors.setdefault((row["bench"], row.get("method"), row.get("side", "trex")), row["error"])
            elif row.get("side") == "peer":
                self.peers.setdefault(key_of(row), []).append(row)
            else:
                self.ours.setdefault(key_of(row), []).append(row)
        self.copy_rate = COPY_BYTES
        self.product_rate = PRODUCT_FLOPS
        copies = [row["bytes"] / (time * 1e-6) for row in self.kernels("copy") for time in self.times(row) if time]
        if copies:
            self.copy_rate = max(copies)
        products = [row["flop"] / (row["peer_us"] * 1e-6) for row in self.kernels("matmul") if row.get("peer_us")]
        if products:
            self.product_rate = max(products)
        self.measured = bool(self.ours)

    def kernels(self, op):
        return [row for rows in self.ours.values() for row in rows if row.get("op") == op]

    @staticmethod
    def times(row):
        return [row.get("us"), row.get("peer_us")]

    def floor_s(self, case):
        flop_s, bytes_s = case.get("flop", 0) / self.product_rate, case.get("bytes", 0) / self.copy_rate
        # In a step the optimizer's bytes come after the products; in one operation they overlap.
        return flop_s + bytes_s if case["bench"] == "train_step" else max(flop_s, bytes_s)

    def case(self, bench, **want):
        for case in self.cases:
            if case["bench"] == bench and all(case.get(name) == value for name, value in want.items()):
                return case
        return None

    def found(self, case):
        return self.ours.get(key_of(case), [])

    def kernel_times(self, cases):
        """Sums over cases with weights: floor, ours and the peer's seconds; None where one was not measured."""
        floor = sum(weight * self.floor_s(case) for case, weight in cases)
        sums = []
        for name in ("us", "peer_us"):
            values = [(self.found(case)[0].get(name) if self.found(case) else None, weight) for case, weight in cases]
            sums.append(None if any(value is None for value, _ in values) else 1e-6 * sum(v * w for v, w in values))
        return floor, sums[0], sums[1]

    # -- the goals --

    def products(self):
        cases = []
        for case in self.cases:
            if case.get("op") == "matmul" and not case["detail"].startswith(("decode", "lora")):
                cases.append((case, HEAD_CHUNKS if case["detail"].startswith("head") else LAYERS))
        return cases

    def against(self, what, goal, floor, ours, peer, least):
        """A line whose goal is a part of the peer's speed."""
        ratio = peer / ours if ours and peer else None
        return [what, goal, f"{floor * 1e3:.3g} ms", ms(ours), ms(peer), times(ratio), verdict(ratio, least)]

    def goals(self):
        floor, ours, peer = self.kernel_times(self.products())
        rows = [self.against("matrix products of a step", "0.97 x torch.matmul", floor, ours, peer, 0.97)]
        for detail in dict.fromkeys(case["detail"] for case in self.cases if case.get("op") == "attention_forward"):
            both = [(self.case("kernels", op=op, detail=detail), 1) for op in ("attention_forward", "attention_backward")]
            floor, ours, peer = self.kernel_times(both)
            rows.append(self.against(f"attention, forward and backward, {detail}", "0.8 x SDPA (stretch 1.0)", floor, ours,
                                     peer, 0.8))
        rows.append(self.memory_bound())
        rows += [self.full_step(), self.utilisation(), *self.lora_step(), *self.generation()]
        return [row for row in rows if row is not None]

    def memory_bound(self):
        cases = [case for case in self.cases if case.get("op") in MEMORY_BOUND]
        shares = {case["op"]: self.floor_s(case) / (self.found(case)[0]["us"] * 1e-6) for case in cases if self.found(case)}
        floor = sum(self.floor_s(case) for case in cases)
        worst = min(shares, key=shares.get) if shares else None
        measured = f"least {shares[worst]:.0%} ({worst})" if worst else "not run"
        return ["memory-bound kernels, each", "85 % of copy bandwidth", f"{floor * 1e3:.3g} ms (all)", measured, "",
                f"{shares[worst]:.2f}" if worst else "", verdict(shares[worst] if worst else None, 0.85)]

    def step(self, method):
        case = self.case("train_step", method=method)
        ours = [row["step_s"] for row in self.found(case)]
        peers = self.peers.get(key_of(case), [])
        best = max(peers, key=lambda row: row["tokens_per_s"], default=None)
        return case, statistics.mean(ours) if ours else None, best

    def full_step(self):
        case, ours, peer = self.step("full")
        return self.against(f"full step, {batch_of(case)}", "1.0 x PyTorch (stretch 1.2)", self.floor_s(case), ours,
                            peer["step_s"] if peer else None, 1.0)

    def utilisation(self):
        case, ours, _ = self.step("full")
        share = case["flop"] / ours / DATASHEET_FLOPS if ours else None
        goal_s = case["flop"] / (0.45 * DATASHEET_FLOPS)
        return ["full step, model FLOPs", f"45 % of 989 TFLOP/s: {goal_s * 1e3:.0f} ms, {case['tokens'] / goal_s:,.0f} tokens/s",
                f"{case['flop'] / self.floor_s(case) / DATASHEET_FLOPS:.0%}",
                f"{share:.1%}, {case['tokens'] / ours:,.0f} tokens/s" if ours else "not run", "", "", verdict(share, 0.45)]

    def lora_step(self):
        case, ours, peer = self.step("lora")
        yield self.against(f"LoRA step, {batch_of(case)}", "1.3 x transformers + PEFT", self.floor_s(case), ours,
                           peer["step_s"] if peer else None, 1.3)
        mine = max((row["device_peak_mb"] for row in self.found(case)), default=None)
        peers = [row["device_peak_mb"] for row in self.peers.get(key_of(case), []) if row.get("device_peak_mb")]
        least = min(peers, default=None)
        ratio = mine / least if mine and least else None
        passed = None if ratio is None else (0.7 / ratio)
        yield ["LoRA step, peak memory", "at most 0.7 x", "", gigabytes(mine), gigabytes(least), times(ratio), verdict(passed, 1.0)]

    def generation(self):
        for method, goal, least in (("greedy_1", "50 % of the bandwidth roofline", 0.5), ("greedy_64", "3 x transformers", 3.0)):
            case = self.case("decode", method=method)
            tokens = case["slots"] * case["new"]
            roof = tokens / self.floor_s(case)
            ours = [row["tokens_per_s"] for row in self.found(case)]
            speed = statistics.mean(ours) if ours else None
            peer = max((row["tokens_per_s"] for row in self.peers.get(key_of(case), [])), default=None)
            ratio = speed / peer if speed and peer else None
            share = speed / roof if speed else None
            yield [f"generation, batch {case['slots']}", goal, f"{roof:,.0f} tokens/s",
                   f"{speed:,.0f} tokens/s ({share:.0%} of the roofline)" if speed else "not run",
                   f"{peer:,.0f} tokens/s" if peer else "not run", times(ratio),
                   verdict(share if method == "greedy_1" else ratio, least)]

    # -- every case --

    def all_cases(self):
        for case in self.cases:
            if case["bench"] != "kernels":
                continue
            floor = self.floor_s(case)
            row = self.found(case)[0] if self.found(case) else {}
            ours, peer = row.get("us"), row.get("peer_us")
            yield [f"{case['op']} {case['detail']}".strip(), f"{case['flop'] / 1e9:,.0f}", f"{case['bytes'] / 1e6:,.0f}",
                   f"{floor * 1e6:,.1f}", f"{ours:,.1f}" if ours else "not run",
                   f"{floor * 1e6 / ours:.2f}" if ours else "", f"{peer:,.1f}" if peer else "",
                   times(peer / ours if ours and peer else None)]

    def modes(self):
        for rows in list(self.ours.values()) + list(self.peers.values()):
            for row in rows:
                if row["bench"] != "kernels":
                    peak = row.get("device_peak_mb")
                    losses = ", ".join(f"{loss:.3f}" for loss in row.get("losses", [])[:3])
                    yield [f"{row['bench']} {row['method']}", row.get("mode", f"TREX, run {row.get('run', 1)}"),
                           f"{row['tokens_per_s']:,.0f}", gigabytes(peak) if peak else "", losses]


def batch_of(case):
    d = case["dimensions"]
    return f"{case['precision']}, {d['sequences']} x {d['length']:,}"


def shape_of(case):
    d = case["dimensions"]
    return (f"The shape is {case['shape']}: {d['layers']} layers, C {d['hidden']:,}, H {d['heads']}, K {d['kv_heads']}, "
            f"D {d['head_dim']}, F {d['intermediate']:,}, V {d['vocabulary']:,}; {case['tokens']:,} tokens a step.")


def ms(seconds):
    return f"{seconds * 1e3:.3g} ms" if seconds else "not run"


def gigabytes(megabytes):
    return f"{megabytes / 1024:.1f} GiB" if megabytes else "not run"


def times(ratio):
    return f"{ratio:.2f} x" if ratio else ""


def verdict(value, least):
    return "not run" if value is None else ("reached" if value >= least else "MISSED")


def markdown(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def write(arguments):
    table = Table(read_lines(arguments.cases), read_lines(arguments.results))
    lines = ["# The GPU check", "", "Written by `tests/gpu/run`; README.md beside this says how to run it.", ""]
    if arguments.head:
        lines += open(arguments.head).read().splitlines() + [""]
    if arguments.steps:
        steps = [line.rstrip("\n").split("\t") for line in open(arguments.steps)]
        lines += ["## What ran", "", *markdown(["step", "result", "seconds", "remark"], steps), ""]
    source = "measured in this run" if table.measured else "assumed for an H200"
    lines += ["## Goals", "", shape_of(table.case("train_step", method="full")),
              f"The floor takes {table.product_rate / 1e12:,.0f} TFLOP/s for products and {table.copy_rate / 1e12:.2f} TB/s for",
              f"bytes read and written, both {source}; the datasheet says {DATASHEET_FLOPS / 1e12:.0f} TFLOP/s in bf16.", ""]
    lines += [*markdown(["what", "goal", "floor", "TREX", "peer", "TREX over peer", ""], table.goals()), ""]
    if table.errors:
        lines += ["What could not be measured:", ""]
        lines += [f"- {bench} {method or ''} ({side}): {error}" for (bench, method, side), error in table.errors.items()] + [""]
    runs = list(table.modes())
    if runs:
        lines += ["## Steps and generation, each run", "", *markdown(["what", "mode", "tokens/s", "peak memory", "first losses"], runs), ""]
    lines += ["## Operations", "", "At these shapes; times are medians of five turns in us.", "",
              *markdown(["operation", "GFLOP", "MB", "floor", "TREX", "floor / TREX", "PyTorch", "TREX over PyTorch"],
                        table.all_cases())]
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", required=True)
    parser.add_argument("--results")
    parser.add_argument("--steps")
    parser.add_argument("--head")
    write(parser.parse_args())
