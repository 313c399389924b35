//! Faults of market data, orders and accounts, and what is left of each.
//!
//! Invariant: a fault changes what clients are sent (or whether and when), never the truth, except
//! `crossed`, `spike`, `burst` and `halt`, which act on the simulator's own book, and the order faults that
//! change what an order does: those the truth tells. With no fault active nothing here touches a message or an
//! order.
//!
//! Each kind, and why we must survive it:
//!
//! | kind | what happens | why |
//! |---|---|---|
//! | `drop` | `count` messages are not sent though ids and sequences advance | lost or conflated updates: a book with a hole trades on prices that are gone (MD-01) |
//! | `duplicate` | `count` messages come twice | a rewound or repeated sequence must not be applied twice (MD-02) |
//! | `reorder` | `count` messages change places with their successors | as above, and the gap that shows first must not end the feed (MD-02) |
//! | `bad_checksum` | Kraken's `checksum` is wrong though the levels are right | a mismatch must unsync one symbol, not the venue (MD-04) |
//! | `corrupt` | one digit of one quantity is changed | the only defence is the checksum, or the second feed (MD-04, MD-17) |
//! | `wrong_snapshot` | the next snapshot has wrong levels near the top, with the checksum of the right book | a resync can itself be wrong (MD-03) |
//! | `stale_snapshot` | Binance's REST book is `ms` old | a snapshot older than the buffer must not go live (MD-03) |
//! | `freeze` | TCP lives, nothing is sent: lost (`mode:"lose"`) or late (`mode:"hold"`) | a silent feed looks like a quiet market (MD-06) |
//! | `freeze_symbol` | one symbol's publisher stops, then goes on with one merged, correct update | age must be judged per symbol (MD-06) |
//! | `slow` | every message is `ms` late | quotes that are right, but old (MD-07) |
//! | `clock` | the venue's timestamps are off by `ms` | a step of their clock must not make stale quotes fresh (MD-16) |
//! | `disconnect` | `mode`: `close` (with `code`, `reason`), `reset` (RST), `abrupt` (FIN, no close frame) | each way of losing a connection takes another path (MD-08) |
//! | `refuse` | new connections: `mode` `closed` (nothing listens), `reset`, `http` (503 or `status`) | reconnecting must back off and stay in budget (MD-08) |
//! | `server_shutdown` | Binance's `serverShutdown`, then a close after `ms` | planned ends should cost no blind time (MD-08) |
//! | `http_status` | REST answers `status`, with the venue's body or `html` | snapshots fail, and error bodies are not always JSON (MD-03) |
//! | `burst` | the order flow runs `factor` times faster | throughput ends where it hurts most (MD-15) |
//! | `malformed` | `count` book messages are spoilt, see `variant` | a parser must be a total function (MD-09) |
//! | `oversized` | one text frame of `mib` MiB | memory must stay bounded (MD-09) |
//! | `hostile_frame` | bytes that are no valid WebSocket frame, see `variant` | framing is input too (MD-09) |
//! | `crossed` | the book is crossed for `ms`, then corrected | the "opportunity" inside one venue is an error (MD-05) |
//! | `halt` | the instrument stops trading and says so | orders into a halt rest or bounce (MD-10) |
//! | `maintenance` | Kraken's `status` channel says `maintenance` | the venue is up but not trading (MD-10) |
//! | `spike` | an instrument is pushed off by `bps` for `ms` | the biggest edge is usually a broken price (MD-12) |
//!
//! Faults of requests (each takes `venue`, `account`, `symbol`, `request` (`new` (default), `cancel`, `query`,
//! `any`), `probability`, `count`, `seconds`):
//!
//! | kind | what happens | why |
//! |---|---|---|
//! | `order_lost` | not executed, no reply | silence proves nothing (OE-03) |
//! | `reply_lost` | executed, no reply | the same silence, the other truth (OE-03) |
//! | `error_before` | answered with the venue's ambiguous error (`status` chooses), not executed | 5xx says nothing (OE-03) |
//! | `error_after` | executed, then the same answer | as above |
//! | `drop_before`, `drop_after` | the connection is reset before or after execution; `mode: "close"` closes it | lost between request and reply (OE-05) |
//! | `late` | executed `ms` later; `recvWindow`, `deadline` are judged then | the engine's queue (OE-11) |
//! | `slow_reply` | the reply comes `ms` late, reached in a ramp over `seconds` with `mode: "ramp"` | the latency breaker (OE-18) |
//! | `partial` | only `fraction` of what could fill does | unequal legs (OE-07) |
//! | `no_liquidity` | nothing fills: an IOC expires, the rest rests | leg two is gone (OE-09) |
//! | `reject` | refused with `error` (the venue's code or text) | each class has its answer (OE-01) |
//! | `insufficient_funds` | refused for lack of money | OE-13 |
//! | `fill_after_cancel` | the cancel is acknowledged, the order fills `ms` later | OE-08 |
//! | `hidden` | accepted, but unknown to queries for `ms` | OE-04 |
//! | `worse_price` | fills `bps` beyond the limit | the venue lies (OE-14) |
//! | `overfill` | fills `fraction` more than asked | the venue lies (OE-14) |
//! | `reduce` | the quantity shrinks by `fraction`, silently | OE-19 |
//! | `auth` | 401 or the venue's word for it, on everything private | OE-17 |
//! | `rate_limit` | refused for too many requests; `status` 418 bans | OE-02 |
//! | `wrong_balances` | balances read as zero (`mode: "zero"`) or as they were at the fault's start (`"stale"`) | AC-06 |
//! | `session_expiry` | sessions and stream tokens end at once | OE-17 |
//! | `stream_drop` | connections with a user stream end | AC-04 |
//! | `user_replay` | the last `count` user messages are sent again | AC-05 |
//! | `user_delay` | user messages come `ms` late, overtaken by others | AC-03 |
//! | `order_chaos` | each request draws one of the above, or none, with probability `p` and its own `seed` | all at once |
//!
//! `drop`, `duplicate`, `reorder`, `freeze` (`hold` or `lose`) and `slow` take user messages with
//! `class: "user"`, and then nothing else: the connection lives on.
//!
//! `malformed` variants: `truncated`, `wrong_type`, `huge_number`, `nan`, `negative`, `long_digits`,
//! `empty_string`, `invalid_utf8`, `unknown_field`, `unknown_channel`, `deep_nesting`; absent: each in
//! turn. The last three but one lose no data (`unknown_field` and `unknown_channel` must simply be
//! ignored).
//! `hostile_frame` variants: `opcode`, `rsv`, `continuation`, `masked`, `fragmented_ping`, `long_ping`,
//! `huge_length`, `close_code`; absent: each in turn.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Bytes;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Venue;
use crate::exchange::Quirks;
use crate::observe::Wants;

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the table in the module documentation explains each")]
pub enum Kind {
    Drop,
    Duplicate,
    Reorder,
    BadChecksum,
    Corrupt,
    WrongSnapshot,
    StaleSnapshot,
    Freeze,
    FreezeSymbol,
    Slow,
    Clock,
    Disconnect,
    Refuse,
    ServerShutdown,
    HttpStatus,
    Burst,
    Malformed,
    Oversized,
    HostileFrame,
    Crossed,
    Halt,
    Maintenance,
    Spike,
    OrderLost,
    ReplyLost,
    ErrorBefore,
    ErrorAfter,
    DropBefore,
    DropAfter,
    Late,
    SlowReply,
    Partial,
    NoLiquidity,
    Reject,
    InsufficientFunds,
    FillAfterCancel,
    Hidden,
    WorsePrice,
    Overfill,
    Reduce,
    Auth,
    RateLimit,
    WrongBalances,
    SessionExpiry,
    StreamDrop,
    UserReplay,
    UserDelay,
    OrderChaos,
}

/// Which requests a request fault takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestClass {
    /// New orders and replacements. The default.
    #[default]
    New,
    /// Cancels.
    Cancel,
    /// Everything else that is private.
    Query,
    /// All of them.
    Any,
}

/// Which messages a message fault takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Book messages: depth, book tickers, `l2_data`, `book`. The default.
    #[default]
    Book,
    /// Trade messages.
    Trade,
    /// Tickers, candles, instrument and status pushes.
    Info,
    /// Heartbeats.
    Heartbeat,
    /// Acknowledgements and errors.
    Reply,
    /// Executions, orders and balances of an account.
    User,
    /// Every message (in a fault; no message is of this class itself).
    Any,
}

/// One fault as the control port takes it. Fields that a kind does not use are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What it does.
    pub kind: Kind,
    /// Venue; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub venue: Option<Venue>,
    /// The venue's symbol; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// One connection, by its id in `/status`; absent: each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
    /// Messages concerned; absent: book messages (`freeze` and `slow`: all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// How many messages of each connection, or how many snapshots in all; absent: 1, or no limit
    /// with `seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How long; absent: 10 s for faults that last, 60 s to use up a `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Milliseconds: delay, age, clock offset, duration; see the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<i64>,
    /// How, where a kind has several ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Which spoiling, for `malformed` and `hostile_frame`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// WebSocket close code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// WebSocket close reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// HTTP body as an edge's HTML page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<bool>,
    /// Whether pings are still answered during `freeze`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pongs: Option<bool>,
    /// Rate factor of `burst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Size of `oversized`, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mib: Option<usize>,
    /// Size of `spike` and `worse_price`, in basis points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<f64>,
    /// Client whose requests and user messages are concerned; absent: each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Requests concerned; absent: new orders (`auth`, `rate_limit`: any; `fill_after_cancel`: cancels).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestClass>,
    /// Chance that a request fault acts, from 0 to 1; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "p")]
    pub probability: Option<f64>,
    /// Share of `partial`, `overfill` and `reduce`, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// The venue's code or text of `reject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Seed of `order_chaos`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Fault {
    /// Returns a fault of one kind with everything else absent.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            venue: None,
            symbol: None,
            connection: None,
            class: None,
            count: None,
            seconds: None,
            ms: None,
            mode: None,
            variant: None,
            code: None,
            reason: None,
            status: None,
            html: None,
            pongs: None,
            factor: None,
            mib: None,
            bps: None,
            account: None,
            request: None,
            probability: None,
            fraction: None,
            error: None,
            seed: None,
        }
    }

    pub(crate) fn takes_venue(&self, venue: Venue) -> bool {
        self.venue.is_none_or(|v| v == venue)
    }

    pub(crate) fn takes_symbol(&self, symbol: &str) -> bool {
        self.symbol.as_deref().is_none_or(|s| s == symbol)
    }

    pub(crate) fn takes_account(&self, account: Option<&str>) -> bool {
        self.account.as_deref().is_none_or(|a| Some(a) == account)
    }

    fn takes_request(&self, wants: Wants) -> bool {
        let default = match self.kind {
            Kind::Auth | Kind::RateLimit => RequestClass::Any,
            Kind::FillAfterCancel => RequestClass::Cancel,
            Kind::WrongBalances => RequestClass::Query,
            _ => RequestClass::New,
        };
        match self.request.unwrap_or(default) {
            RequestClass::Any => true,
            RequestClass::New => wants == Wants::New,
            RequestClass::Cancel => wants == Wants::Cancel,
            RequestClass::Query => wants == Wants::Query,
        }
    }

    fn takes_connection(&self, connection: u64) -> bool {
        self.connection.is_none_or(|c| c == connection)
    }

    /// Checks what types cannot.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let seconds_ok =
            self.seconds.is_none_or(|s| s.is_finite() && (0.0..=86_400.0).contains(&s));
        let modes: &[&str] = match self.kind {
            Kind::Disconnect => &["close", "reset", "abrupt"],
            Kind::Refuse => &["closed", "reset", "http"],
            Kind::Freeze => &["lose", "hold"],
            Kind::Halt => &["halt", "break", "cancel_only"],
            Kind::Maintenance => &["maintenance", "cancel_only", "post_only", "limit_only"],
            Kind::WrongBalances => &["zero", "stale"],
            Kind::DropBefore | Kind::DropAfter | Kind::StreamDrop => &["reset", "close"],
            Kind::SlowReply => &["ramp"],
            _ => &[],
        };
        let variants: &[&str] = match self.kind {
            Kind::Malformed => &MALFORMED,
            Kind::HostileFrame => &HOSTILE,
            _ => &[],
        };
        let known = |given: &Option<String>, names: &[&str]| {
            names.is_empty() || given.as_deref().is_none_or(|g| names.contains(&g))
        };
        if !seconds_ok {
            Err("seconds must be from 0 to 86400".to_owned())
        } else if !known(&self.mode, modes) {
            Err(format!("mode must be one of {modes:?}"))
        } else if !known(&self.variant, variants) {
            Err(format!("variant must be one of {variants:?}"))
        } else if self.mib.is_some_and(|m| m > 256) {
            Err("mib must be at most 256".to_owned())
        } else if self.factor.is_some_and(|f| !(f.is_finite() && (0.01..=1_000.0).contains(&f))) {
            Err("factor must be from 0.01 to 1000".to_owned())
        } else if self.bps.is_some_and(|b| !(b.is_finite() && (-9_000.0..=20_000.0).contains(&b))) {
            Err("bps must be from -9000 to 20000".to_owned())
        } else if self.ms.is_some_and(|m| m.abs() > 86_400_000) {
            Err("ms must be within a day".to_owned())
        } else if [self.probability, self.fraction]
            .iter()
            .flatten()
            .any(|x| !(x.is_finite() && (0.0..=1.0).contains(x)))
        {
            Err("probability and fraction must be from 0 to 1".to_owned())
        } else if self.kind == Kind::Reject && self.error.is_none() {
            Err("reject needs error, the venue's code or text".to_owned())
        } else if self.status.is_some_and(|s| !(300..=599).contains(&s)) {
            Err("status must be from 300 to 599".to_owned())
        } else if self.kind == Kind::Spike && self.bps.is_none() {
            Err("spike needs bps".to_owned())
        } else {
            Ok(())
        }
    }
}

/// A fault under way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Active {
    pub id: u64,
    pub fault: Fault,
    pub from_ns: u64,
    pub until_ns: u64,
    /// How often it acted.
    pub hits: u64,
    #[serde(skip)]
    used: BTreeMap<u64, u32>,
    #[serde(skip)]
    rng: ChaCha8Rng,
    /// Set when it has nothing left to do.
    pub done: bool,
}

impl Active {
    /// Messages a connection may still be robbed of; `None` is no limit.
    fn count(&self) -> Option<u32> {
        match (self.fault.count, self.fault.seconds) {
            (Some(count), _) => Some(count),
            (None, Some(_)) => None,
            (None, None) => match self.fault.kind {
                Kind::OrderChaos | Kind::Auth | Kind::RateLimit | Kind::SlowReply => None,
                _ if self.fault.probability.is_some() => None,
                _ => Some(1),
            },
        }
    }

    /// Takes one message of a connection if there is one left to take.
    fn take(&mut self, connection: u64) -> bool {
        if let Some(count) = self.count() {
            let used = self.used.entry(connection).or_insert(0);
            if *used >= count {
                return false;
            }
            *used += 1;
        }
        self.hits += 1;
        true
    }
}

/// What becomes of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fate {
    /// Not executed at all.
    pub skipped: bool,
    /// How it is answered.
    pub answer: Answer,
    /// Executed this much later.
    pub before_ns: u64,
    /// Answered this much after that.
    pub after_ns: u64,
    /// A cancel is acknowledged and this much later the order fills.
    pub fill_after_ns: Option<u64>,
    /// What the order itself suffers.
    pub quirks: Quirks,
}

/// How a request is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Answer {
    /// As it should be.
    #[default]
    Normal,
    /// Not at all.
    None,
    /// By a reset of the connection, or a close.
    Reset { close: bool },
    /// With the venue's ambiguous error.
    Ambiguous(u16),
    /// With a refusal in the venue's words.
    Refused(Refused),
}

/// Which refusal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refused {
    Funds,
    Auth,
    RateLimit(u16),
    Said(String),
}

fn is_request_fault(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::OrderLost
            | Kind::ReplyLost
            | Kind::ErrorBefore
            | Kind::ErrorAfter
            | Kind::DropBefore
            | Kind::DropAfter
            | Kind::Late
            | Kind::SlowReply
            | Kind::Partial
            | Kind::NoLiquidity
            | Kind::Reject
            | Kind::InsufficientFunds
            | Kind::FillAfterCancel
            | Kind::Hidden
            | Kind::WorsePrice
            | Kind::Overfill
            | Kind::Reduce
            | Kind::Auth
            | Kind::RateLimit
            | Kind::OrderChaos
    )
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "validated: 0 to 1")]
fn ppm(share: f64) -> u32 {
    (share * 1e6) as u32
}

impl Fault {
    /// Bends the fate of one request; `since` and `whole` place it in the fault's time.
    fn bend(&self, fate: &mut Fate, since: u64, whole: u64) {
        let ms = |default: i64| u64::try_from(self.ms.unwrap_or(default)).unwrap_or(0) * 1_000_000;
        let close = self.mode.as_deref() == Some("close");
        let skip = |fate: &mut Fate, answer| (fate.skipped, fate.answer) = (true, answer);
        match self.kind {
            Kind::OrderLost => skip(fate, Answer::None),
            Kind::ReplyLost => fate.answer = Answer::None,
            Kind::ErrorBefore => skip(fate, Answer::Ambiguous(self.status.unwrap_or(503))),
            Kind::ErrorAfter => fate.answer = Answer::Ambiguous(self.status.unwrap_or(504)),
            Kind::DropBefore => skip(fate, Answer::Reset { close }),
            Kind::DropAfter => fate.answer = Answer::Reset { close },
            Kind::Late => fate.before_ns = fate.before_ns.max(ms(2_000)),
            Kind::SlowReply => {
                let all = ms(500);
                let part = match self.mode.as_deref() {
                    Some(_) => (u128::from(all) * u128::from(since) / u128::from(whole)) as u64,
                    None => all,
                };
                fate.after_ns = fate.after_ns.max(part);
            }
            Kind::Partial => {
                fate.quirks.fraction_ppm = Some(ppm(self.fraction.unwrap_or(0.5)));
            }
            Kind::NoLiquidity => fate.quirks.fraction_ppm = Some(0),
            Kind::Reject => {
                let error = self.error.clone().unwrap_or_default();
                skip(fate, Answer::Refused(Refused::Said(error)));
            }
            Kind::InsufficientFunds => skip(fate, Answer::Refused(Refused::Funds)),
            Kind::FillAfterCancel => fate.fill_after_ns = Some(ms(100)),
            Kind::Hidden => fate.quirks.hidden_ns = ms(5_000),
            Kind::WorsePrice => {
                #[expect(clippy::cast_possible_truncation, reason = "validated")]
                let worse = (self.bps.unwrap_or(50.0) * 100.0) as i64;
                fate.quirks.worse_ppm = worse;
            }
            Kind::Overfill => fate.quirks.overfill_ppm = ppm(self.fraction.unwrap_or(0.5)),
            Kind::Reduce => fate.quirks.reduce_ppm = ppm(self.fraction.unwrap_or(0.5)),
            Kind::Auth => skip(fate, Answer::Refused(Refused::Auth)),
            Kind::RateLimit => {
                skip(fate, Answer::Refused(Refused::RateLimit(self.status.unwrap_or(429))));
            }
            _ => {}
        }
    }
}

/// Draws one order fault.
fn chaos(rng: &mut ChaCha8Rng, wants: Wants, fate: &mut Fate) {
    let skip = |fate: &mut Fate, answer| (fate.skipped, fate.answer) = (true, answer);
    let close = rng.random::<bool>();
    match rng.random_range(0..14u32) {
        0 => skip(fate, Answer::None),
        1 => fate.answer = Answer::None,
        2 => skip(fate, Answer::Ambiguous(503)),
        3 => fate.answer = Answer::Ambiguous(504),
        4 => skip(fate, Answer::Reset { close }),
        5 => fate.answer = Answer::Reset { close },
        6 => fate.before_ns = rng.random_range(1..3_000) * 1_000_000,
        7 => fate.after_ns = rng.random_range(1..500) * 1_000_000,
        8 if wants == Wants::New => skip(fate, Answer::Refused(Refused::Funds)),
        9 => fate.quirks.hidden_ns = rng.random_range(1..5_000) * 1_000_000,
        10 if wants == Wants::Cancel => {
            fate.fill_after_ns = Some(rng.random_range(1..500) * 1_000_000);
        }
        11 => fate.quirks.fraction_ppm = Some(0),
        12 => fate.quirks.reduce_ppm = rng.random_range(1..900_000),
        _ => fate.quirks.fraction_ppm = Some(rng.random_range(0..1_000_000)),
    }
}

/// All faults under way, and the last that ended.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    active: Vec<Active>,
    ended: VecDeque<Active>,
    next_id: u64,
    turn: usize,
}

/// What becomes of one message.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub messages: Vec<Bytes>,
    /// Hold until the next message of this connection has gone.
    pub swap: bool,
    /// Keep until a freeze ends.
    pub hold: bool,
}

const ENDED_MAX: usize = 256;
const ACTIVE_MAX: usize = 1_024;

impl Faults {
    pub fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    pub fn start(&mut self, fault: Fault, now_ns: u64) -> Option<u64> {
        if self.active.len() >= ACTIVE_MAX {
            return None;
        }
        self.next_id += 1;
        let default_s = match fault.kind {
            Kind::Freeze
            | Kind::FreezeSymbol
            | Kind::Slow
            | Kind::Clock
            | Kind::Refuse
            | Kind::HttpStatus
            | Kind::Burst
            | Kind::Halt
            | Kind::Maintenance
            | Kind::Auth
            | Kind::RateLimit
            | Kind::WrongBalances
            | Kind::UserDelay
            | Kind::SlowReply => 10.0,
            Kind::OrderChaos => 86_400.0,
            _ => 60.0,
        };
        let seed = fault.seed.unwrap_or(self.next_id);
        let seconds = fault.seconds.unwrap_or(default_s);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "validated")]
        let until_ns = now_ns + (seconds * 1e9) as u64;
        self.active.push(Active {
            id: self.next_id,
            fault,
            from_ns: now_ns,
            until_ns,
            hits: 0,
            used: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            done: false,
        });
        Some(self.next_id)
    }

    /// Ends one fault now (it has done all it can).
    pub fn finish(&mut self, id: u64) {
        for one in self.active.iter_mut().filter(|a| a.id == id) {
            one.done = true;
            one.hits += 1;
        }
    }

    /// Removes faults that are over and returns them.
    pub fn expire(&mut self, now_ns: u64) -> Vec<Fault> {
        if self.active.is_empty() {
            return Vec::new();
        }
        let (over, active) =
            self.active.drain(..).partition(|a: &Active| a.done || now_ns >= a.until_ns);
        self.active = active;
        self.archive(over)
    }

    /// Removes all faults and returns them.
    pub fn clear(&mut self) -> Vec<Fault> {
        let over = std::mem::take(&mut self.active);
        self.archive(over)
    }

    fn archive(&mut self, over: Vec<Active>) -> Vec<Fault> {
        let faults = over.iter().map(|a| a.fault.clone()).collect();
        for one in over {
            if self.ended.len() == ENDED_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back(Active { done: true, ..one });
        }
        faults
    }

    pub fn active(&self) -> &[Active] {
        &self.active
    }

    pub fn ended(&self) -> impl Iterator<Item = &Active> {
        self.ended.iter()
    }

    /// Returns an active state fault of a kind for a venue and, if it names one, a symbol.
    pub fn state(&self, kind: Kind, venue: Venue, symbol: Option<&str>) -> Option<&Fault> {
        let matches = |a: &&Active| {
            a.fault.kind == kind
                && !a.done
                && a.fault.takes_venue(venue)
                && symbol.is_none_or(|s| a.fault.takes_symbol(s))
        };
        self.active.iter().find(matches).map(|a| &a.fault)
    }

    /// Takes one use of a counted fault that is not about messages (snapshots).
    pub fn take(
        &mut self,
        kind: Kind,
        venue: Venue,
        symbol: &str,
        connection: u64,
    ) -> Option<Fault> {
        let one = self.active.iter_mut().find(|a| {
            a.fault.kind == kind
                && !a.done
                && a.fault.takes_venue(venue)
                && a.fault.takes_symbol(symbol)
        })?;
        // A snapshot over REST has no connection: it counts as connection 0.
        let taken = one.fault.takes_connection(connection) && one.take(connection);
        if taken && one.count().is_some_and(|c| one.hits >= u64::from(c)) {
            one.done = true;
        }
        taken.then(|| one.fault.clone())
    }

    /// Milliseconds a message of a connection is late.
    pub fn delay_ms(&self, venue: Venue, connection: u64) -> u64 {
        let slow = |a: &&Active| {
            a.fault.kind == Kind::Slow
                && a.fault.class != Some(Class::User)
                && a.fault.takes_venue(venue)
                && a.fault.takes_connection(connection)
        };
        let ms = self.active.iter().filter(slow).map(|a| a.fault.ms.unwrap_or(500)).max();
        ms.and_then(|m| u64::try_from(m).ok()).unwrap_or(0)
    }

    /// Nanoseconds a venue's clock is off.
    pub fn clock_ns(&self, venue: Venue) -> i64 {
        let fault = self.state(Kind::Clock, venue, None);
        fault.map_or(0, |f| f.ms.unwrap_or(10_000) * 1_000_000)
    }

    /// The freeze of user messages alone that an account is under.
    pub fn user_freeze(&self, venue: Venue, account: Option<&str>) -> Option<&Fault> {
        let frozen = |a: &&Active| {
            a.fault.kind == Kind::Freeze
                && a.fault.class == Some(Class::User)
                && a.fault.takes_venue(venue)
                && a.fault.takes_account(account)
        };
        self.active.iter().find(frozen).map(|a| &a.fault)
    }

    /// Milliseconds a user message is late, by itself.
    pub fn user_delay_ms(&self, venue: Venue, account: Option<&str>) -> u64 {
        let slow = |a: &&Active| {
            (a.fault.kind == Kind::UserDelay
                || (a.fault.kind == Kind::Slow && a.fault.class == Some(Class::User)))
                && a.fault.takes_venue(venue)
                && a.fault.takes_account(account)
        };
        let ms = self.active.iter().filter(slow).map(|a| a.fault.ms.unwrap_or(500)).max();
        ms.and_then(|m| u64::try_from(m).ok()).unwrap_or(0)
    }

    /// Decides what becomes of one private request.
    pub fn fate(
        &mut self,
        venue: Venue,
        account: Option<&str>,
        symbol: &str,
        wants: Wants,
        now_ns: u64,
    ) -> Fate {
        let mut fate = Fate::default();
        for one in &mut self.active {
            let fault = &one.fault;
            let concerned = !one.done
                && is_request_fault(fault.kind)
                && fault.takes_venue(venue)
                && fault.takes_account(account)
                && (symbol.is_empty() || fault.takes_symbol(symbol));
            if !concerned {
                continue;
            }
            if fault.kind == Kind::OrderChaos {
                let p = fault.probability.unwrap_or(0.2);
                if wants != Wants::Query && one.rng.random::<f64>() < p {
                    one.hits += 1;
                    chaos(&mut one.rng, wants, &mut fate);
                }
                continue;
            }
            if !fault.takes_request(wants) {
                continue;
            }
            let p = fault.probability.unwrap_or(1.0);
            if (p < 1.0 && one.rng.random::<f64>() >= p) || !one.take(0) {
                continue;
            }
            if one.count().is_some_and(|c| one.hits >= u64::from(c)) {
                one.done = true;
            }
            let since = now_ns.saturating_sub(one.from_ns);
            let whole = one.until_ns.saturating_sub(one.from_ns).max(1);
            one.fault.bend(&mut fate, since, whole);
        }
        fate
    }

    /// The freeze a connection is under.
    pub fn freeze(&self, venue: Venue, connection: u64) -> Option<&Fault> {
        let frozen = |a: &&Active| {
            a.fault.kind == Kind::Freeze
                && a.fault.class != Some(Class::User)
                && a.fault.takes_venue(venue)
                && a.fault.takes_connection(connection)
        };
        self.active.iter().find(frozen).map(|a| &a.fault)
    }

    /// Decides what becomes of one message.
    pub fn judge(
        &mut self,
        venue: Venue,
        connection: u64,
        class: Class,
        symbol: &str,
        body: Bytes,
        account: Option<&str>,
    ) -> Verdict {
        if class == Class::User
            && let Some(freeze) = self.user_freeze(venue, account)
            && freeze.mode.as_deref() != Some("hold")
        {
            return Verdict::default();
        }
        if let Some(freeze) = self.freeze(venue, connection) {
            let hold = freeze.mode.as_deref() == Some("hold");
            let messages = if hold { vec![body] } else { Vec::new() };
            return Verdict { messages, hold, swap: false };
        }
        let mut verdict = Verdict { messages: vec![body], ..Verdict::default() };
        let Self { active, turn, .. } = self;
        for one in active.iter_mut() {
            let fault = &one.fault;
            let wanted = fault.class.unwrap_or_default();
            let concerned = matches!(
                fault.kind,
                Kind::Drop
                    | Kind::Duplicate
                    | Kind::Reorder
                    | Kind::BadChecksum
                    | Kind::Corrupt
                    | Kind::Malformed
            ) && (wanted == Class::Any || wanted == class)
                && fault.takes_venue(venue)
                && fault.takes_connection(connection)
                && (class != Class::User || fault.takes_account(account))
                && (fault.takes_symbol(symbol) || symbol == "*");
            if !concerned {
                continue;
            }
            let kind = fault.kind;
            let original = verdict.messages.first().cloned();
            let Some(original) = original else { continue };
            match kind {
                Kind::Drop if one.take(connection) => verdict.messages.clear(),
                Kind::Duplicate if one.take(connection) => verdict.messages.push(original),
                Kind::Reorder if one.take(connection) => verdict.swap = true,
                Kind::BadChecksum => {
                    if let Some(text) = wrong_checksum(&original)
                        && one.take(connection)
                    {
                        verdict.messages = vec![text];
                    }
                }
                Kind::Corrupt => {
                    if let Some(text) = wrong_quantity(&original)
                        && one.take(connection)
                    {
                        verdict.messages = vec![text];
                    }
                }
                Kind::Malformed if one.take(connection) => {
                    let chosen = one.fault.variant.clone();
                    let variant = chosen.unwrap_or_else(|| {
                        *turn += 1;
                        MALFORMED[(*turn - 1) % MALFORMED.len()].to_owned()
                    });
                    verdict.messages = malformed(&variant, &original);
                }
                _ => {}
            }
        }
        verdict
    }

    /// The next hostile frame of a fault.
    pub fn hostile(&mut self, variant: Option<&str>) -> Vec<u8> {
        let chosen = variant.unwrap_or_else(|| {
            self.turn += 1;
            HOSTILE[(self.turn - 1) % HOSTILE.len()]
        });
        hostile_frame(chosen)
    }
}

const MALFORMED: [&str; 11] = [
    "truncated",
    "wrong_type",
    "huge_number",
    "nan",
    "negative",
    "long_digits",
    "empty_string",
    "invalid_utf8",
    "unknown_field",
    "unknown_channel",
    "deep_nesting",
];

const HOSTILE: [&str; 8] = [
    "opcode",
    "rsv",
    "continuation",
    "masked",
    "fragmented_ping",
    "long_ping",
    "huge_length",
    "close_code",
];

/// Replaces Kraken's checksum by another number.
fn wrong_checksum(body: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let at = text.find("\"checksum\":")? + "\"checksum\":".len();
    let end = at + text[at..].find(|c: char| !c.is_ascii_digit())?;
    let sum: u32 = text[at..end].parse().ok()?;
    let wrong = sum ^ 0x5a5a_0001;
    Some(Bytes::from(format!("{}{wrong}{}", &text[..at], &text[end..])))
}

/// Where the first number that looks like a price or quantity of a level is: in
/// `"qty":1.5`, `"new_quantity":"1.5"`, `["p","q"]`, `"B":"q"`.
fn quantity_span(text: &str) -> Option<(usize, usize)> {
    let marks = ["\"qty\":", "\"new_quantity\":\"", "\"B\":\"", "\",\"", "\"size\":\"", "\"q\":\""];
    let start = marks.iter().find_map(|mark| {
        text.match_indices(mark).map(|(at, _)| at + mark.len()).find(|at| {
            let rest = &text.as_bytes()[*at..];
            rest.first().is_some_and(u8::is_ascii_digit) && rest.iter().take(24).any(|b| *b == b'.')
        })
    })?;
    let len = text[start..].find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    Some((start, start + len))
}

/// Changes one digit of one quantity.
fn wrong_quantity(body: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let (start, end) = quantity_span(text)?;
    let mut bytes = text.as_bytes().to_vec();
    // A leading digit, so that the level neither vanishes nor keeps its value.
    let digit = (start..end).find(|at| bytes[*at].is_ascii_digit() && bytes[*at] != b'0')?;
    bytes[digit] = if bytes[digit] == b'9' { b'1' } else { bytes[digit] + 1 };
    Some(Bytes::from(bytes))
}

fn malformed(variant: &str, body: &Bytes) -> Vec<Bytes> {
    let text = String::from_utf8_lossy(body).into_owned();
    let number = |with: &str| -> Vec<Bytes> {
        match quantity_span(&text) {
            Some((start, end)) => {
                vec![Bytes::from(format!("{}{with}{}", &text[..start], &text[end..]))]
            }
            None => vec![Bytes::from(format!("{{\"price\":{with}"))],
        }
    };
    match variant {
        "truncated" => {
            vec![Bytes::from(text[..floor_boundary(&text, text.len() * 2 / 3)].to_owned())]
        }
        "wrong_type" => {
            vec![Bytes::from(text.replacen(":[", ":{\"0\":[", 1).replacen("]}", "]}}", 1))]
        }
        "huge_number" => number("1e400"),
        "nan" => number("NaN"),
        "negative" => number("-1.00000000"),
        "long_digits" => number("1234567890123456789012345678901234567890"),
        "empty_string" => match quantity_span(&text) {
            Some((start, end)) => vec![Bytes::from(format!("{}{}", &text[..start], &text[end..]))],
            None => vec![Bytes::new()],
        },
        "invalid_utf8" => {
            let mut bytes = text.into_bytes();
            let at = bytes.len() / 2;
            bytes.splice(at..at, [0xc3, 0x28, 0xff]);
            vec![Bytes::from(bytes)]
        }
        "unknown_field" => {
            vec![Bytes::from(text.replacen('{', "{\"zz_new\":{\"a\":[1,null,\"x\"]},", 1))]
        }
        "deep_nesting" => {
            let mut deep = "[".repeat(20_000);
            deep.push_str(&"]".repeat(20_000));
            vec![Bytes::from(deep), body.clone()]
        }
        _ => vec![
            Bytes::from_static(
                b"{\"channel\":\"zz_new\",\"e\":\"zzNew\",\"type\":\"update\",\"data\":[]}",
            ),
            body.clone(),
        ],
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn hostile_frame(variant: &str) -> Vec<u8> {
    match variant {
        "opcode" => vec![0x83, 0x01, b'x'],
        "rsv" => vec![0xf1, 0x02, b'{', b'}'],
        "continuation" => vec![0x80, 0x02, b'{', b'}'],
        "masked" => vec![0x81, 0x82, 1, 2, 3, 4, b'{' ^ 1, b'}' ^ 2],
        "fragmented_ping" => vec![0x09, 0x01, b'x'],
        "long_ping" => {
            let mut frame = vec![0x89, 126, 0, 200];
            frame.extend([b'x'; 200]);
            frame
        }
        "huge_length" => vec![0x81, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        _ => vec![0x88, 0x02, 0x00, 0x05],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Bytes {
        Bytes::from(text.to_owned())
    }

    const KRAKEN: &str = r#"{"channel":"book","data":[{"bids":[{"price":64999.5,"qty":0.70000000}],"checksum":42,"x":1}]}"#;
    const BINANCE: &str = r#"{"e":"depthUpdate","b":[["60000.09","1.2"]],"a":[]}"#;

    #[test]
    fn a_count_is_per_connection_and_symbol() {
        let mut faults = Faults::default();
        let mut fault = Fault::new(Kind::Drop);
        fault.symbol = Some("BTC/USD".to_owned());
        fault.count = Some(2);
        faults.start(fault, 0).unwrap();
        let mut sent = |connection, symbol| {
            faults
                .judge(Venue::Kraken, connection, Class::Book, symbol, body("{}"), None)
                .messages
                .len()
        };
        assert_eq!(
            [sent(1, "BTC/USD"), sent(1, "ETH/USD"), sent(1, "BTC/USD"), sent(1, "BTC/USD")],
            [0, 1, 0, 1]
        );
        assert_eq!([sent(2, "BTC/USD"), sent(2, "BTC/USD"), sent(2, "BTC/USD")], [0, 0, 1]);
    }

    #[test]
    fn spoiling_changes_what_it_says() {
        let sum = wrong_checksum(&body(KRAKEN)).unwrap();
        assert!(!String::from_utf8(sum.to_vec()).unwrap().contains("\"checksum\":42,"));
        let qty = wrong_quantity(&body(KRAKEN)).unwrap();
        assert_eq!(String::from_utf8(qty.to_vec()).unwrap(), KRAKEN.replace("0.7", "0.8"));
        let qty = wrong_quantity(&body(BINANCE)).unwrap();
        assert_eq!(String::from_utf8(qty.to_vec()).unwrap(), BINANCE.replace("1.2", "2.2"));
        for variant in MALFORMED {
            let spoilt = malformed(variant, &body(KRAKEN));
            let intact = matches!(variant, "unknown_channel" | "deep_nesting");
            assert_eq!(spoilt.contains(&body(KRAKEN)), intact, "{variant}");
        }
        let parsed: serde_json::Value =
            serde_json::from_slice(&malformed("unknown_field", &body(KRAKEN))[0]).unwrap();
        assert_eq!(parsed["data"][0]["checksum"], 42);
    }

    #[test]
    fn faults_end_by_time_and_are_remembered() {
        let mut faults = Faults::default();
        let mut fault = Fault::new(Kind::Slow);
        fault.seconds = Some(2.0);
        fault.ms = Some(40);
        faults.start(fault, 1_000).unwrap();
        assert_eq!(faults.delay_ms(Venue::Binance, 9), 40);
        assert!(faults.expire(1_000).is_empty());
        assert_eq!(faults.expire(2_000_001_000).len(), 1);
        assert!(faults.is_idle());
        assert_eq!(faults.ended().count(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut fault = Fault::new(Kind::Disconnect);
        fault.mode = Some("politely".to_owned());
        assert!(fault.validate().is_err());
        assert!(Fault::new(Kind::Spike).validate().is_err());
        let unknown: Result<Fault, _> = serde_json::from_str(r#"{"kind":"drop","cout":1}"#);
        assert!(unknown.is_err());
    }
}
