-- Rounds by pair: the edge that was expected beside the one that was realised, in the round's asset.
SELECT pair, venues, asset, count(*) AS rounds, sum(expected) AS expected,
       sum(realised) AS realised, sum(worth) AS worth, numeraire, sum(hedges)::BIGINT AS hedges,
       quantile_cont(duration_ns, 0.5) / 1e6 AS p50_ms
  FROM rounds
 GROUP BY ALL
 ORDER BY rounds DESC, pair, venues, asset;
