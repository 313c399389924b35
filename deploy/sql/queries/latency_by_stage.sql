-- Latency by stage over time.
-- try stage = engine_latency
-- try from = 2000-01-01
-- uses an index
-- may be empty
SELECT started_at, process, stage, unit, count, p50, p99, p999, max
  FROM latency_intervals
 WHERE stage = :'stage' AND started_at >= :'from'
 ORDER BY started_at, process;
