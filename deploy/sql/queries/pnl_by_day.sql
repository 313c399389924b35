-- Result of each day, in the numeraire.
SELECT DISTINCT ON (day, asset) day, asset, realised, marked, peak, rounds
  FROM pnl_day
 ORDER BY day DESC, asset, told_at DESC;
