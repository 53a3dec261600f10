#!/usr/bin/env bash
# Planning ahead: a language model whose every reply takes a quarter of a candidate's time, four of them one after the
# other for each round, and eight workers that are busy all the same; the same without planning ahead beside it. Workers
# and model sleep: a small machine will do.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/integration/common.sh"
for program in bench_utilisation test_lm_server; do
    [ -x "$build/tests/$program" ] || { echo "skipped: $build/tests/$program is not built"; exit 77; }
done

measure() { # AHEAD FILE
    BUILD=$build "$tests/bench/utilisation" 8 4 1 "$1" > "$2" 2> "$2.err"
}
busy() { # FILE
    sed -n 's/.*"utilisation":\([0-9.]*\).*/\1/p' "$1"
}
measure false without.txt &
for try in 1 2 3; do
    measure true with.txt || { cat with.txt.err; die "no utilisation"; }
    cat with.txt
    ahead=$(busy with.txt)
    awk -v busy="$ahead" 'BEGIN { exit busy < 0.97 }' && break
    ahead= # a neighbour on this machine, perhaps
done
wait $! || { cat without.txt.err; die "no utilisation without planning ahead"; }
cat without.txt
[ -n "$ahead" ] || die "less than 97 % busy in three tries"
ok "planned ahead, 8 workers are $ahead busy"
awk -v with="$ahead" -v without="$(busy without.txt)" 'BEGIN { exit without > with - 0.1 }' ||
    die "planning ahead makes no difference: $ahead, $(busy without.txt) without"
ok "without planning ahead they are $(busy without.txt) busy"
echo "$passed passed, 0 failed"
