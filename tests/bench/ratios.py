"""Lines of both sides in, one line of ratios a case out: medians of all runs, TREX over its peer."""
import json
import statistics
import sys

KEYS = ("bench", "shape", "method", "precision")


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def loss_difference(ours, theirs):
    """Largest relative difference of the losses of the first two steps, before rounding has time to grow."""
    pairs = zip(ours.get("losses", [])[:2], theirs.get("losses", [])[:2])
    return max((abs(a - b) / abs(b) for a, b in pairs), default=None)


def main():
    cases = {}
    for line in sys.stdin:
        row = json.loads(line)
        case = cases.setdefault(tuple(row.get(key) for key in KEYS), {"trex": [], "torch": []})
        case[row["side"]].append(row)
    for key, sides in cases.items():
        ours, theirs = sides["trex"], sides["torch"]
        if not ours or not theirs:
            continue
        result = {name: value for name, value in zip(KEYS, key) if value is not None}
        result["bench"] += "_ratio"
        result["peer_mode"] = theirs[0].get("mode")
        result["runs"] = min(len(ours), len(theirs))
        for name in ("tokens_per_s", "peak_rss_mb"):
            if name in ours[0] and name in theirs[0]:
                result[name] = round(median(ours, name), 1)
                result["peer_" + name] = round(median(theirs, name), 1)
                result[name + "_ratio"] = round(median(ours, name) / median(theirs, name), 3)
        result["loss_difference"] = loss_difference(ours[0], theirs[0])
        print(json.dumps({name: value for name, value in result.items() if value is not None}))


if __name__ == "__main__":
    main()
