#!/usr/bin/env bash
# SIGKILL at random instants: no finished candidate is lost, the run folder verifies, a training goes on to the same bits.
#   KILLS=20 (default), SEED of the instants
. "$(dirname "$0")/common.sh"
kills=${KILLS:-20}
RANDOM=${SEED:-1}
make_task ', "search": {"rounds": 5, "configurations": 3, "seed": 5}, "limits": {"samples": 400, "steps": 300}'

: > known.txt
ended=
for i in $(seq "$kills"); do
    mpirun -n 3 "$trex" search job.json --out run > log.txt 2>&1 &
    pid=$!
    sleep "$(awk -v r=$RANDOM 'BEGIN { printf "%.2f", 0.4 + 2.2 * r / 32768 }')"
    # Everything at once, as a power failure would: first the ranks, then the launcher.
    pkill -KILL -f "trex search job.json --out run" 2> /dev/null || true
    kill -KILL $pid 2> /dev/null || true
    wait $pid 2> /dev/null || true
    "$tree" verify run > verify.txt 2>&1 || { cat verify.txt; die "verify fails after kill $i"; }
    finished run > now.txt
    lost=$(comm -23 known.txt now.txt)
    [ -z "$lost" ] || die "kill $i lost $lost"
    mv now.txt known.txt
    if grep -q 'the search has ended' log.txt; then ended=1; break; fi
done
ok "$i kills, $(wc -l < known.txt) finished candidates, none lost"
expect 0 'the search has ended' mpirun -n 3 "$trex" search job.json --out run
expect 0 '' "$tree" verify run
finished run > now.txt
[ -z "$(comm -23 known.txt now.txt)" ] || die "the last resume lost candidates"

# A training that is killed again and again ends with the bits of one that was not.
config='{"learning_rate": 0.003, "epochs": 30, "batch_tokens": 512, "validations": 3}'
"$trex" train job.json --out whole --config "$config" > /dev/null 2>&1
cp -r whole/data . 2> /dev/null || true
for i in $(seq 40); do
    "$trex" train job.json --out parts --config "$config" > parts.txt 2>&1 &
    pid=$!
    sleep "$(awk -v r=$RANDOM 'BEGIN { printf "%.2f", 1.1 + 0.8 * r / 32768 }')"
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
