// The server's rows (tools/drain/src/model/views.rs and web/topics.rs). Money is exact decimal text; moments
// are microseconds since 1970, UTC.

export type Level = [px: string, qty: string];

export interface Book {
  instrument: number;
  venue: string;
  symbol: string;
  base: string;
  quote: string;
  state: string;
  reason: string;
  bids: Level[];
  asks: Level[];
  update_id: number;
  venue_us: number;
  recv_us: number;
  age_us: number | null;
}

export interface OpportunityRow {
  rev: number;
  run: number;
  id: number;
  kind: string;
  route: string;
  asset: string;
  verdict: string;
  round: number | null;
  net: string;
  spent: string;
  net_ppm: number;
  gross_ppb: number;
  age_ns: number;
  first_us: number;
  last_us: number;
  life_us: number | null;
  times: number;
  after_net: string | null;
}

export interface Leg {
  venue: string;
  symbol: string;
  action: string;
  px: string;
  qty: string;
  best_px: string;
  levels: number;
  update_id: number;
  recv_us: number;
}

export interface Opportunity extends OpportunityRow {
  seq: number;
  cycle: number;
  best_of_step: boolean;
  brought: string;
  buffers_ppm: number;
  best_us: number;
  legs: Leg[];
  seen: Book[];
  phases: { phase: string; at_us: number; net: string; net_ppm: number }[];
  denials: Denial[];
}

export interface Denial {
  rev: number;
  at_us: number;
  code: string;
  control: string | null;
  observed: number | null;
  limit: number | null;
  kind: string;
  cycle: number;
  route: string;
  opportunity: number | null;
  times: number;
  asset: string;
  net: string;
  spent: string;
  gross_ppb: number;
  age_ns: number;
}

export interface Round {
  rev: number;
  run: number;
  id: number;
  stage: string;
  is_orphan: boolean;
  opportunity: number | null;
  route: string;
  asset: string;
  numeraire: string;
  expected: string;
  realised: string;
  worth: string;
  hedges: number;
  opened_us: number;
  duration_us: number;
  legs: { venue: string; symbol: string; action: string; px: string; qty: string; filled: string }[];
  stages: { stage: string; after_us: number; realised: string; hedges: number }[];
}

export interface Order {
  rev: number;
  run: number;
  client_id: string;
  round: number;
  venue: string;
  symbol: string;
  action: string;
  purpose: string;
  px: string;
  qty: string;
  filled: string;
  state: string;
  detail: string | null;
  made_us: number;
  sent_us: number | null;
  acked_us: number | null;
  ended_us: number | null;
  unknown: number;
  fills: {
    at_us: number;
    trade_id: string;
    px: string;
    qty: string;
    fee: string;
    fee_asset: string;
    busted: boolean;
  }[];
}

export interface Balance {
  rev: number;
  venue: string;
  asset: string;
  ledger: string | null;
  told: string | null;
  held: string | null;
  told_us: number;
  flows: Record<string, string>;
}

export interface EventRow {
  rev: number;
  at_us: number;
  severity: string;
  kind: string;
  venue: string | null;
  text: string;
}

export interface Alert {
  rev: number;
  state: string;
  severity: string;
  fingerprint: string;
  title: string;
  detail: string;
  runbook: string;
  first_us: number;
  last_us: number;
  count: number;
}

export interface Interval {
  at_us: number;
  count: number;
  p50: number;
  p99: number;
  p999: number;
  max: number;
}

export interface Stage {
  process: string;
  stage: string;
  whole: Interval | null;
  intervals: Interval[];
}

export interface Point {
  at_us: number;
  realised: number;
  marked: number;
}

export interface Limit {
  name: string;
  used: number | null;
  limit: string;
  unit: string;
  ppm: number | null;
}

export interface Venue {
  venue: string;
  level: string | null;
  feed: string | null;
  gateway: string | null;
  session: string | null;
  deadman_us: number | null;
  books: number;
  books_live: number;
  age_us: number | null;
  disconnects: number | null;
  budget_left: number | null;
  suspensions: number | null;
  warden: string | null;
}

export interface Overview {
  build: string;
  acts: boolean;
  now_us: number;
  catching_up: boolean;
  mode: string | null;
  run: number | null;
  trades: boolean;
  level: { global: string; cause: string | null; epoch: number } | null;
  pnl: { asset: string; day: number; realised: string; marked: string; peak: string } | null;
  limits: Limit[];
  venues: Venue[];
  sessions_ready: number;
  parts: { name: string; life: string; generation: number }[];
  counts: {
    records: number;
    unreadable: number;
    opportunities: [number, number, number];
    denials: number;
    denied: Record<string, number>;
    rounds: number;
    settled: number;
    postings: number;
    gaps: number;
  };
  orders: { total: number; fills: number; open: number };
  engine: {
    exposure_ppm: number | null;
    overruns: number;
    journal_full: number;
    outputs_lost: number;
  } | null;
  journal: Journal;
  alerts: number;
}

export interface Journal {
  room: number;
  capacity: number;
  per_s: number | null;
  lag: number;
}

export interface Sink {
  name: string;
  up: boolean;
  lag_records: number;
  lag_bytes: number;
  backlog_rows: number;
  written_rows: number;
  conflated: number;
  last_ok_us: number;
  errors: number;
  dead_letters: number;
  trouble: string | null;
}

export interface Drain {
  sinks: Sink[];
  journal: Journal;
  records: number;
  unreadable: number;
  catching_up: boolean;
}
