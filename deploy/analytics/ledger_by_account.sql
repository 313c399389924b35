-- Every posting summed: exact to the last unit, by venue, asset and account.
SELECT venue, asset, account, count(*) AS postings, sum(delta) AS delta
  FROM ledger
 GROUP BY ALL
 ORDER BY venue, asset, account;
