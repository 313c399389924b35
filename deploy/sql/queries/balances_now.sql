-- What each venue last told of each asset, beside our own books.
-- uses an index
WITH known AS (SELECT DISTINCT venue, asset FROM pnl_venue_day WHERE venue <> 'none')
SELECT known.venue, known.asset, told.total, told.held, told.at AS told_at, own.after AS own
  FROM known
  LEFT JOIN LATERAL (
        SELECT total, held, at FROM balances b
         WHERE b.venue = known.venue AND b.asset = known.asset ORDER BY at DESC LIMIT 1) told ON true
  LEFT JOIN LATERAL (
        SELECT after FROM ledger l
         WHERE l.venue = known.venue AND l.asset = known.asset ORDER BY at DESC, seq DESC LIMIT 1) own ON true
 ORDER BY known.venue, known.asset;
