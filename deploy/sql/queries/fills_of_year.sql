-- Every fill of a year as the venue holds it now: for the tax office.
-- try from = 2000-01-01
-- try to = 2100-01-01
-- uses an index
SELECT told_at, venue, symbol, action, qty, px, qty * px AS worth, quote, fee, fee_asset, trade_id, client_order_id
  FROM fills_now
 WHERE told_at >= :'from' AND told_at < :'to'
 ORDER BY told_at, venue, trade_id;
