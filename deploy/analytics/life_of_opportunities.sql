-- How long opportunities lived, first to last moment, in milliseconds: quantiles by kind.
SELECT opportunities_kind AS kind, count(*) AS opportunities,
       quantile_cont(ms, 0.1) AS p10_ms, quantile_cont(ms, 0.5) AS p50_ms,
       quantile_cont(ms, 0.9) AS p90_ms, quantile_cont(ms, 0.99) AS p99_ms, max(ms) AS longest_ms
  FROM (SELECT *, (epoch_ns(last_at) - epoch_ns(first_at)) / 1e6 AS ms
          FROM opportunities
         WHERE closed)
 GROUP BY ALL
 ORDER BY kind;
