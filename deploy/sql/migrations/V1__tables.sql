-- Tables of what the journal tells: written by the drain, read by people, reports and dashboards.
--
-- Every row of a journal carries the journal's uuid and the sequence of the record that made it. Times are
-- UTC; where a microsecond is too coarse the nanoseconds stand beside it (`..._ns`, UNIX). Money is exact
-- decimals. Tables that grow with the market are partitioned by day: the drain has partitions made ahead
-- (ensure_partitions), what is of another day goes to the default partition. Orders, rounds and fills grow
-- with trading alone and are kept for the tax office: they are in one piece.
--
-- Run it by `tandem postgres migrate` (or the drain with `migrate = true`), as the owner, in the schema that
-- is first in search_path. Roles are groups: tandem_drain writes, tandem_read reads.

CREATE TABLE journals (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    first_seen timestamptz NOT NULL,
    PRIMARY KEY (journal)
);
COMMENT ON TABLE journals IS 'Journals that were drained.';

CREATE TABLE runs (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    run bigint NOT NULL,
    mode text NOT NULL,
    started_at timestamptz NOT NULL,
    started_ns bigint NOT NULL,
    numeraire text,
    instruments integer NOT NULL,
    cycles integer NOT NULL,
    config_hash text NOT NULL,
    PRIMARY KEY (journal, seq)
);
COMMENT ON TABLE runs IS 'Runs of the engine.';

CREATE TABLE configuration (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    run bigint NOT NULL,
    hash text NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (journal, seq)
);
COMMENT ON TABLE configuration IS 'What each run was configured with: JSON as text.';

CREATE TABLE instruments (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    run bigint NOT NULL,
    instrument integer NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    base text NOT NULL,
    quote text NOT NULL,
    px_exponent smallint NOT NULL,
    qty_exponent smallint NOT NULL,
    tick numeric NOT NULL,
    lot numeric NOT NULL,
    qty_min numeric NOT NULL,
    qty_max numeric NOT NULL,
    notional_min numeric NOT NULL,
    notional_max numeric NOT NULL,
    taker_fee_ppm integer NOT NULL,
    status text NOT NULL,
    PRIMARY KEY (journal, seq, instrument)
);
COMMENT ON TABLE instruments IS 'Instruments of each run.';

CREATE TABLE assets (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    run bigint NOT NULL,
    asset integer NOT NULL,
    name text NOT NULL,
    exponent smallint NOT NULL,
    PRIMARY KEY (journal, seq, asset)
);
COMMENT ON TABLE assets IS 'Assets of each run.';

CREATE TABLE opportunities (
    journal uuid NOT NULL,
    run bigint NOT NULL,
    opportunity bigint NOT NULL,
    first_at timestamptz NOT NULL,
    first_ns bigint NOT NULL,
    seq bigint NOT NULL,
    seq_last bigint NOT NULL,
    kind text NOT NULL,
    cycle bigint NOT NULL,
    asset text NOT NULL,
    pair text NOT NULL,
    venues text NOT NULL,
    path text NOT NULL,
    phase text,
    best boolean,
    net numeric,
    spent numeric,
    brought numeric,
    gross_ppb bigint,
    buffers_ppm bigint,
    age_ns bigint,
    best_at timestamptz,
    best_ns bigint,
    last_at timestamptz,
    last_ns bigint,
    times bigint,
    after_net numeric,
    closed boolean,
    round bigint,
    denied_by text,
    denied_times bigint,
    denied_observed bigint,
    denied_limit bigint,
    verdict text NOT NULL GENERATED ALWAYS AS (
        CASE WHEN round IS NOT NULL THEN 'taken'
             WHEN denied_by IS NOT NULL THEN 'denied'
             WHEN closed THEN 'lost'
             ELSE 'open' END) STORED,
    PRIMARY KEY (journal, run, opportunity, first_at)
) PARTITION BY RANGE (first_at);
CREATE TABLE opportunities_default PARTITION OF opportunities DEFAULT;
CREATE INDEX opportunities_pair_verdict_first_at ON opportunities (pair, verdict, first_at);
CREATE INDEX opportunities_verdict_first_at ON opportunities (verdict, first_at);
COMMENT ON TABLE opportunities IS 'What paid, from its first moment to its last, and what became of it.';

CREATE TABLE opportunity_legs (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    run bigint NOT NULL,
    opportunity bigint NOT NULL,
    phase text NOT NULL,
    leg smallint NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    action text NOT NULL,
    px numeric NOT NULL,
    qty numeric NOT NULL,
    best_px numeric NOT NULL,
    levels bigint NOT NULL,
    update_id numeric NOT NULL,
    book_at timestamptz,
    book_ns bigint,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE opportunity_legs_default PARTITION OF opportunity_legs DEFAULT;
CREATE INDEX opportunity_legs_run_opportunity ON opportunity_legs (run, opportunity);
COMMENT ON TABLE opportunity_legs IS 'The orders that would take an opportunity, each time they were told.';

CREATE TABLE denials (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    run bigint NOT NULL,
    verdict text NOT NULL,
    kind text NOT NULL,
    cycle bigint,
    asset text NOT NULL,
    pair text,
    venues text,
    path text,
    times bigint NOT NULL,
    net numeric NOT NULL,
    spent numeric NOT NULL,
    gross_ppb bigint NOT NULL,
    buffers_ppm bigint NOT NULL,
    age_ns bigint NOT NULL,
    control smallint,
    venue text,
    symbol text,
    observed bigint,
    limit_value bigint,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE denials_default PARTITION OF denials DEFAULT;
CREATE INDEX denials_verdict_at ON denials (verdict, at);
COMMENT ON TABLE denials IS 'Candidates that were refused, with the numbers behind it.';

CREATE TABLE rounds (
    journal uuid NOT NULL,
    run bigint NOT NULL,
    round bigint NOT NULL,
    seq bigint NOT NULL,
    seq_last bigint NOT NULL,
    opportunity bigint,
    stage text NOT NULL,
    orphan boolean NOT NULL,
    cycle bigint,
    kind text,
    asset text NOT NULL,
    pair text,
    venues text,
    numeraire text NOT NULL,
    expected numeric NOT NULL,
    realised numeric NOT NULL,
    worth numeric NOT NULL,
    hedges bigint NOT NULL,
    opened_at timestamptz NOT NULL,
    opened_ns bigint NOT NULL,
    settled_at timestamptz,
    settled_ns bigint,
    duration_ns bigint NOT NULL,
    legs_filled smallint NOT NULL,
    legs_partial smallint NOT NULL,
    legs_empty smallint NOT NULL,
    PRIMARY KEY (journal, run, round)
);
CREATE INDEX rounds_opened_at ON rounds (opened_at);
CREATE INDEX rounds_duration_ns ON rounds (duration_ns DESC);
COMMENT ON TABLE rounds IS 'Arbitrages that were tried.';

CREATE TABLE round_stages (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    run bigint NOT NULL,
    round bigint NOT NULL,
    stage text NOT NULL,
    realised numeric NOT NULL,
    worth numeric NOT NULL,
    hedges bigint NOT NULL,
    duration_ns bigint NOT NULL,
    PRIMARY KEY (journal, seq)
);
CREATE INDEX round_stages_run_round ON round_stages (run, round);
COMMENT ON TABLE round_stages IS 'The time line of rounds.';

CREATE TABLE round_legs (
    journal uuid NOT NULL,
    run bigint NOT NULL,
    round bigint NOT NULL,
    leg smallint NOT NULL,
    seq bigint NOT NULL,
    seq_last bigint NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    action text NOT NULL,
    px numeric NOT NULL,
    qty numeric NOT NULL,
    filled numeric NOT NULL,
    PRIMARY KEY (journal, run, round, leg)
);
COMMENT ON TABLE round_legs IS 'Entry legs of rounds, planned and filled.';

CREATE TABLE orders (
    journal uuid NOT NULL,
    run bigint NOT NULL,
    order_key bigint NOT NULL,
    seq bigint NOT NULL,
    seq_last bigint NOT NULL,
    round bigint NOT NULL,
    n integer NOT NULL,
    client_order_id text NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    action text,
    px numeric,
    qty numeric,
    tif text,
    purpose text,
    opportunity bigint,
    made_at timestamptz,
    made_ns bigint,
    expires_at timestamptz,
    sent_at timestamptz,
    sent_ns bigint,
    acked_at timestamptz,
    acked_ns bigint,
    venue_order_id text,
    cancel_at timestamptz,
    end_state text,
    end_class text,
    end_code bigint,
    ended_at timestamptz,
    ended_ns bigint,
    done_qty numeric,
    totals_qty numeric,
    totals_cost numeric,
    totals_fee numeric,
    totals_fee_asset text,
    unknown_count bigint,
    PRIMARY KEY (journal, run, order_key)
);
CREATE INDEX orders_client_order_id ON orders (client_order_id);
CREATE INDEX orders_made_at ON orders (made_at);
COMMENT ON TABLE orders IS 'Orders, with everything that was said about them.';

CREATE TABLE order_events (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    run bigint NOT NULL,
    order_key bigint NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    event text NOT NULL,
    detail text,
    code bigint,
    qty numeric,
    px numeric,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE order_events_default PARTITION OF order_events DEFAULT;
CREATE INDEX order_events_run_order_key ON order_events (run, order_key);
COMMENT ON TABLE order_events IS 'The time line of orders: intents, requests, reports.';

CREATE TABLE fills (
    journal uuid NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    trade_id numeric NOT NULL,
    seq bigint NOT NULL,
    seq_last bigint NOT NULL,
    run bigint NOT NULL,
    order_key bigint NOT NULL,
    round bigint NOT NULL,
    client_order_id text NOT NULL,
    base text,
    quote text,
    fill_seq bigint,
    told_at timestamptz,
    told_ns bigint,
    px numeric,
    qty numeric,
    fee numeric,
    fee_asset text,
    times_told bigint,
    bust_seq bigint,
    bust_at timestamptz,
    busted boolean,
    px_now numeric,
    qty_now numeric,
    fee_now numeric,
    fee_asset_now text,
    PRIMARY KEY (journal, venue, symbol, trade_id)
);
CREATE INDEX fills_told_at ON fills (told_at);
CREATE INDEX fills_client_order_id ON fills (client_order_id);
COMMENT ON TABLE fills IS 'Fills, each once by the venue''s trade id; what a venue took back or corrected beside what it told.';

CREATE TABLE balances (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    venue text NOT NULL,
    asset text NOT NULL,
    total numeric NOT NULL,
    held numeric NOT NULL,
    source text NOT NULL,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE balances_default PARTITION OF balances DEFAULT;
CREATE INDEX balances_venue_asset_at ON balances (venue, asset, at DESC);
COMMENT ON TABLE balances IS 'What venues told of our balances.';

CREATE TABLE ledger (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    run bigint NOT NULL,
    order_key bigint,
    venue text,
    asset text NOT NULL,
    delta numeric NOT NULL,
    after numeric NOT NULL,
    account text NOT NULL,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE ledger_default PARTITION OF ledger DEFAULT;
CREATE INDEX ledger_venue_asset_at ON ledger (venue, asset, at DESC);
COMMENT ON TABLE ledger IS 'Postings of our own books.';

CREATE TABLE pnl_day (
    journal uuid NOT NULL,
    day date NOT NULL,
    asset text NOT NULL,
    seq bigint NOT NULL,
    seq_last bigint NOT NULL,
    realised numeric NOT NULL,
    marked numeric NOT NULL,
    peak numeric NOT NULL,
    rounds bigint NOT NULL,
    told_at timestamptz NOT NULL,
    PRIMARY KEY (journal, day, asset)
);
CREATE INDEX pnl_day_day ON pnl_day (day);
COMMENT ON TABLE pnl_day IS 'Result of each day, in the numeraire.';

CREATE TABLE pnl_venue_day (
    journal uuid NOT NULL,
    day date NOT NULL,
    venue text NOT NULL,
    asset text NOT NULL,
    account text NOT NULL,
    seq bigint NOT NULL,
    seq_last bigint NOT NULL,
    amount numeric NOT NULL,
    postings bigint NOT NULL,
    PRIMARY KEY (journal, day, venue, asset, account)
);
CREATE INDEX pnl_venue_day_day_venue ON pnl_venue_day (day, venue);
COMMENT ON TABLE pnl_venue_day IS 'What moved at each venue on each day, by asset and account of the ledger: sums of postings, not marked.';

CREATE TABLE audit (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    kind text NOT NULL,
    venue text,
    symbol text,
    what text NOT NULL,
    cause text,
    value bigint,
    details jsonb,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE audit_default PARTITION OF audit DEFAULT;
CREATE INDEX audit_kind_at ON audit (kind, at);
COMMENT ON TABLE audit IS 'Decisions about what is allowed, and operators'' acts.';

CREATE TABLE venue_events (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    venue text,
    symbol text,
    kind text NOT NULL,
    what text NOT NULL,
    reason text,
    code bigint,
    value bigint,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE venue_events_default PARTITION OF venue_events DEFAULT;
CREATE INDEX venue_events_venue_kind_at ON venue_events (venue, kind, at);
COMMENT ON TABLE venue_events IS 'Changes of venues, sessions, books, rules, fees and clocks.';

CREATE TABLE latency_intervals (
    process text NOT NULL,
    generation bigint NOT NULL,
    stage text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    unit text NOT NULL,
    count bigint NOT NULL,
    sum numeric NOT NULL,
    p50 bigint NOT NULL,
    p99 bigint NOT NULL,
    p999 bigint NOT NULL,
    max bigint NOT NULL,
    PRIMARY KEY (process, generation, stage, started_at)
) PARTITION BY RANGE (started_at);
CREATE TABLE latency_intervals_default PARTITION OF latency_intervals DEFAULT;
CREATE INDEX latency_intervals_stage_started_at ON latency_intervals (stage, started_at);
COMMENT ON TABLE latency_intervals IS 'Latency by process, stage and interval, read from shared memory.';

CREATE TABLE bbo_samples (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    at_ns bigint NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    bid_px numeric,
    bid_qty numeric,
    ask_px numeric,
    ask_qty numeric,
    state text NOT NULL,
    PRIMARY KEY (journal, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE bbo_samples_default PARTITION OF bbo_samples DEFAULT;
CREATE INDEX bbo_samples_symbol_venue_at ON bbo_samples (symbol, venue, at);
COMMENT ON TABLE bbo_samples IS 'Best bid and ask, at most one a second and instrument.';

CREATE TABLE journal_gaps (
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    to_seq bigint NOT NULL,
    lost bigint NOT NULL,
    at timestamptz NOT NULL,
    why text NOT NULL,
    PRIMARY KEY (journal, seq)
);
COMMENT ON TABLE journal_gaps IS 'Records of a journal that could not be drained.';

CREATE TABLE dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal uuid NOT NULL,
    seq bigint NOT NULL,
    table_name text NOT NULL,
    sqlstate text NOT NULL,
    error text NOT NULL,
    payload text NOT NULL,
    tries smallint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dead_letter IS 'Rows that the database refused, with why: the payload is JSON in ASCII.';

CREATE TABLE drain_cursor (
    stream text PRIMARY KEY,
    journal uuid NOT NULL,
    next_seq bigint NOT NULL,
    last_ns bigint NOT NULL,
    state bytea NOT NULL,
    run_text text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE drain_cursor IS 'How far the journal is drained; written in the same transaction as the rows.';

-- A fill once, as it is now: what a venue took back is left out, what it corrected is corrected; the same
-- fill told to two journals counts once. The order's action is beside it.
CREATE VIEW fills_now AS
SELECT DISTINCT ON (f.venue, f.symbol, f.trade_id, f.client_order_id)
       f.journal, f.seq, f.told_at, f.told_ns, f.venue, f.symbol, f.base, f.quote, f.trade_id, f.run, f.round,
       f.order_key, f.client_order_id, o.action, o.purpose,
       coalesce(f.px_now, f.px) AS px, coalesce(f.qty_now, f.qty) AS qty,
       coalesce(f.fee_now, f.fee) AS fee, coalesce(f.fee_asset_now, f.fee_asset) AS fee_asset
  FROM fills f
  LEFT JOIN LATERAL (
        SELECT action, purpose FROM orders o
         WHERE o.client_order_id = f.client_order_id AND o.action IS NOT NULL LIMIT 1) o ON true
 WHERE f.fill_seq IS NOT NULL AND f.busted IS DISTINCT FROM true
 ORDER BY f.venue, f.symbol, f.trade_id, f.client_order_id, f.told_at;
COMMENT ON VIEW fills_now IS 'Fills as they are now, each once.';

-- What runs as the owner below looks for names here and in pg_catalog, and in nobody's temporary schema before
-- those: a temporary table of a caller's that is called like one of ours is not ours.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- Partitions of these days for every partitioned table of this schema. Run as the owner on behalf of the drain,
-- which may not create anything itself: only whole days, only of tables that are here, at most forty.
CREATE FUNCTION ensure_partitions(first date, days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    parent record;
    day date;
    made integer := 0;
    part text;
BEGIN
    IF days < 1 OR 40 < days THEN
        RAISE EXCEPTION 'ensure_partitions: between 1 and 40 days, not %', days;
    END IF;
    IF first < current_date - 400 OR current_date + 10 < first + days - 1 THEN
        RAISE EXCEPTION 'ensure_partitions: % is too far from today', first;
    END IF;
    FOR parent IN
        SELECT c.relname AS name FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
         WHERE c.relnamespace = current_schema()::regnamespace ORDER BY 1
    LOOP
        FOR offs IN 0 .. days - 1 LOOP
            day := first + offs;
            part := parent.name || '_p' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(quote_ident(part)) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    part, parent.name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
                EXECUTE format('GRANT SELECT ON %I TO tandem_drain, tandem_read', part);
                made := made + 1;
            EXCEPTION
                -- Rows of that day are in the default partition already: they stay there with the rest of it.
                WHEN check_violation THEN NULL;
                WHEN duplicate_table THEN NULL;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- For the owner alone: drops partitions that end before a day. Fills, orders, rounds and results are in no
-- partition and stay.
CREATE FUNCTION drop_partitions(before date) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    part record;
    dropped integer := 0;
BEGIN
    FOR part IN
        SELECT c.relname AS name FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_partitioned_table p ON p.partrelid = i.inhparent
         WHERE c.relnamespace = current_schema()::regnamespace
           AND c.relname ~ '_p[0-9]{8}$' AND to_date(right(c.relname, 8), 'YYYYMMDD') < before
    LOOP
        EXECUTE format('DROP TABLE %I', part.name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

-- Roles are of the whole cluster: they may be there already, from another database or an operator's hand.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tandem_drain') THEN
        CREATE ROLE tandem_drain NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tandem_read') THEN
        CREATE ROLE tandem_read NOLOGIN;
    END IF;
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO tandem_drain, tandem_read', current_schema());
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO tandem_drain, tandem_read', current_schema());
    EXECUTE format('GRANT INSERT ON ALL TABLES IN SCHEMA %I TO tandem_drain', current_schema());
    -- Rows that change: the cursor, and what is told in parts.
    EXECUTE (SELECT string_agg(format('GRANT UPDATE ON %I TO tandem_drain', name), ';') FROM unnest(ARRAY[
        'journals', 'opportunities', 'rounds', 'round_legs', 'orders',
        'fills', 'pnl_day', 'pnl_venue_day', 'latency_intervals', 'drain_cursor']) AS name);
    -- The history of migrations is the owner's.
    EXECUTE (SELECT coalesce(string_agg(format('REVOKE INSERT ON %I FROM tandem_drain', relname), ';'), 'SELECT 1')
        FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = 'schema_history');
END $$;
REVOKE ALL ON FUNCTION ensure_partitions(date, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION drop_partitions(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partitions(date, integer) TO tandem_drain;
