-- The rounds that took longest.
-- uses an index
SELECT run, round, opened_at, stage, pair, venues, duration_ns / 1e6 AS ms, hedges, realised, asset
  FROM rounds
 ORDER BY duration_ns DESC
 LIMIT 50;
