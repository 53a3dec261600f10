# Shared by the integration tests: a scratch folder, a tiny model and task, and checks that stop the test.
set -euo pipefail
build=${1:?usage: test_NAME.sh BUILD_FOLDER}
build=$(cd "$build" && pwd)
trex=$build/trex
tree=$build/trex-tree
scratch=$(mktemp -d "${TMPDIR:-/tmp}/trex-test-XXXXXX")
trap 'code=$?; kill $(jobs -p) 2> /dev/null || true; [ -n "${KEEP-}" ] || rm -rf "$scratch"; exit $code' EXIT
cd "$scratch"

export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_orte_abort_on_non_zero_status=1
export OMPI_MCA_orte_tmpdir_base=$scratch/mpi OMPI_MCA_btl_vader_backing_directory=$scratch/mpi # what the killed leave
mkdir mpi
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# Open MPI leaks at exit, from modules it has unloaded by then; the unit tests look for our own leaks.
export ASAN_OPTIONS=detect_leaks=0

passed=0
ok() { passed=$((passed + 1)); echo "ok - $*"; }
die() { echo "not ok - $*"; exit 1; }

# Now and then mpirun (Debian's Open MPI 4.1.4) dies in its own last lines, when all ranks have ended: what they ended
# with is not known then.
launcher_died() { # CODE OUTPUT
    [ "$1" = 139 ] && grep -q 'mpirun(' "$2" && grep -q 'PMIx_server_finalize' "$2"
}

# expect CODE PATTERN COMMAND...: the command must end with CODE and say something that matches PATTERN.
expect() {
    local code=$1 pattern=$2 got=0
    shift 2
    timeout 120 "$@" > out.txt 2>&1 || got=$?
    if [[ ! $got =~ ^$code$ ]] && ! launcher_died "$got" out.txt; then
        cat out.txt
        die "exit code $got, expected $code: $*"
    fi
    grep -qE -- "$pattern" out.txt || { cat out.txt; die "no \"$pattern\" in the output of: $*"; }
    ok "$code /$pattern/ $(basename "$1") ${*:2:3}"
}

rows() { # rows COUNT SEED: sentences whose last word decides the answer
    awk -v count="$1" -v seed="$2" 'BEGIN {
        srand(seed)
        for (i = 0; i < count; i++) {
            up = rand() < 0.5
            word = up ? substr("risesgrows", 1 + 5 * int(rand() * 2), 5) : substr("fallssinks", 1 + 5 * int(rand() * 2), 5)
            printf "{\"prompt\": \"%c%c%d %s\", \"answer\": \"%s\", \"choices\": [\"up\", \"down\"]}\n", \
                97 + int(rand() * 26), 97 + int(rand() * 26), int(rand() * 100), word, up ? "up" : "down"
        }
    }'
}

# The tiny model and task, and job.json with "$1" more keys (JSON text that begins with a comma, or nothing).
make_task() {
    [ -e model ] || "$trex" init model --hidden 32 --layers 2 --heads 2 --positions 64 > /dev/null
    [ -e train.jsonl ] || { rows 400 1 > train.jsonl; rows 120 2 > dev.jsonl; rows 200 3 > test.jsonl; }
    cat > job.json <<JSON
{"name": "tiny", "model": "model", "output": "run",
 "task": {"name": "words", "train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl",
          "template": "{prompt} =>", "answer": " {answer}", "metric": "accuracy", "predict": "choice"},
 "compute": {"threads": 1, "checkpoint_seconds": 1}${1-}}
JSON
}

# Names of the finished candidates of a run, one a line.
finished() {
    "$tree" show "$1" --json 2> /dev/null | tr -d '\t\n' |
        grep -oE '"name":"n[0-9]+-c[0-9]+","state":"finished"' | grep -oE 'n[0-9]+-c[0-9]+' | sort -u || true
}
