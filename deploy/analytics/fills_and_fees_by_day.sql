-- Volume and fees of each day by venue and instrument; what a venue took back counts as it is now.
SELECT day, venue, symbol, fee_asset, count(*) AS fills, sum(qty_is) AS qty,
       sum((px_is::DOUBLE) * (qty_is::DOUBLE)) AS volume, sum(fee_is) AS fees
  FROM (SELECT *,
               CASE WHEN bust_seq IS NULL THEN px ELSE px_now END AS px_is,
               CASE WHEN bust_seq IS NULL THEN qty ELSE qty_now END AS qty_is,
               CASE WHEN bust_seq IS NULL THEN fee ELSE fee_now END AS fee_is
          FROM fills)
 GROUP BY ALL
 ORDER BY day, venue, symbol, fee_asset;
