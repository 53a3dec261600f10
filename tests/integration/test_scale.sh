#!/usr/bin/env bash
# The controller's own time per event does not grow with the tree.
. "$(dirname "$0")/common.sh"
[ -x "$build/tests/bench_controller" ] || { echo "skipped: the benches are not built"; exit 77; }

# The controller's own time per event, CPU time of its thread: the median over several searches of what 10,000 nodes
# cost against 100 of the same search. Neighbours on the machine slow both.
ratio() { # FILE OF LINES
    sed -n 's/.*"nodes":\([0-9]*\),.*"us_per_event":\([0-9.]*\).*/\1 \2/p' "$1" |
        awk '$1 == 100 { few = $2 } $1 == 10000 { printf "%.2f\n", $2 / few }' | sort -n |
        awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}
make_task ', "search": {"configurations": 1, "max_children": 5, "seed": 5}'
for policy in uct greedy sequential random; do
    : > lines.jsonl
    for runs in 1 3 5; do
        while [ "$(grep -c '"nodes":10000,' lines.jsonl)" -lt "$runs" ]; do
            rm -rf bench
            "$build/tests/bench_controller" job.json bench --nodes 10000 --policy $policy >> lines.jsonl
        done
        grown=$(ratio lines.jsonl)
        awk -v grown="$grown" 'BEGIN { exit !(grown > 0 && grown <= 2.0) }' && break
        [ "$runs" -lt 5 ] || { cat lines.jsonl; die "$policy: an event costs $grown times as much at 10,000 nodes as at 100"; }
    done
    ok "$policy: an event at 10,000 nodes costs $grown times what it costs at 100"
done
echo "$passed passed, 0 failed"
