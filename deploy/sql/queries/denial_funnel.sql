-- Why candidates were refused, by verdict and control.
-- try from = 2000-01-01
-- try to = 2100-01-01
SELECT verdict, kind, sum(times) AS candidates, count(*) AS told, max(net) AS net_best, asset
  FROM denials
 WHERE at >= :'from' AND at < :'to'
 GROUP BY verdict, kind, asset
 ORDER BY candidates DESC;
