"""Lines of both sides in, one line of ratios out for each case and mode of the peer: medians of all runs, TREX over its
peer."""
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


def compare(key, ours, theirs):
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


def main():
    ours, theirs = {}, {}
    for line in sys.stdin:
        row = json.loads(line)
        key = tuple(row.get(name) for name in KEYS)
        if row["side"] == "trex":
            ours.setdefault(key, []).append(row)
        else:
            # Where a peer looks for its fastest way in every run, the runs belong together.
            mode = row.get("mode") if row["bench"] == "train_step" else None
            theirs.setdefault(key, {}).setdefault(mode, []).append(row)
    for key, modes in theirs.items():
        for rows in modes.values():
            if key in ours:
                compare(key, ours[key], rows)


if __name__ == "__main__":
    main()
