#!/usr/bin/env bash
# A simulated search: like a real one in all but the training, and never taken for one.
. "$(dirname "$0")/common.sh"
make_task ', "search": {"rounds": 4, "configurations": 2, "seed": 5}'

expect 0 'SIMULATED: workers sleep' mpirun -n 3 "$trex" search job.json --simulate 0.1
expect 0 'SIMULATED' "$tree" status run
expect 0 '"simulated":.*true' "$tree" status run --json
expect 0 'nothing is damaged' "$tree" verify run
[ "$(finished run | wc -l)" = 9 ] || die "$(finished run | wc -l) candidates finished, not 9"
[ -z "$(ls run/weights)" ] || die "a simulated candidate has weights"
ok "9 candidates, no weights"

expect 2 'simulated search: nothing was trained' "$tree" export run best out
expect 2 'holds a simulated search, and this one is real' "$trex" search job.json
expect 0 'the search has ended' "$trex" search job.json --out real
expect 2 'holds a real search, and this one is simulated' "$trex" search job.json --out real --simulate 1
expect 2 'allowed are seconds above 0' "$trex" search job.json --simulate 0
expect 2 'is not a number' "$trex" search job.json --simulate soon

# Stopped in the middle, it goes on where it was; alone and with groups of ranks.
mpirun -n 3 "$trex" search job.json --out cut --simulate 3 > first.txt 2>&1 & pid=$!
for _ in $(seq 1200); do
    [ "$(finished cut | wc -l)" -lt 1 ] || break
    sleep 0.1
done
kill -USR1 $(pgrep -P "$pid" -x trex | head -n 1)
code=0
wait "$pid" || code=$?
[ "$code" = 85 ] || { cat first.txt; die "exit code $code, expected 85"; }
[ -n "$(ls cut/inflight)" ] || die "no state of a candidate that was stopped"
expect 0 'suspended after [0-9]+ steps' "$tree" status cut
expect 0 'nothing is damaged' "$tree" verify cut
expect 0 'the search has ended' "$trex" search job.json --out cut --simulate 0.2
expect 0 'nothing is damaged' "$tree" verify cut
sed 's/"threads": 1/"threads": 1, "ranks_per_candidate": 2/' job.json > group.json
expect 0 'the search has ended' mpirun -n 5 "$trex" search group.json --out group --simulate 0.2
echo "$passed passed, 0 failed"
