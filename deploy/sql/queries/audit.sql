-- What operators and controls did.
-- try from = 2000-01-01
SELECT at, kind, what, cause, venue, symbol, value, details
  FROM audit
 WHERE at >= :'from'
 ORDER BY at, seq;
