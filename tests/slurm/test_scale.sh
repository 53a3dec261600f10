#!/usr/bin/env bash
# Scale, with simulated workers: 64 ranks are kept busy by one controller.
#
#   utilisation = busy worker-seconds / (workers x elapsed) in the steady state, what a candidate takes being known from
#   the seed: whatever a worker or a message is late counts as idle (tests/bench/bench_utilisation.c)
. "$(dirname "$0")/common.sh"
[ -x "$build/tests/bench_utilisation" ] || { echo "skipped: the benches are not built"; exit 77; }

available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
workers=${SCALE_WORKERS:-64} # 512: tests/bench/utilisation, on a machine that nobody else uses
room=$(((available - 1000) / 32))
workers=$((workers < room ? workers : room))
[ "$workers" -ge 8 ] || { echo "skipped: $available MiB of memory are free, too little for 8 workers"; exit 77; }
CLUSTER_CPUS=$((workers + 1))
export CLUSTER_CPUS
start_cluster 1
# Wide at the root, so that all workers have work from the first round on; each has four candidates.
make_task ", \"search\": {\"rounds\": $((4 * workers)), \"configurations\": 1, \"max_children\": 1000, \"seed\": 5}"

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
echo "$passed passed, 0 failed"
