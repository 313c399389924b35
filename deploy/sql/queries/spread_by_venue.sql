-- Best bid and ask of a symbol at its venues, second by second.
-- try symbol = BTC/USD
-- try from = 2000-01-01
-- uses an index
SELECT at, venue, bid_px, ask_px, ask_px - bid_px AS spread, state
  FROM bbo_samples
 WHERE symbol = :'symbol' AND at >= :'from'
 ORDER BY at, venue
 LIMIT 1000;
