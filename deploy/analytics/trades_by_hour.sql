-- What the market traded, by venue, instrument and hour.
SELECT venue, symbol, date_trunc('hour', moment) AS hour, count(*) AS trades, sum(qty) AS qty,
       sum(notional) AS notional, sum(qty) FILTER (WHERE taken = 'ask') AS bought
  FROM trade
 GROUP BY ALL
 ORDER BY hour, venue, symbol;
