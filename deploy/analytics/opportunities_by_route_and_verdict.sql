-- What became of what was found, by route: taken, refused (and by what), or only seen.
SELECT opportunities_kind AS kind, path, asset,
       CASE WHEN round IS NOT NULL THEN 'taken' ELSE coalesce(denied_by, 'seen') END AS verdict,
       count(*) AS opportunities, sum(net) AS net, max(net) AS best_net,
       sum(after_net) AS net_one_latency_later
  FROM opportunities
 GROUP BY ALL
 ORDER BY opportunities DESC, kind, path, verdict;
