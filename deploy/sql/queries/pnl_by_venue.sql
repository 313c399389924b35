-- What trading moved at each venue on each day, by asset: flows and fees, not marked.
-- try from = 2000-01-01
-- uses an index
SELECT day, venue, asset,
       sum(amount) FILTER (WHERE account IN ('trade', 'bust')) AS traded,
       sum(amount) FILTER (WHERE account = 'fee') AS fees,
       sum(amount) FILTER (WHERE account IN ('opening', 'carried', 'external', 'dust')) AS other
  FROM pnl_venue_day
 WHERE day >= :'from'
 GROUP BY day, venue, asset
 ORDER BY day DESC, venue, asset;
