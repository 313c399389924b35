-- Opportunities by pair, verdict and hour.
-- try from = 2000-01-01
-- try to = 2100-01-01
-- uses an index
SELECT date_trunc('hour', first_at) AS hour, pair, verdict, count(*) AS count,
       round(avg(net), 8) AS net_mean, max(net) AS net_max, asset,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY (last_ns - first_ns) / 1e6) AS life_ms_median
  FROM opportunities
 WHERE first_at >= :'from' AND first_at < :'to'
 GROUP BY 1, pair, verdict, asset
 ORDER BY 1, pair, verdict;
