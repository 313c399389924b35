-- A view for every kind of an export; `SET VARIABLE lake = 'DIR'` comes before. DuckDB.
CREATE OR REPLACE VIEW level AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=level/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW clear AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=clear/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW bbo AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=bbo/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW trade AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=trade/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW book_state AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=book_state/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW depth AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=depth/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW record AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=record/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW runs AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=runs/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW instruments AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=instruments/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW assets AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=assets/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW opportunities AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=opportunities/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW opportunity_legs AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=opportunity_legs/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW denials AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=denials/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW rounds AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=rounds/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW round_stages AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=round_stages/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW round_legs AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=round_legs/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW orders AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=orders/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW order_events AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=order_events/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW fills AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=fills/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW balances AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=balances/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW ledger AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=ledger/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW pnl_day AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=pnl_day/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW pnl_venue_day AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=pnl_venue_day/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW audit AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=audit/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW venue_events AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=venue_events/*.parquet', hive_partitioning = true, union_by_name = true);
CREATE OR REPLACE VIEW bbo_samples AS SELECT * FROM read_parquet(
  getvariable('lake') || '/*/*/kind=bbo_samples/*.parquet', hive_partitioning = true, union_by_name = true);
