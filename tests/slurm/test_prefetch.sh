#!/usr/bin/env bash
# The way of a cluster whose compute nodes have no internet: brief, papers and data are looked up by a job on a node that
# has one, then the search is queued, and `trex relay` on a login node answers what it asks, over a requeue.
. "$(dirname "$0")/common.sh"
tests=$root/tests
. "$root/tests/integration/agents.sh"
start_cluster 1
mkdir replies
cat > replies/plan.json <<'J'
{"goal": "which rate {{n}}", "expectation": "0.95", "rationale": "still noise", "refuted_if": "below 0.7",
 "configs": [{"learning_rate": 0.01, "max_steps": 3{{n}}}, {"learning_rate": 0.003, "max_steps": 3{{n}}}]}
J
serve asked --replies replies --files "$services" --delay 0.2
export TREX_SOURCES_URL=http://127.0.0.1:$port
rounds=4 make_agents_job ', "network": "relay"'
sed -i 's/"stall_seconds": 0.5/"stall_seconds": 60/; s/"connect_seconds": 1/"connect_seconds": 60/
    s/"timeout_seconds": 5/"timeout_seconds": 60/; s/"limits": {/&"samples": 300, /' job.json

job=$(submit --ntasks=1 "$root/slurm/prefetch.sbatch" job.json)
expect_end "$job" 120 0 0
"$tree" show run --calls > calls.txt
grep -q 'brief/1 ' calls.txt || lost "$job" "no brief was written"
[ "$(finished run | wc -l)" = 0 ] || lost "$job" "something was trained"
prefetched=$(wc -l < asked.log)
ok "a job has asked $prefetched times before the search"

# The key is in the environment of the relay, and in none of the search's.
"$trex" relay job.json > relay.txt 2>&1 & relay=$!
job=$(unset TREX_TEST_KEY && submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json)
wait_until "$job" 120 "a candidate of a plan has finished" finished_more_than run 1
kept=$(finished run)
signal_limit "$job"
wait_until "$job" 60 "it starts again" restarted "$job" 1
expect_end "$job" 180 0 1
kill -TERM "$relay"
wait "$relay" || { cat relay.txt; die "the relay ended with another code than 0"; }
[ -z "$(comm -23 <(echo "$kept") <(finished run))" ] || lost "$job" "the requeue lost candidates"
[ "$(finished run | wc -l)" = 9 ] || lost "$job" "$(finished run | wc -l) candidates finished, not 9"
each_finished_once run
expect 0 'nothing is damaged' "$tree" verify run
ok "the search ends after a requeue, with all candidates"

"$tree" show run --calls --json > calls.json
state() { # STATE: chats in it
    awk -F'"' '$2 == "kind" { kind = $4 } $2 == "state" && kind == "chat" { print $4 }' calls.json | grep -cx "$1" || true
}
[ "$(state answered)" -gt "$prefetched" ] || { cat calls.txt; die "nothing was asked through the relay"; }
[ "$(wc -l < asked.log)" -ge "$(state answered)" ] && [ "$(wc -l < asked.log)" -le $(($(state answered) + $(state lost))) ] ||
    { cat relay.txt; die "$(wc -l < asked.log) chats were asked, $(state answered) are answered, $(state lost) lost"; }
[ "$(tail -n "+$((prefetched + 1))" asked.log | grep -cE '"name":"(brief|literature|reading|data|choice)"')" = 0 ] ||
    die "what was prefetched was asked for again"
ok "$(state answered) chats, none asked twice, $(state lost) given up at the end"
grep -q 'by openai scripted' < <("$tree" show run n0004) || die "the last plan is not the model's"
grep -q 'Comment=trex 4 of 4 rounds, best' < <(scontrol show job "$job") || lost "$job" "the job's comment is another"
expect 0 'finished' "$tree" status run
! grep -rqa "$TREX_TEST_KEY" run relay.txt trex-*.log || die "the key has leaked: $(grep -rla "$TREX_TEST_KEY" .)"
ok "comment and status say that it has ended, and the key is nowhere"
echo "$passed passed, 0 failed"
