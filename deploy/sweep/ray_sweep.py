#!/usr/bin/env python3
"""A sweep on a Ray cluster: a task for each shard, and one table at the end.

Every task runs `tandem sweep --shards N --shard I`, which is all that there is to a shard; a task that Ray starts
again goes on where the last one was. The table is the one that a sweep on one machine makes, byte for byte.

    pip install 'ray[default]==2.60.0'
    ray_sweep.py --shards 64 --results results.parquet -- \
        --grid grid.toml --config backtest.toml --data /shared/archive --out /shared/out

Paths are those of the machines of the cluster: data and --out on storage that all of them see, and the binary at
the same place. --local N starts a cluster of N cores here instead of joining one (RAY_ADDRESS).
"""

import argparse
import json
import os
import socket
import subprocess
import sys

import ray

# A sweep that ended, and has runs that failed (5) or are void (1): its table says which.
DONE = (0, 1, 5)


def shard_of(tandem, sweep, shard, shards):
    """Runs one shard; returns what it says of itself."""
    command = [tandem, "sweep", *sweep, "--shards", str(shards), "--shard", str(shard), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode not in DONE or not done.stdout.strip():
        raise RuntimeError(f"shard {shard} of {shards}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    report = json.loads(done.stdout.strip().splitlines()[-1])
    return {**report, "exit": done.returncode, "worker": f"{socket.gethostname()}:{os.getpid()}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, required=True, help="how many tasks")
    parser.add_argument("--results", required=True, help="the table to make")
    parser.add_argument("--tandem", default="tandem", help="the binary, on every machine")
    parser.add_argument("--cores", type=int, default=1, help="cores of a task, and runs at a time in it")
    parser.add_argument("--local", type=int, default=0, metavar="N", help="a cluster of N cores on this machine")
    parser.add_argument("sweep", nargs="+", help="after --: what `tandem sweep` is told")
    args = parser.parse_args()
    if args.shards < 1 or args.cores < 1:
        parser.error("--shards and --cores are at least 1")
    told = [word for word in args.sweep if word.startswith("--out")]
    if len(told) != 1:
        parser.error("name one --out after the --")
    out = args.sweep[args.sweep.index("--out") + 1] if told[0] == "--out" else told[0].split("=", 1)[1]

    if args.local:
        ray.init(num_cpus=args.local, include_dashboard=False, log_to_driver=False)
    else:
        ray.init()
    # A task that is lost with its machine is started again: shards may be run any number of times.
    task = ray.remote(num_cpus=args.cores, max_retries=3)(shard_of)
    sweep = [*args.sweep, "--jobs", str(args.cores)]
    waiting = [task.remote(args.tandem, sweep, shard, args.shards) for shard in range(args.shards)]
    reports = []
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        reports.extend(ray.get(ready))
        print(f"shards: {len(reports)} of {args.shards}", file=sys.stderr)
    ray.shutdown()

    merge = [args.tandem, "sweep", "merge", "--force", "--json", "--out", args.results, out]
    merged = subprocess.run(merge, stdout=subprocess.PIPE, text=True)
    if merged.returncode not in DONE:
        sys.exit(merged.returncode)
    workers = sorted({report["worker"] for report in reports})
    print(json.dumps({"shards": args.shards, "workers": workers, "merged": json.loads(merged.stdout)}))
    sys.exit(merged.returncode)


if __name__ == "__main__":
    main()
