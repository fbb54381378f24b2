#!/usr/bin/env bash
# Two nodes on one machine: trains on two ranks that reach each other over a network only, and compares with one rank.
#
# Each node is a network namespace of its own; a pair of virtual cables joins them, and nothing else does. torchrun
# meets over that cable, and so do gloo's sums. The nodes share neither runs/ nor the cache. Needs Linux, root and ip.
#
#   sudo PYTHON=.venv/bin/python tools/two_nodes.sh [ddp|fsdp]

set -euo pipefail

parallel=${1:-ddp}
python=$(realpath --no-symlinks "${PYTHON:-.venv/bin/python}")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
name=glassgpt$$
nodes=("$name-0" "$name-1")

end() {
  for node in "${nodes[@]}"; do
    ip netns pids "$node" 2>/dev/null | xargs --no-run-if-empty kill 2>/dev/null || true
    ip netns delete "$node" 2>/dev/null || true # its end of the cable goes with it
  done
  rm -rf "$work"
}
trap end EXIT

for node in "${nodes[@]}"; do ip netns add "$node"; done
ip link add eth-a netns "${nodes[0]}" type veth peer name eth-b netns "${nodes[1]}"
ip -n "${nodes[0]}" address add 10.77.0.1/24 dev eth-a
ip -n "${nodes[1]}" address add 10.77.0.2/24 dev eth-b
for node in "${nodes[@]}"; do ip -n "$node" link set lo up; done
ip -n "${nodes[0]}" link set eth-a up
ip -n "${nodes[1]}" link set eth-b up

export PYTHONPATH=$root OMP_NUM_THREADS=1
settings=(char-tiny --data python-manual --max-steps 20 --set model.n_layer=2 --set model.n_embd=64 --set evaluation.every=10
  --set evaluation.sample_every=0 --set schedule.warmup_steps=10)

run_node() { # number, network interface
  mkdir "$work/node-$1" && cd "$work/node-$1"
  GLASSGPT_CACHE=$work/cache-$1 GLOO_SOCKET_IFNAME=$2 ip netns exec "${nodes[$1]}" \
    "$python" -m torch.distributed.run --nnodes 2 --node-rank "$1" --nproc-per-node 1 \
    --master-addr 10.77.0.1 --master-port 29400 --local-addr "10.77.0.$(($1 + 1))" \
    -m glassgpt -- train "${settings[@]}" --run two --parallel "$parallel"
}

run_node 1 eth-b >"$work/second" 2>&1 &
second=$!
run_node 0 eth-a
wait "$second" || { cat "$work/second" >&2; exit 1; }
[ ! -e "$work/node-1/runs" ] || { echo "the second node has written a run" >&2; exit 1; }
ip netns exec "${nodes[0]}" cat /sys/class/net/eth-a/statistics/tx_bytes >"$work/bytes-a"
ip netns exec "${nodes[1]}" cat /sys/class/net/eth-b/statistics/tx_bytes >"$work/bytes-b"

cd "$work/node-0"
GLASSGPT_CACHE=$work/cache-0 "$python" -m glassgpt train "${settings[@]}" --run one >/dev/null 2>&1
"$python" - "$work" "$parallel" <<'PYTHON'
import json, pathlib, sys

work, parallel = pathlib.Path(sys.argv[1]), sys.argv[2]
one, two = (
    [json.loads(line) for line in (work / "node-0/runs" / run / "metrics.jsonl").open()] for run in ("one", "two")
)
assert [line["step"] for line in one] == [line["step"] for line in two]
names = ("train/loss", "val/loss", "best/val/loss")
worst = max(abs(a[name] - b[name]) for a, b in zip(one, two) for name in names if name in a)
sent = " and ".join(f"{int((work / f'bytes-{end}').read_text()) / 1e6:.1f}" for end in "ab")
print(f"two nodes with {parallel}: losses of {two[-1]['step']} steps within {worst:.1e} of one rank's; {sent} MB sent")
sys.exit(worst > 1e-5)
PYTHON
