-- Result of each day in the numeraire: as booked when rounds ended, and as marked.
SELECT day, asset, realised, marked, peak, rounds
  FROM pnl_day
 ORDER BY day, asset;
