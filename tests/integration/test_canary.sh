#!/usr/bin/env bash
# A key, and the password of a proxy, are nowhere but in rank 0's memory: not in other ranks (whose memory holds every
# message that they get), run folders, logs, cores, command lines, errors.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/integration/common.sh"
. "$tests/integration/agents.sh"
finder=$build/tests/test_find_in_memory
key=$TREX_TEST_KEY
part=${key:12:12} # errors may quote a key in parts
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY

nowhere() { # WHAT PATH...
    local what=$1 found
    shift
    found=$(grep -rlaF -- "$part" "$@" || true)
    [ -z "$found" ] || die "$what: the key is in" $found
    ok "$what: no key"
}

# ---- while it runs ----
mkdir replies
cat > replies/plan.json <<'J'
{"goal": "which rate", "expectation": "0.9", "rationale": "noise", "refuted_if": "below 0.6",
 "configs": [{"learning_rate": 0.0{{n}}, "max_steps": 40}, {"learning_rate": 0.00{{n}}, "max_steps": 40}]}
J
serve good --replies replies --files "$services"
export TREX_SOURCES_URL=http://127.0.0.1:$port
rounds=100000 make_agents_job ', "stall_seconds": 20, "timeout_seconds": 30, "ahead": false'
sed -i 's/"stall_seconds": 0.5, //; s/"timeout_seconds": 5, //' job.json

count() { cat run/journal*.jsonl 2> /dev/null | grep -c '"candidate_finished"' || true; }
start() { # begins or resumes the search on 3 ranks, until one more has finished; its launcher is then $launcher
    local before
    before=$(count)
    (ulimit -c unlimited 2> /dev/null; exec mpirun -n 3 "$trex" search job.json --verbose) > "search$((starts += 1)).txt" 2>&1 &
    launcher=$!
    for _ in $(seq 1200); do
        [ "$(count)" -le "$before" ] || return 0
        kill -0 "$launcher" 2> /dev/null || { cat "search$starts.txt"; die "the search has ended"; }
        sleep 0.1
    done
    cat "search$starts.txt"
    die "no candidate finishes"
}
rank_of() { tr '\0' '\n' < "/proc/$1/environ" 2> /dev/null | sed -nE 's/^(OMPI_COMM_WORLD_RANK|PMIX_RANK|PMI_RANK)=//p' | head -n 1; }
ours() { # every process of this program in this folder
    local entry
    for entry in /proc/[0-9]*; do
        [ "$(readlink "$entry/exe")" = "$trex" ] && [ "$(readlink "$entry/cwd")" = "$scratch" ] && echo "${entry#/proc/}"
    done 2> /dev/null || true
}
ranks() { # fills rank[0..2]
    local pid
    rank=()
    for pid in $(ours); do rank[$(rank_of "$pid")]=$pid; done
    [ "${#rank[@]}" = 3 ] || die "${#rank[@]} ranks were found: ${rank[*]}"
}
starts=0
start
ranks
code=0; "$finder" TREX_TEST_KEY "${rank[0]}" > where.txt || code=$?
if [ "$code" = 2 ]; then
    cat where.txt
    echo "skipped in part: memory of other processes cannot be read here"
else
    [ "$code" = 1 ] || { cat where.txt; die "the key is not found in rank 0 (code $code): it would be found nowhere"; }
    ok "the key is in the memory of rank 0"
    for n in 1 2; do
        code=0; "$finder" TREX_TEST_KEY "${rank[n]}" > where.txt || code=$?
        [ "$code" = 0 ] || { cat where.txt; die "the key is in the memory of rank $n (code $code)"; }
        ok "and nowhere in that of rank $n"
    done
fi
for entry in /proc/[0-9]*; do
    [[ $(readlink "$entry/cwd") == "$scratch"* ]] && tr '\0' ' ' < "$entry/cmdline" >> commands.txt && echo >> commands.txt
done 2> /dev/null || true
grep -q 'search job.json' commands.txt || die "no command line was read"
for n in 0 1 2; do tr '\0' '\n' < "/proc/${rank[n]}/environ" > "environment$n.txt"; done
grep -q . environment0.txt || die "no environment was read"
nowhere "command lines and environments while it runs" commands.txt environment?.txt

# ---- cores ----
mkdir cores
(cd cores && ulimit -c unlimited && { sh -c 'kill -ABRT $$' || true; }) > /dev/null 2>&1 || true
if [ -z "$(ls cores)" ]; then
    echo "skipped in part: no core is written into the working directory here"
    kill -TERM "$launcher"
    wait "$launcher" 2> /dev/null || true
else
    kill -ABRT "${rank[1]}"
    wait "$launcher" 2> /dev/null || true
    for _ in $(seq 600); do [ -n "$(ours)" ] || break; sleep 0.1; done
    [ -n "$(find . -maxdepth 1 -name 'core*' -type f)" ] || die "a worker that aborts leaves no core"
    nowhere "the core of a worker" $(find . -maxdepth 1 -name 'core*' -type f)
    rm -f core core.*
    start
    ranks
    kill -ABRT "${rank[0]}"
    wait "$launcher" 2> /dev/null || true
    for _ in $(seq 600); do [ -n "$(ours)" ] || break; sleep 0.1; done
    for core in $(find . -maxdepth 1 -name 'core*' -type f); do # others may leave one as they are ended
        [ "$(grep -caF -- "$part" "$core")" = 0 ] || die "rank 0 has left a core with the key in it"
    done
    ok "rank 0 leaves no core"
    rm -f core core.*
fi
grep -q 'writes no core dump' run/log.jsonl || die "the log does not say that rank 0 writes no core"
nowhere "a search that was killed" run search*.txt
kill "$server"; wait "$server" 2> /dev/null || true

# ---- errors ----
search() { # WHAT [NAME=VALUE...]: a short search, which ends well whatever its agents meet
    local what=$1
    shift
    rm -rf run
    env "$@" timeout 120 "$trex" search job.json --simulate 0.02 --verbose > out.txt 2>&1 || { cat out.txt; die "$what: exit code $?"; }
    nowhere "$what" run out.txt
}
refused() { # WHAT KEYS: a job that is refused without a word of what it holds
    local what=$1
    rm -rf run
    make_agents_job "$2"
    for command in "search" check relay prefetch; do
        expect 2 "${3-}" "$trex" "$command" job.json
        nowhere "$what, $command" out.txt
    done
    [ ! -e run ] || die "$what: a run folder was made"
}
echo '* echo' > faults.txt
serve echo --faults faults.txt --files "$services"
export TREX_SOURCES_URL=http://127.0.0.1:$port
rounds=1 make_agents_job
search "a 401 with the key in it"
grep -q 'HTTP 401' out.txt || die "there was no 401"
rm -rf run
"$trex" prefetch job.json --verbose > out.txt 2>&1 || true
grep -q 'HTTP 401' out.txt || { cat out.txt; die "prefetch met no 401"; }
nowhere "prefetch with a 401" run out.txt
make_agents_job ', "network": "relay"'
expect 0 'the key|key' "$trex" check job.json
nowhere "check" out.txt
mkdir -p run/relay/requests
cat > run/relay/requests/000000-0123456789abcdef.json <<'J'
{"id": "000000-0123456789abcdef", "key": "brief/1", "kind": "chat", "body": {"max_tokens": 50,
 "messages": [{"role": "user", "content": "hello"}]}}
J
expect 0 'HTTP 401' "$trex" relay job.json --once
nowhere "the relay with a 401" run out.txt

# Proxies with a password: one that refuses, one whose URL is none, one of a kind that nobody knows.
make_agents_job
for proxy in "http://user:$key@127.0.0.1:9" "user:$key@[::nonsense" "nonsense://user:$key@127.0.0.1:9" "http://user:$key@no-such-host.invalid"; do
    search "a proxy ${proxy/$key/...}" http_proxy="$proxy" https_proxy="$proxy" all_proxy="$proxy"
done
for site in hf_papers semantic_scholar openalex; do # each waits between its tries: side by side
    env HF_TOKEN="$key" S2_API_KEY="$key" OPENALEX_API_KEY="$key" http_proxy="http://user:$key@127.0.0.1:9" \
        "$trex" sources "$site" words --base-url "http://127.0.0.1:$port" > "$site.txt" 2>&1 & waiting+=($!)
    env HF_TOKEN="$key" S2_API_KEY="$key" OPENALEX_API_KEY="$key" "$trex" sources "$site" words \
        --base-url "http://127.0.0.1:9" > "$site.2.txt" 2>&1 & waiting+=($!)
done

url=http://127.0.0.1:$port/v1
refused "a password in the endpoint" ", \"others\": [{\"model\": \"m\", \"endpoint\": \"http://user:$key@127.0.0.1/v1\"}]" 'user name'
refused "a key in the endpoint's query" ", \"others\": [{\"model\": \"m\", \"endpoint\": \"$url?key=$key\"}]" 'may be a key'
refused "a key under another name" ", \"others\": [{\"model\": \"m\", \"endpoint\": \"$url?v=$key\"}]" 'may be a key'
refused "a key in place of the variable's name" ", \"others\": [{\"model\": \"m\", \"key_env\": \"$key\"}]" 'NAME'
refused "one of small letters" ", \"others\": [{\"model\": \"m\", \"key_env\": \"hf_${part}ABCDEF\"}]" 'NAME'
refused "a key of the job's own" ", \"api_key\": \"$key\"" 'unknown key'

wait "${waiting[@]}" || true
grep -q . hf_papers.txt || die "trex sources says nothing"
nowhere "trex sources" ./*.txt
echo "$passed passed, 0 failed"
