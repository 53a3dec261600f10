# Shared by the tests on a Slurm cluster: the integration tests' tiny task, a cluster in the scratch folder, and jobs.
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/tests/integration/common.sh"
cluster=$root/tests/slurm/cluster
unset OMPI_MCA_btl_vader_backing_directory # a node has a /dev/shm of its own, which ends with it
trap 'code=$?; "$cluster" stop "$scratch/c" || true; kill $(jobs -p) 2> /dev/null || true
    [ -n "${KEEP-}" ] || rm -rf "$scratch"; exit $code' EXIT

# The batch scripts find the program by these, as a user's would whose job is not submitted from the repository.
export TREX_HOME=$root TREX=$trex
unset TREX_LAUNCH TREX_CHAIN TREX_TRIES

start_cluster() { # [NODES]; ends the test with 77 where there can be none, and the reason has been said
    local variables
    variables=$(CLUSTER_SECONDS=${CLUSTER_SECONDS:-1200} "$cluster" start "$scratch/c" "${1:-2}") || exit $?
    eval "$variables"
}

submit() { # SBATCH ARGUMENTS...: prints the job's number
    sbatch --parsable --nodes=1 --cpus-per-task=1 "$@"
}

field() { # JOB NAME: a field of scontrol show job
    scontrol show job -o "$1" | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1
}

# Fails the test with what the job has written.
lost() { # JOB WORDS...
    local job=$1
    shift
    scontrol show job "$job" || true
    cat trex-*"$job"*.log slurm-"$job".out 2> /dev/null || true
    tail -n 3 c/log/slurmctld.log
    die "$*"
}

wait_until() { # JOB SECONDS WHAT COMMAND...: until the command succeeds
    local job=$1 left=$(($2 * 5)) what=$3
    shift 3
    until "$@"; do
        [ $((left -= 1)) -gt 0 ] || lost "$job" "job $job: waited in vain until $what"
        sleep 0.2
    done
}

is_over() { # JOB
    case $(field "$1" JobState) in
        COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | OUT_OF_MEMORY | BOOT_FAIL) return 0 ;;
        *) return 1 ;;
    esac
}

restarted() { # JOB COUNT: it runs for at least the so many-th time again
    [ "$(field "$1" Restarts)" -ge "$2" ] && [ "$(field "$1" JobState)" = RUNNING ]
}

# The job must end so: CODE is the script's exit code; RESTARTS as "2+": so many or more.
expect_end() { # JOB SECONDS CODE RESTARTS
    wait_until "$1" "$2" "its end" is_over "$1"
    [ "$(field "$1" ExitCode)" = "$3:0" ] || lost "$1" "job $1 ended with $(field "$1" ExitCode), not $3:0"
    local times
    times=$(field "$1" Restarts)
    [ "$times" = "$4" ] || { [[ $4 == *+ ]] && [ "$times" -ge "${4%+}" ]; } ||
        lost "$1" "job $1 was requeued $times times, not $4"
}

says() { # JOB PATTERN
    grep -qE -- "$2" trex-"$1".log || lost "$1" "job $1 does not say \"$2\""
}

# The signal that Slurm sends before the time limit, now.
signal_limit() { # JOB
    scancel --signal=USR1 --batch "$1"
}

# What a search decided and found, without times.
decided() { # RUN
    "$tree" show "$1" --json | grep -vE '_s"|seconds|_hours|version|host|_at|time'
}

# How many rounds a search has planned so far.
rounds_of() { # RUN
    "$tree" status "$1" --json | tr -d '\t\n' |
        sed -E 's/.*"rounds":\{"closed":([0-9]+),"failed":([0-9]+),"open":([0-9]+).*/\1 \2 \3/' |
        awk '{ print $1 + $2 + $3 }'
}

# A search with rounds without end gets as many as it has begun and a few more; how many it does then depends on what it
# had begun when it heard of that.
let_end() { # RUN
    expect 0 '' "$tree" set "$1" rounds=$(($(rounds_of "$1") + 2))
}

finished_more_than() { # RUN COUNT
    [ "$(finished "$1" | wc -l)" -gt "$2" ]
}

# The log tells of every candidate's end once: none was trained again after it had finished.
each_finished_once() { # RUN
    local twice
    twice=$(grep -oE '"message":"n[0-9]+-c[0-9]+  [a-z_]+ [0-9.]+ ' "$1/log.jsonl" |
        grep -oE 'n[0-9]+-c[0-9]+' | sort | uniq -d)
    [ -s "$1/log.jsonl" ] || die "$1 has no log"
    [ -z "$twice" ] || die "$1: finished twice: $twice"
}
