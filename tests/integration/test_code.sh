#!/usr/bin/env bash
# The operator `code`: rows by a program that somebody else wrote, which can do nothing but that.
. "$(dirname "$0")/common.sh"
[ -x /usr/bin/python3 ] || { echo "skipped: there is no /usr/bin/python3"; exit 77; }
make_task ', "researcher": {"code": true}'
mkdir box
"$trex" confine --folder "$scratch/box" -- true > out.txt 2>&1 || { cat out.txt; echo "skipped: this kernel cannot confine"; exit 77; }

code() { # PROGRAM: a recipe of that program alone
    python3 -c 'import json, sys; print(json.dumps([{"op": "code", "program": sys.argv[1]}]))' "$1"
}
keep='import sys, json
for line in sys.stdin:
    row = json.loads(line)
    if row["answer"] == "up":
        row["prompt"] = row["prompt"].upper()
        print(json.dumps(row))'
expect 0 'code .*rows in' "$trex" data job.json --recipe "$(code "$keep")" --out up.jsonl
grep -q '"answer": *"up"' up.jsonl || die "no row came back"
! grep -q '"answer": *"down"' up.jsonl || die "rows came back that were left out"
ok "a program's rows are the recipe's"

steal='import sys
print("{\"prompt\": \"" + open("'$scratch'/test.jsonl").read() + "\", \"answer\": \"up\"}")'
expect '[12]' 'Permission denied' "$trex" data job.json --recipe "$(code "$steal")" --out x.jsonl
call='import socket
socket.create_connection(("127.0.0.1", 80))'
expect '[12]' 'not permitted' "$trex" data job.json --recipe "$(code "$call")" --out x.jsonl
expect '[12]' 'line 1 of the program' "$trex" data job.json --recipe "$(code 'print("no row")')" --out x.jsonl
expect '[12]' 'allowed is a JSON object' "$trex" data job.json --recipe "$(code 'print("[1]")')" --out x.jsonl
expect '[12]' 'exit status 3' "$trex" data job.json --recipe "$(code 'raise SystemExit(3)')" --out x.jsonl
expect '[12]' 'it left none' "$trex" data job.json --recipe "$(code 'pass')" --out x.jsonl
expect '[12]' 'MiB' "$trex" data job.json --recipe "$(code 'while True: print("{\"prompt\": \"" + "x" * 900000 + "\"}")')" --out x.jsonl
expect '[12]' 'code: ' "$trex" data job.json --recipe "$(code 'bytearray(64 << 30)')" --out x.jsonl

make_task
expect '[12]' 'code is off' "$trex" data job.json --recipe "$(code "$keep")" --out x.jsonl
[ -z "$(find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'trex-code-*' -newer model)" ] || die "a program's folder was left behind"
ok "no folder is left behind"
echo "$passed checks passed"
