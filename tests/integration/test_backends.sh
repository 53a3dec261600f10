#!/usr/bin/env bash
# Backends as a user meets them: CUDA asked for where there is none, what auto chose, a search on CUDA (its kernels run on
# the CPU, see tests/cuda_on_cpu), one that is stopped on one backend and goes on on the other, a GPU without memory.
. "$(dirname "$0")/common.sh"
on_cpu=$build/tests/cuda_on_cpu/trex-cuda-on-cpu
make_task ', "search": {"rounds": 1, "configurations": 2, "seed": 3}, "limits": {"samples": 60, "steps": 6}'
sed 's/"threads": 1/"threads": 1, "backend": "cuda"/' job.json > cuda.json
sed 's/"threads": 1/"threads": 1, "backend": "cpu"/' job.json > cpu.json

export TREX_CUDA_ON_CPU_DEVICES=0
if grep -q 'cuda *none' < <("$trex" version); then
    expect 2 'backend cpu|use backend' "$trex" search cuda.json --out none
    expect 2 'backend cpu|use backend' mpirun -n 2 "$trex" search cuda.json --out none
    [ ! -e none/run.h5 ] || die "a search without its backend made a run file"
    expect 0 'auto found no CUDA device' "$trex" search job.json --out auto
fi
[ -x "$on_cpu" ] || die "no program at $on_cpu"
expect 2 'no NVIDIA driver|no CUDA device' "$on_cpu" search cuda.json --out none
unset TREX_CUDA_ON_CPU_DEVICES

# A whole search, on every kernel of the backend.
expect 0 'the search has ended' "$on_cpu" search cuda.json --out cuda
expect 0 '' "$tree" verify cuda
[ "$(finished cuda | wc -l)" = 3 ] || die "$(finished cuda | wc -l) candidates finished on cuda, 3 expected"

# Stopped on one backend, in the middle of a training, and resumed on the other.
stop_and_resume() { # NAME PROGRAM JOB PROGRAM JOB
    local name=$1 code=0
    TREX_FAULT=run.worker.step:10=stop timeout 200 "$2" search "$3" --out "$name" > "$name.txt" 2>&1 || code=$?
    [ $code = 85 ] || { cat "$name.txt"; die "$name: stopped with $code, not 85"; }
    expect 0 'the search has ended' "$4" search "$5" --out "$name"
    grep -q 'goes on at step' "$name/log.jsonl" || { cat out.txt; die "$name: no training went on from its state"; }
    expect 0 '' "$tree" verify "$name"
}
for job in cpu cuda; do
    sed 's/"steps": 6/"steps": 40/; s/"samples": 60/"samples": 400/; s/"configurations": 2/"configurations": 1/' \
        $job.json > $job-long.json
done
stop_and_resume to-cpu "$on_cpu" cuda-long.json "$trex" cpu-long.json
ok "a search stopped on cuda goes on on the cpu"

# A GPU without memory fails candidates, with what was needed and what was free; the job goes on.
TREX_CUDA_ON_CPU_MEMORY=42000000 expect 0 'the search has ended' "$on_cpu" search cuda.json --out small
grep -qE 'needs [0-9]+ bytes.*are free' < <("$tree" show small --json) ||
    die "no candidate says what it needed and what was free"
expect 0 '' "$tree" verify small
echo "$passed passed, 0 failed"
