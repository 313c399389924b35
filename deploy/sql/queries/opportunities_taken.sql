-- What was expected of what was taken, and what it gave.
-- try pair = BTC/USD
-- uses an index
-- may be empty
SELECT o.first_at, o.pair, o.venues, o.net AS expected, r.realised, r.asset, r.stage, r.duration_ns / 1e6 AS ms
  FROM opportunities o
  JOIN rounds r ON r.journal = o.journal AND r.run = o.run AND r.round = o.round
 WHERE o.pair = :'pair' AND o.verdict = 'taken'
 ORDER BY o.first_at DESC
 LIMIT 100;
