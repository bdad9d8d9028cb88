#!/bin/sh
# `make run`: three nodes on this machine, each tells the next one something, and both ends can prove it.
# The nodes are real daemons with their own keys, logs and directories under build/demo, on loopback addresses that
# neither a msgd of this machine nor another lab uses.
set -eu
msgctl=$1
export MSGD_LAB_DIR="$PWD/build/demo" MSGD_LAB_NET=127.67.43.

bold='' plain=''
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi

say() {
    printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

show() {    # a command as a person would type it, and what it prints
    line='$ msgctl'
    for word; do
        case $word in *' '*) line="$line '$word'" ;; *) line="$line $word" ;; esac
    done
    echo "$line"
    "$msgctl" "$@"
}

mkdir -p "$MSGD_LAB_DIR"
trap '"$msgctl" lab down >/dev/null 2>&1 || true; rm -rf "$MSGD_LAB_DIR"' EXIT
"$msgctl" lab down >/dev/null 2>&1 || true    # of an earlier run that was cut short

say "Three nodes start, each with its own identity; every pair of them is paired."
show lab up 3
show --node node1 status

say "Every node sends to the next. 'stored' means: it is on the other node's disk, and here is its receipt."
show --node node1 send node2 --wait=stored "Good morning, node2"
show --node node2 send node3 --wait=stored "node1 says good morning"
show --node node3 send node1 --wait=stored "Good morning to you, too"

say "The history as node1 keeps it ..."
show --node node1 log
say "... and the part of it that node2 keeps: the same messages, the same bytes."
show --node node2 log

say "The nodes stop. Nothing of them stays on this machine."
show lab down
