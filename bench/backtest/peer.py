"""hftbacktest of PyPI over the files that `backtest_peer convert` wrote: the loop of the Rust peer, compiled by
Numba before the clock starts. Its files are read as it goes. Prints one JSON object."""

import json
import sys
import time
from pathlib import Path

from hftbacktest import BacktestAsset, ROIVectorMarketDepthBacktest
from numba import njit

DAY_NS = 86_400_000_000_000


@njit
def loop(hbt):
    wakes, crossed = 0, 0
    # 1 is the end of the data.
    while hbt.wait_next_feed(True, DAY_NS) != 1:
        wakes += 1
        a, b = hbt.depth(0), hbt.depth(1)
        if a.best_ask * 1.0025 < b.best_bid * 0.9975 or b.best_ask * 1.0025 < a.best_bid * 0.9975:
            crossed += 1
    return wakes, crossed


def backtest(folder, meta, files=None):
    assets = []
    for at, of in enumerate(meta["assets"]):
        # By name: it reads them into memory of its own alignment.
        data = [str(folder / f"asset{at}-{file:05}.npy") for file in range(files or of["files"])]
        assets.append(
            BacktestAsset()
            .data(data)
            .linear_asset(1.0)
            .constant_order_latency(5_000_000, 5_000_000)
            .risk_adverse_queue_model()
            .partial_fill_exchange()
            .trading_value_fee_model(0.0, 0.0025)
            .tick_size(meta["tick"])
            .lot_size(meta["lot"])
            .roi_lb(of["px_min"])
            .roi_ub(of["px_max"])
        )
    return ROIVectorMarketDepthBacktest(assets)


def main():
    folder = Path(sys.argv[1])
    meta = json.loads((folder / "meta.json").read_text())
    warm = backtest(folder, meta, files=1)
    loop(warm)
    warm.close()
    hbt = backtest(folder, meta)
    wall, cpu = time.monotonic(), time.process_time()
    wakes, crossed = loop(hbt)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    hbt.close()
    print(json.dumps({"events": meta["events"], "wakes": int(wakes), "crossed": int(crossed), "seconds": wall, "cpu": cpu}))


if __name__ == "__main__":
    main()
