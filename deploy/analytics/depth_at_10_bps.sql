-- What rests within 10 basis points of the middle, by venue and instrument: mean and least, in quote.
SELECT venue, symbol, count(*) AS samples,
       avg(bid_notional_10bps::DOUBLE) AS bids, min(bid_notional_10bps) AS bids_least,
       avg(ask_notional_10bps::DOUBLE) AS asks, min(ask_notional_10bps) AS asks_least
  FROM depth
 WHERE state = 'live' AND bid_notional_10bps IS NOT NULL
 GROUP BY ALL
 ORDER BY venue, symbol;
