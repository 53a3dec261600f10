#!/usr/bin/env bash
# A search that is steered from the login node, and searches that meet what happens in weeks: a rank that hangs, a disk
# that is full for a while, a candidate that kills whoever trains it. Each one's single sbatch brings it to its end.
. "$(dirname "$0")/common.sh"
small=$scratch/small # a disk of its own; mounted first, so that the cluster's nodes see it
mkdir "$small"
mount -t tmpfs -o size=16m none "$small" 2> /dev/null || { echo "no disk of its own here: it cannot be mounted"; exit 77; }
trap 'code=$?; "$cluster" stop "$scratch/c" || true; umount "$small" || true
    [ -n "${KEEP-}" ] || rm -rf "$scratch"; exit $code' EXIT
start_cluster 2
make_task ', "search": {"rounds": 3, "configurations": 2, "seed": 3}, "limits": {"samples": 300, "steps": 60}'
sed -i 's/"threads": 1/"threads": 1, "watchdog_seconds": 6/' job.json
sed 's/"rounds": 3/"rounds": 5000/' job.json > long.json

condition() { # RUN
    "$tree" status "$1" --json | tr -d '\t\n' | grep -oE '"condition":"[a-z]+"' | cut -d '"' -f 4
}
failed() { # RUN: how many candidates
    "$tree" status "$1" --json | tr -d '\t\n' | sed -E 's/.*"finished":[0-9]+,"failed":([0-9]+).*/\1/'
}
blamed() { # RUN: which candidates have ended a rank
    "$tree" show "$1" --json | tr -d '\t\n' | sed 's/"name"/\n&/g' |
        sed -nE 's/^"name":"(n[0-9]+-c[0-9]+)".*"kills":[1-9].*/\1/p'
}
has_incident() { # RUN KIND
    grep -qE "\"kind\":\"$2\"" < <("$tree" status "$1" --json | tr -d '\t\n')
}

# All at once: what each of them waits for takes its time.
mkdir hanging
ln -s "$tree" hanging/trex-tree
cat > hanging/trex <<SH
#!/bin/sh
[ "\$1" = search ] && [ "\$PMIX_RANK" = 2 ] && mkdir hung 2> /dev/null && export TREX_FAULT=run.worker.step=hang
exec $trex "\$@"
SH
chmod +x hanging/trex
hanging=$(TREX=$PWD/hanging/trex submit --ntasks-per-node=3 --time=20 "$root/slurm/search.sbatch" job.json --out hanging/run)
poison() { # LAUNCHER: two workers; one dies whenever it begins this candidate
    TREX_LAUNCH=$1 TREX_FAULT=run.worker.n0002-c1=kill submit --ntasks-per-node=3 --time=20 "$root/slurm/search.sbatch" \
        job.json --out "poisoned-$1"
}
poisoned_srun=$(poison srun)
poisoned_mpirun=$(poison mpirun)
# A worker that nothing watches sleeps for ever: a halt does not wait for it, and still ends the job.
sed 's/"watchdog_seconds": 6/"watchdog_seconds": 0/' long.json > unwatched.json
mkdir deaf
ln -s "$tree" deaf/trex-tree
cat > deaf/trex <<SH
#!/bin/sh
[ "\$1" = search ] && [ "\$PMIX_RANK" = 1 ] && export TREX_FAULT=run.worker.order=hang
exec $trex "\$@"
SH
chmod +x deaf/trex
deaf=$(TREX=$PWD/deaf/trex submit --ntasks-per-node=3 --time=1 --signal=B:USR1@1 "$root/slurm/search.sbatch" unwatched.json \
    --out deaf/run)
halted=$(submit --ntasks-per-node=2 --time=20 "$root/slurm/search.sbatch" long.json --out halted)

wait_until "$deaf" 120 "a worker sleeps" grep -q 'TREX_FAULT strikes' "trex-$deaf.log"
expect 0 '' "$tree" halt deaf/run

wait_until "$halted" 120 "two candidates have finished" finished_more_than halted 1
expect 0 '' "$tree" halt halted
expect_end "$halted" 60 0 0
[ "$(condition halted)" = halted ] || lost "$halted" "its condition is $(condition halted), not halted"
kept=$(finished halted)
expect 0 '' "$tree" verify halted
ok "halt: the job ends with 0 and is not requeued"
halted=$(submit --ntasks-per-node=2 --time=20 "$root/slurm/search.sbatch" long.json --out halted)
wait_until "$halted" 120 "another candidate has finished" finished_more_than halted "$(wc -w <<< "$kept")"
rounds=$(($("$tree" status halted --json | tr -d '\t\n' | sed -E 's/.*"rounds":\{"closed":([0-9]+).*/\1/') + 2))
expect 0 '' "$tree" set halted rounds=$rounds
expect_end "$halted" 120 0 0
expect 0 " of $rounds done, 0 open" "$tree" status halted
[ "$(condition halted)" = finished ] || lost "$halted" "its condition is $(condition halted), not finished"
[ -z "$(comm -23 <(echo "$kept") <(finished halted))" ] || lost "$halted" "halt lost candidates"
each_finished_once halted
ok "the same sbatch goes on after a halt, and ends after as many rounds as were set while it ran"

# The disk is full when the search has begun; somebody makes room later.
full=$(submit --ntasks-per-node=2 --time=20 "$root/slurm/search.sbatch" long.json --out "$small/run")
wait_until "$full" 120 "a candidate has finished" finished_more_than "$small/run" 1
head -c 32M /dev/zero > "$small/ballast" 2> /dev/null || true
wait_until "$full" 120 "it meets the full disk" grep -q 'the disk is full or refuses .*tried again' "trex-$full.log"
wait_until "$full" 120 "it tries again" grep -q 'tried again in 4 s' "trex-$full.log"
kept=$(finished "$small/run")
rm -f "$small/ballast"
wait_until "$full" 120 "the search goes on" finished_more_than "$small/run" "$(wc -w <<< "$kept")"
expect 0 '' "$tree" set "$small/run" rounds=3
expect_end "$full" 120 0 0
expect 0 '' "$tree" verify "$small/run"
[ -z "$(comm -23 <(echo "$kept") <(finished "$small/run"))" ] || lost "$full" "the full disk lost candidates"
has_incident "$small/run" disk || lost "$full" "the tree does not tell of the full disk"
each_finished_once "$small/run"
ok "a disk that was full: the same job goes on when there is room, and nothing is lost"

expect_end "$hanging" 200 0 0
[ -e hung ] || lost "$hanging" "no rank hung"
says "$hanging" 'what is on disk goes on \(try 1\)'
has_incident hanging/run 'rank hung' || lost "$hanging" "the tree does not tell of the rank that hung"
expect 0 '' "$tree" verify hanging/run
[ "$(condition hanging/run) $(finished hanging/run | wc -l)" = "finished 7" ] ||
    lost "$hanging" "$(condition hanging/run), $(finished hanging/run | wc -l) candidates, not 7"
each_finished_once hanging/run
ok "a rank that hangs is found, the ranks start again in the same allocation, and the search ends"

expect_end "$deaf" 120 0 0
says "$deaf" 'not all workers saved their state'
[ "$(condition deaf/run)" = halted ] || lost "$deaf" "its condition is $(condition deaf/run), not halted"
[ -z "$(blamed deaf/run)" ] || lost "$deaf" "a halt blames $(blamed deaf/run)"
expect 0 '' "$tree" verify deaf/run
ok "halt: a worker that does not answer is left behind, and the job still ends with 0"

# Set aside after two deaths where rank 0 lives long enough to see which of its ranks died.
for launcher in srun mpirun; do
    run=poisoned-$launcher
    job=poisoned_$launcher
    job=${!job}
    expect_end "$job" 200 0 0
    deaths=$(grep -c 'TREX_FAULT strikes' "trex-$job.log")
    [ "$deaths" = 2 ] || lost "$job" "$deaths deaths, not 2"
    has_incident "$run" 'rank lost' || lost "$job" "the tree does not tell of the rank that died"
    [ "$(blamed "$run")" = n0002-c1 ] || lost "$job" "to blame are: $(blamed "$run")"
    [ "$(failed "$run")" = 1 ] || lost "$job" "$(failed "$run") candidates are set aside, not 1"
    [ "$(condition "$run") $(finished "$run" | wc -l)" = "finished 6" ] ||
        lost "$job" "$(condition "$run"), $(finished "$run" | wc -l) candidates, not 6"
    expect 0 '' "$tree" verify "$run"
    each_finished_once "$run"
    ok "a candidate that kills its rank is set aside after 2 deaths under $launcher, what is trained beside it is not"
done
echo "$passed passed, 0 failed"
