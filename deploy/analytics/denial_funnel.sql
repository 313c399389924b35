-- Why candidates were refused: how often, and the most that was left on the table.
SELECT verdict, denials_kind AS kind, asset, count(*) AS records, sum(times)::BIGINT AS times,
       max(net) AS best_net
  FROM denials
 GROUP BY ALL
 ORDER BY times DESC, verdict, kind, asset;
