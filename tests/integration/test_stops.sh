#!/usr/bin/env bash
# A candidate's life, stopped where it is not training; groups of ranks, stopped and with one that hangs.
. "$(dirname "$0")/common.sh"
make_task ', "search": {"rounds": 1, "configurations": 2, "seed": 3}, "limits": {"samples": 300, "steps": 40}'

plan() { # what a search decided, without times
    "$tree" show "$1" --json | grep -vE '_s"|seconds|_hours|version|host|_at|time|alloc' || true
}
stopped() { # RUN FAULT: stops itself where the fault says, and can be resumed
    local code=0
    TREX_FAULT=$2=stop timeout 120 "$trex" search job.json --out "$1" --verbose > "$1.txt" 2>&1 || code=$?
    [ "$code" = 85 ] || { cat "$1.txt"; die "stopped at $2 it ended with $code, not 85"; }
}
expect 0 'all rounds are done' "$trex" search job.json --out whole
plan whole > whole.txt

# In the evaluation behind a training: the training is not done again. The baseline is evaluated before, in as many ticks.
for tick in 3 6 9 12 15 18 21; do
    rm -rf evaluated
    stopped evaluated run.worker.evaluate:$tick
    [ -z "$(finished evaluated)" ] || break
done
[ -s evaluated/inflight/n0001-c0.h5 ] || die "a training that was stopped while it was evaluated is not kept"
expect 0 'all rounds are done' "$trex" search job.json --out evaluated
grep -q 'n0001-c0 goes on at step 40 of 40' evaluated/log.jsonl || die "a finished training is trained again"
plan evaluated > found.txt
cmp whole.txt found.txt || { diff whole.txt found.txt | head; die "stopped in an evaluation, the search is another one"; }
ok "stopped while a candidate is evaluated, the search goes on with its evaluation"

# While weights are written: they are finished, and the result counts.
stopped written run.worker.save:1
grep -q n0001-c0 < <(finished written) || die "stopped while weights were written, the result is lost"
[ -z "$(ls written/inflight)" ] || die "the state of a finished training is left behind"
expect 0 'all rounds are done' "$trex" search job.json --out written
expect 0 'nothing is damaged' "$tree" verify written
plan written > found.txt
cmp whole.txt found.txt || { diff whole.txt found.txt | head; die "stopped in a write, the search is another one"; }
ok "stopped while weights are written, their candidate is finished"

# An evaluation that lasts: what was trained is safe within checkpoint_seconds, without any stop. A kill loses none of it.
TREX_FAULT=run.worker.evaluate:$tick=slow expect 0 'all rounds are done' "$trex" search job.json --out slow --verbose
grep -q 'n0001-c0: its state after step 40 is on disk' slow/log.jsonl || die "a long evaluation saves nothing"
plan slow > found.txt
cmp whole.txt found.txt || die "a state that was saved within an evaluation changes the search"
ok "a finished training is saved in its evaluation, if that is long"

# A state that was damaged: the training starts again from nothing, and not from what could be read of it.
stopped damaged run.worker.step:20
state=damaged/inflight/n0001-c0.h5
printf 'damage' | dd of=$state bs=1 seek=$(($(stat -c %s $state) - 5000)) conv=notrunc status=none
expect 0 'all rounds are done' "$trex" search job.json --out damaged
grep -q 'n0001-c0 starts again from its first step' damaged/log.jsonl || die "the damage was not found"
plan damaged > found.txt
cmp whole.txt found.txt || { diff whole.txt found.txt | head; die "half of a damaged state was used"; }
ok "of a damaged state nothing is used"

# Two ranks a candidate: stopped at one step, both go on from it, to the same search.
make_task ', "search": {"rounds": 1, "configurations": 2, "seed": 3}, "limits": {"samples": 400, "steps": 300}'
sed 's/"threads": 1/"threads": 1, "ranks_per_candidate": 2/' job.json > pairs.json
expect 0 'all rounds are done' mpirun -n 3 "$trex" search pairs.json --out pairs
plan pairs > pairs.txt
for try in 1 2 3; do
    code=0
    mpirun -n 3 "$trex" search pairs.json --out cut --verbose > cut.txt 2>&1 & pid=$!
    for _ in $(seq 2400); do
        ! grep -q 'rounds .* of 1 done' cut.txt || break # signals are heard, and candidates run
        kill -0 $pid 2> /dev/null || break
        sleep 0.05
    done
    sleep 0.$((try * 2))
    kill -USR1 $pid 2> /dev/null || true
    wait $pid || code=$?
    [ "$code" = 85 ] || [ "$code" = 0 ] || { cat cut.txt; die "a stopped group ended with $code"; }
done
expect 0 'the search has ended' mpirun -n 3 "$trex" search pairs.json --out cut
plan cut > found.txt
cmp pairs.txt found.txt || { diff pairs.txt found.txt | head; die "groups that were stopped came to another search"; }
ok "a group stops at one step, and goes on from it"

# One of them hangs: the other says so and ends the job, which goes on when it is started again.
code=0
TREX_PATIENCE=8 timeout 200 mpirun -n 2 "$trex" search pairs.json --out hung : \
    -n 1 env TREX_FAULT=run.worker.step:5=hang "$trex" search pairs.json --out hung > hung.txt 2>&1 || code=$?
[ "$code" != 0 ] && [ "$code" != 124 ] || { cat hung.txt; die "a group with a rank that hangs ended with $code"; }
grep -q 'rank 2 of the group has not answered' hung/log.jsonl || { cat hung.txt; die "nobody says which rank hung"; }
expect 0 'the search has ended' mpirun -n 3 "$trex" search pairs.json --out hung
ok "a rank of a group that hangs does not hold the others"
echo "$passed passed, 0 failed"
