#!/usr/bin/env bash
# SIGKILL at random instants: no finished candidate is lost, the run folder verifies, a training goes on to the same bits.
#   KILLS=20 (default), SEED of the instants
. "$(dirname "$0")/common.sh"
kills=${KILLS:-20}
RANDOM=${SEED:-1}
here=$(pwd -P)
make_task ', "search": {"rounds": 8, "configurations": 3, "seed": 5}, "limits": {"samples": 400, "steps": 300}'

# As many searches as it takes: one that ends gives way to the next.
search=1
: > known.txt
for i in $(seq "$kills"); do
    mpirun -n 3 "$trex" search job.json --out run$search > log.txt 2>&1 &
    pid=$!
    # Of three kills one comes at a random moment after the start, two after it has begun to work.
    if [ $((i % 3)) != 0 ]; then
        for _ in $(seq 1200); do
            ! grep -q 'workers . of' log.txt || break
            kill -0 $pid 2> /dev/null || break
            sleep 0.05
        done
    fi
    sleep "$(awk -v r=$RANDOM 'BEGIN { printf "%.2f", 1.5 * r / 32768 }')"
    # Everything at once, as a power failure would: first the ranks, then the launcher.
    # They are known by their folder, which is this test's alone, and by their command.
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/cwd" 2> /dev/null)" = "$here" ] || continue
        command=$(tr '\0' ' ' 2> /dev/null < "$process/cmdline") || continue
        [[ $command != "$trex search "* ]] || kill -KILL "${process#/proc/}" 2> /dev/null || true
    done
    kill -KILL $pid 2> /dev/null || true
    wait $pid 2> /dev/null || true
    if [ ! -s known.txt ] && [ ! -e run$search/run.h5 ] && [ ! -e run$search/journal.jsonl ]; then
        continue # it came before the search began
    fi
    "$tree" verify run$search > verify.txt 2>&1 || { cat verify.txt log.txt; die "verify fails after kill $i"; }
    finished run$search > now.txt
    lost=$(comm -23 known.txt now.txt)
    [ -z "$lost" ] || die "kill $i lost $lost"
    mv now.txt known.txt
    if grep -q 'the search has ended' log.txt; then
        search=$((search + 1))
        : > known.txt
    fi
done
ok "$kills kills over $search searches, no finished candidate lost"
[ -s known.txt ] || echo "note: the last search had finished nothing yet"
expect 0 'the search has ended' mpirun -n 3 "$trex" search job.json --out run$search
expect 0 '' "$tree" verify run$search
finished run$search > now.txt
[ -z "$(comm -23 known.txt now.txt)" ] || die "the last resume lost candidates"

# A training that is killed again and again ends with the bits of one that was not.
make_task # no limit of steps
config='{"learning_rate": 0.003, "epochs": 120, "batch_tokens": 512, "validations": 3}'
"$trex" train job.json --out whole --config "$config" > /dev/null 2>&1
cp -r whole/data . 2> /dev/null || true
for i in $(seq 40); do
    : > begun
    "$trex" train job.json --out parts --config "$config" > parts.txt 2>&1 &
    pid=$!
    for _ in $(seq 1200); do # until it has saved something
        [ ! parts/training.h5 -nt begun ] || break
        kill -0 $pid 2> /dev/null || break
        sleep 0.05
    done
    sleep "$(awk -v r=$RANDOM 'BEGIN { printf "%.2f", 0.3 * r / 32768 }')"
    kill -KILL $pid 2> /dev/null || true
    wait $pid 2> /dev/null || true
    [ ! -e parts/result.json ] || break
done
[ -e parts/result.json ] || "$trex" train job.json --out parts --config "$config" > parts.txt 2>&1
if command -v h5diff > /dev/null; then
    h5diff whole/weights.h5 parts/weights.h5 || die "killed and resumed training has other weights"
fi
grep -v seconds whole/result.json | tr -d '\n' | sed 's/\(\[[^]]*\),[^],]*\]/\1]/g' > a.txt
grep -v seconds parts/result.json | tr -d '\n' | sed 's/\(\[[^]]*\),[^],]*\]/\1]/g' > b.txt
cmp a.txt b.txt || die "killed and resumed training has another result"
ok "a training killed $i times equals an uninterrupted one to the bit"
echo "$passed passed, 0 failed"
