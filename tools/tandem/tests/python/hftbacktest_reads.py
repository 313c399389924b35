"""Reads an array as hftbacktest does: its own validation, then its own engine to the end; prints the last book.

    hftbacktest_reads.py NPZ TICK LOT
"""

import json
import sys

import numpy as np
from hftbacktest.data import validate_event_order
from hftbacktest.data.utils.snapshot import create_last_snapshot
from hftbacktest.types import BUY_EVENT, EXCH_EVENT, LOCAL_EVENT, TRADE_EVENT, event_dtype


def main():
    path, tick, lot = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    data = np.load(path)["data"]
    assert data.dtype == event_dtype, data.dtype
    validate_event_order(data)
    ev = data["ev"]
    counts = {
        "rows": len(data),
        "exch": int(np.sum(ev & EXCH_EVENT == EXCH_EVENT)),
        "local": int(np.sum(ev & LOCAL_EVENT == LOCAL_EVENT)),
        "trades": int(np.sum((ev & 0xFF == TRADE_EVENT) & (ev & LOCAL_EVENT == LOCAL_EVENT))),
    }
    book = [[], []]
    for row in create_last_snapshot([path], tick, lot):
        side = 0 if row["ev"] & BUY_EVENT == BUY_EVENT else 1
        book[side].append([float(row["px"]), float(row["qty"])])
    print(json.dumps({"counts": counts, "book": book}))


main()
