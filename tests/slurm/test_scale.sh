#!/usr/bin/env bash
# Scale, with simulated workers: as many ranks as this machine's memory and two minutes allow are kept busy by one
# controller, whose own time per event does not grow with the tree.
#
#   utilisation = busy worker-seconds / (workers x elapsed) in the steady state, what a candidate takes being known from
#   the seed: whatever a worker or a message is late counts as idle (tests/bench/bench_utilisation.c)
. "$(dirname "$0")/common.sh"
[ -x "$build/tests/bench_controller" ] || { echo "skipped: the benches are not built"; exit 77; }

available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
workers=${SCALE_WORKERS:-$(((available - 1000) / 32))} # MiB a rank, with room
most=$((64 * $(nproc)))                                # more take minutes to start: a launcher's work is CPU time
[ -n "${SCALE_WORKERS-}" ] || workers=$((workers < most ? workers : most))
workers=$((workers < 512 ? workers : 512))
[ "$workers" -ge 8 ] || { echo "skipped: $available MiB of memory are free, too little for 8 workers"; exit 77; }
CLUSTER_CPUS=$((workers + 1))
export CLUSTER_CPUS
start_cluster 1
# Wide at the root, so that all workers have work from the first round on; each has six candidates.
make_task ", \"search\": {\"rounds\": $((6 * workers)), \"configurations\": 1, \"max_children\": 1000, \"seed\": 5}"

for try in 1 2; do
    job=$(submit --ntasks-per-node=$((workers + 1)) --time=20 "$root/slurm/search.sbatch" job.json \
        --out "run$try" --simulate 10)
    expect_end "$job" 900 0 0
    expect 0 'nothing is damaged' "$tree" verify "run$try"
    line=$("$build/tests/bench_utilisation" "run$try" 10 "$workers") || die "no utilisation"
    echo "$line"
    busy=$(sed 's/.*"utilisation":\([0-9.]*\).*/\1/' <<< "$line")
    awk -v busy="$busy" 'BEGIN { exit busy < 0.98 }' && break
    busy= # a neighbour on this machine, perhaps
done
[ -n "$busy" ] || die "less than 98 % busy in two tries"
ok "$workers workers with candidates of 10 s are $busy busy"

# Medians of three: the controller's own time per event at 10,000 nodes against that at 100.
micros() { # LINES NODES
    sed -n "s/.*\"nodes\":$2,.*\"us_per_event\":\([0-9.]*\).*/\1/p" "$1" | sort -n | sed -n 2p
}
for policy in uct greedy; do
    for try in 1 2 3; do
        : > lines.jsonl
        for _ in 1 2 3; do
            rm -rf bench
            "$build/tests/bench_controller" job.json bench --nodes 10000 --policy $policy >> lines.jsonl
        done
        few=$(micros lines.jsonl 100)
        many=$(micros lines.jsonl 10000)
        awk -v a="$few" -v b="$many" 'BEGIN { exit !(a > 0 && b <= 2 * a) }' && break
        [ "$try" -lt 3 ] || die "$policy: $many us an event at 10,000 nodes, $few at 100"
    done
    ok "$policy: $few us an event at 100 nodes, $many at 10,000"
done
echo "$passed passed, 0 failed"
