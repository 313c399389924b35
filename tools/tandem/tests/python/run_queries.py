"""Runs every query of a folder over an export in Parquet; prints their columns and rows as one JSON object.

    run_queries.py LAKE FOLDER
"""

import decimal
import json
import pathlib
import sys

import duckdb


def plain(value):
    """Amounts, moments and days as text: JSON would round or refuse them."""
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def main():
    lake, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET VARIABLE lake = $lake", {"lake": lake})
    connection.execute((folder / "views.sql").read_text())
    found = {}
    for path in sorted(folder.glob("*.sql")):
        if path.stem == "views":
            continue
        result = connection.execute(path.read_text())
        columns = [column[0] for column in result.description]
        rows = [[plain(value) for value in row] for row in result.fetchall()]
        found[path.stem] = {"columns": columns, "rows": rows}
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    count = lambda view: connection.execute(f"SELECT count(*) FROM {view}").fetchone()[0]
    found["views"] = {view: count(view) for (view,) in views}
    print(json.dumps(found))


main()
