-- Mean, median and widest spread of live books, in basis points of the middle, by venue and hour.
SELECT venue, symbol, date_trunc('hour', moment) AS hour, count(*) AS samples,
       avg(bps) AS mean_bps, median(bps) AS median_bps, max(bps) AS widest_bps
  FROM (SELECT *, 20000 * (ask_px - bid_px)::DOUBLE / (ask_px + bid_px)::DOUBLE AS bps
          FROM depth
         WHERE state = 'live' AND bid_px < ask_px)
 GROUP BY ALL
 ORDER BY hour, venue, symbol;
