//! The writer: connects, sends what changed, and is not put off by anything.
//!
//! Invariant: every wait has a bound. A value is forgotten only after Redis said that it has it (or has a
//! newer one); after any error the connection is dropped, and with the next one every known value is sent
//! again. What is told of an error is its code, never a server's text.
//!
//! Not here: what is sent (`mirror`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisError, RedisResult, TlsCertificates,
};
use serde_json::json;
use tandem_core::book::Level;
use tandem_core::record::Venue;
use tandem_core::report::Opportunity;

use super::mirror::Quote;
use super::{Found, Place, RedisSettings, Shared, Standing};
use crate::run::RunInfo;
use crate::source::now_ns;
use crate::status::SinkStatus;

/// Commands of one round trip.
const PIPELINE_MAX: usize = 256;
/// First and longest pause after an error; the pause is a random part of it.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two words about how the drain stands.
const STANDING_EVERY: Duration = Duration::from_secs(1);

/// Writes a book unless a newer value is there. Numbers are below 2^53: Lua has them exact.
const BOOK: &str = r"
local was = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch, seq = tonumber(was[1] or ''), tonumber(was[2] or '')
local e, s = tonumber(ARGV[1]), tonumber(ARGV[2])
if epoch and seq and (e < epoch or (e == epoch and s < seq)) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', ARGV[2], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3])
if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[5], ARGV[6]) end
return 1
";
/// Appends an opportunity, and tells it, unless it is there already: ids only grow.
const FOUND: &str = r"
local done = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[1], unpack(ARGV, 5))
if type(done) == 'table' and done['err'] then
  if string.find(done['err'], 'equal or smaller', 1, true) then return 0 end
  return done
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
";

/// What is known of a book.
struct Known {
    quote: Quote,
    /// The best prices and the state that were told last.
    told: Option<(Option<Level>, Option<Level>, tandem_core::record::BookState)>,
    is_due: bool,
}

struct Writer {
    settings: RedisSettings,
    shared: Arc<Shared>,
    status: Arc<SinkStatus>,
    run: Option<Arc<RunInfo>>,
    known: BTreeMap<u16, Known>,
    found: VecDeque<Found>,
    standing: Option<Standing>,
    next_standing: Instant,
    next_refresh: Instant,
    connection: Option<Session>,
    bound: Duration,
}

struct Session {
    connection: Connection,
    book: String,
    found: String,
    /// All replies of a round trip must be there by then.
    whole_timeout: Duration,
}

/// Starts it.
pub(super) fn spawn(
    settings: RedisSettings,
    shared: Arc<Shared>,
    status: Arc<SinkStatus>,
) -> std::io::Result<JoinHandle<()>> {
    let now = Instant::now();
    let mut writer = Writer {
        settings,
        shared,
        status,
        run: None,
        known: BTreeMap::new(),
        found: VecDeque::new(),
        standing: None,
        next_standing: now,
        next_refresh: now,
        connection: None,
        bound: PAUSE_FIRST,
    };
    std::thread::Builder::new().name("redis".to_owned()).spawn(move || writer.run())
}

impl Writer {
    fn run(&mut self) {
        loop {
            let is_ending = self.shared.pause(self.settings.flush);
            self.collect();
            let outcome = self.flush();
            if let Err(error) = &outcome {
                self.connection = None;
                let text = told(error);
                tracing::debug!(error = text, "Redis");
                self.status.failed(&text, true);
            }
            if is_ending {
                return;
            }
            if outcome.is_err() {
                let part = rand::random_range(0.0..=self.bound.as_secs_f64());
                self.bound = (self.bound * 2).min(PAUSE_MAX);
                self.shared.pause(Duration::from_secs_f64(part));
            }
        }
    }

    /// Takes what is new: the lock is held for as long as maps change hands.
    fn collect(&mut self) {
        let mut cell = self.shared.lock();
        let run = cell.run.clone();
        let books = std::mem::take(&mut cell.books);
        let mut found = std::mem::take(&mut cell.found);
        self.standing = cell.standing.take().or(self.standing.take());
        drop(cell);
        let is_another = match (&run, &self.run) {
            (Some(now), Some(before)) => !Arc::ptr_eq(now, before),
            (now, before) => now.is_some() != before.is_some(),
        };
        if is_another {
            // Numbers of instruments are those of the run; what was of the old one goes away by itself.
            self.known.clear();
            self.run = run;
        }
        for (instrument, quote) in books {
            let told = self.known.remove(&instrument).and_then(|known| known.told);
            self.known.insert(instrument, Known { quote, told, is_due: true });
        }
        self.found.append(&mut found);
        let over = self.found.len().saturating_sub(self.settings.stream_max);
        if over != 0 {
            self.found.drain(..over);
            self.status.conflated(over as u64);
        }
        self.status.backlog(self.found.len() as u64);
        if self.next_refresh <= Instant::now() {
            // Before they expire; their age is told anew too.
            self.next_refresh = Instant::now() + self.settings.expire / 4;
            self.known.values_mut().for_each(|known| known.is_due = true);
        }
    }

    fn flush(&mut self) -> RedisResult<()> {
        let is_due = self.known.values().any(|known| known.is_due);
        let is_time = self.next_standing <= Instant::now();
        if !is_due && self.found.is_empty() && !is_time {
            return Ok(());
        }
        if self.connection.is_none() {
            self.connection = Some(connect(&self.settings)?);
            self.known.values_mut().for_each(|known| known.is_due = true);
        }
        self.books()?;
        self.opportunities()?;
        if is_time {
            self.stand()?;
            self.next_standing = Instant::now() + STANDING_EVERY;
        }
        self.bound = PAUSE_FIRST;
        Ok(())
    }

    fn books(&mut self) -> RedisResult<()> {
        let Some(run) = self.run.clone() else { return Ok(()) };
        loop {
            let due = self.known.iter().filter(|(_, known)| known.is_due);
            let due: Vec<u16> = due.map(|(instrument, _)| *instrument).take(PIPELINE_MAX).collect();
            if due.is_empty() {
                return Ok(());
            }
            let Some(session) = &mut self.connection else { return Ok(()) };
            let mut pipeline = Pipeline::with_capacity(due.len());
            for instrument in &due {
                let known = &self.known[instrument];
                let now_ns = now_ns();
                book(
                    &mut pipeline,
                    &session.book,
                    &self.settings,
                    &run,
                    *instrument,
                    known,
                    now_ns,
                );
            }
            send(&self.status, session, &pipeline, due.len())?;
            for instrument in due {
                if let Some(known) = self.known.get_mut(&instrument) {
                    known.is_due = false;
                    known.told = Some(shown(&known.quote));
                }
            }
        }
    }

    fn opportunities(&mut self) -> RedisResult<()> {
        while !self.found.is_empty() {
            let Some(session) = &mut self.connection else { return Ok(()) };
            let count = self.found.len().min(PIPELINE_MAX);
            let mut pipeline = Pipeline::with_capacity(count);
            for found in self.found.iter().take(count) {
                opportunity(&mut pipeline, &session.found, &self.settings, found);
            }
            send(&self.status, session, &pipeline, count)?;
            self.found.drain(..count);
            self.status.backlog(self.found.len() as u64);
        }
        Ok(())
    }

    fn stand(&mut self) -> RedisResult<()> {
        let Some(session) = &mut self.connection else { return Ok(()) };
        let standing = self.standing.clone().unwrap_or_default();
        let key = format!("{}:status", self.settings.prefix);
        let now_ns = now_ns();
        let fields = [
            ("run", standing.run.to_string()),
            ("mode", standing.mode),
            ("level", standing.level.to_owned()),
            ("seq", standing.seq.to_string()),
            ("lag_records", standing.lag.to_string()),
            ("books", self.known.len().to_string()),
            ("told_at", utc(now_ns)),
            ("told_ns", now_ns.to_string()),
        ];
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HSET").arg(&key).arg(&fields);
        pipeline.cmd("PEXPIRE").arg(&key).arg(millis(self.settings.expire));
        send(&self.status, session, &pipeline, 1)
    }
}

/// Sends and takes every reply. Reply by reply, and no further than the first error: the crate's own way
/// waits for each of them, also where none comes any more.
fn send(
    status: &SinkStatus,
    session: &mut Session,
    pipeline: &Pipeline,
    rows: usize,
) -> RedisResult<()> {
    let begun = Instant::now();
    let connection = &mut session.connection;
    connection.send_packed_command(&pipeline.get_packed_pipeline())?;
    for _ in 0..pipeline.len() {
        // One that failed is an error: all of it is sent again, which changes nothing that is there.
        connection.recv_response()?.extract_error()?;
        if session.whole_timeout < begun.elapsed() {
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        }
    }
    status.wrote(rows as u64, begun.elapsed(), now_ns());
    Ok(())
}

fn connect(settings: &RedisSettings) -> RedisResult<Session> {
    let address = match &settings.place {
        Place::Unix(path) => ConnectionAddr::Unix(path.clone()),
        Place::Loopback(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
        Place::Tls(host, port, _) => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
    };
    let mut info: ConnectionInfo = address.into_connection_info()?;
    // A client's name would need a right that is needed for nothing else.
    let mut login = info.redis_settings().clone().set_skip_set_lib_name();
    if let Some(user) = &settings.user {
        login = login.set_username(user);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(String::from_utf8_lossy(password.reveal()));
    }
    info = info.set_redis_settings(login);
    let client = match &settings.place {
        Place::Tls(_, _, ca_file) => {
            let root_cert = ca_file.as_ref().map(std::fs::read).transpose()?;
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
        }
        Place::Unix(_) | Place::Loopback(..) => Client::open(info)?,
    };
    let mut connection = client.get_connection_with_timeout(settings.connect_timeout)?;
    connection.set_read_timeout(Some(settings.response_timeout))?;
    connection.set_write_timeout(Some(settings.response_timeout))?;
    let mut load = |script: &str| {
        ::redis::cmd("SCRIPT").arg("LOAD").arg(script).query::<String>(&mut connection)
    };
    let (book, found) = (load(BOOK)?, load(FOUND)?);
    Ok(Session { connection, book, found, whole_timeout: settings.response_timeout * 4 })
}

/// What to do where the server does not know us.
const CREDENTIALS: &str = "; check redis.user and redis.password_file";

/// What is told of an error: its code or kind, no text of a server and no address.
fn told(error: &RedisError) -> String {
    // What a script may not do is told as an error without a code of its own.
    let in_script = error.detail().is_some_and(|text| text.contains("can't run this command"));
    let code = if in_script { Some("NOPERM") } else { error.code() };
    let what = match code {
        Some(code) => format!("Redis says {}", code.chars().take(32).collect::<String>()),
        None if error.is_timeout() => "Redis does not answer in time".to_owned(),
        None => format!("Redis: {}", error.category()),
    };
    let fix = match code {
        Some("NOPERM") => "; give its user the rights of deploy/redis/users.acl",
        Some("WRONGPASS" | "NOAUTH") => CREDENTIALS,
        Some("OOM") => "; raise maxmemory, or lower redis.stream_max",
        Some("READONLY") => "; it is a replica: point redis.url at the primary",
        None if error.kind() == ErrorKind::AuthenticationFailed => CREDENTIALS,
        _ => "",
    };
    what + fix
}

fn shown(quote: &Quote) -> (Option<Level>, Option<Level>, tandem_core::record::BookState) {
    (quote.bids.first().copied(), quote.asks.first().copied(), quote.state)
}

/// A symbol in a key: what terminals obey, and what would be another key, is `?`.
fn clean(symbol: &str) -> String {
    let letters = symbol.chars().take(64);
    letters.map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn book(
    pipeline: &mut Pipeline,
    script: &str,
    settings: &RedisSettings,
    run: &RunInfo,
    instrument: u16,
    known: &Known,
    now_ns: i64,
) {
    let quote = &known.quote;
    let venue = run.instruments.get(usize::from(instrument)).map_or("?", |of| of.venue.name());
    let symbol = clean(run.symbol(instrument));
    let px = |level: Option<&Level>| level.map_or(String::new(), |l| run.px(instrument, l.px.0));
    let qty = |level: Option<&Level>| level.map_or(String::new(), |l| run.qty(instrument, l.qty.0));
    let (bid, ask) = (quote.bids.first(), quote.asks.first());
    let time = |ns: i64| if ns == 0 { String::new() } else { utc(ns) };
    let age_ms = match quote.recv_ns {
        0 => String::new(),
        at_ns => (now_ns.saturating_sub(at_ns).max(0) / 1_000_000).to_string(),
    };
    let fields = [
        ("bid", px(bid)),
        ("bid_qty", qty(bid)),
        ("ask", px(ask)),
        ("ask_qty", qty(ask)),
        ("state", quote.state.name().to_owned()),
        ("venue_time", time(quote.venue_ns)),
        ("venue_ns", quote.venue_ns.to_string()),
        ("recv_time", time(quote.recv_ns)),
        ("recv_ns", quote.recv_ns.to_string()),
        ("age_ms", age_ms),
        ("run", run.run.to_string()),
    ];
    let side = |levels: &[Level]| -> Vec<[String; 2]> {
        levels.iter().map(|level| [px(Some(level)), qty(Some(level))]).collect()
    };
    let (epoch, seq) = quote.at;
    let depth = json!({
        "bids": side(&quote.bids),
        "asks": side(&quote.asks),
        "state": quote.state.name(),
        "recv_ns": quote.recv_ns,
        "epoch": epoch,
        "seq": seq,
    });
    let is_news = known.told != Some(shown(quote));
    let (channel, message) = match is_news {
        true => {
            let mut message =
                json!({ "venue": venue, "symbol": symbol, "epoch": epoch, "seq": seq });
            for (name, value) in &fields {
                message[*name] = json!(value);
            }
            (format!("{}:bbo", settings.prefix), message.to_string())
        }
        false => (String::new(), String::new()),
    };
    pipeline
        .cmd("EVALSHA")
        .arg(script)
        .arg(2)
        .arg(format!("{}:bbo:{venue}:{symbol}", settings.prefix))
        .arg(format!("{}:depth:{venue}:{symbol}", settings.prefix))
        .arg(epoch)
        .arg(seq)
        .arg(millis(settings.expire))
        .arg(depth.to_string())
        .arg(channel)
        .arg(message)
        .arg(&fields);
}

fn opportunity(pipeline: &mut Pipeline, script: &str, settings: &RedisSettings, found: &Found) {
    let (told, run): (&Opportunity, &RunInfo) = (&found.told, &found.run);
    let amount = |quanta| run.amount(told.start, quanta);
    let leg = |leg: &tandem_core::report::LegReport| {
        json!({
            "venue": Venue::from_tag(leg.venue).map_or("?", Venue::name),
            "symbol": clean(run.symbol(leg.instrument)),
            // The side of the book that is taken: asks are bought from.
            "action": if leg.side == 0 { "sell" } else { "buy" },
            "px": run.px(leg.instrument, leg.px.0),
            "qty": run.qty(leg.instrument, leg.qty.0),
        })
    };
    let legs: Vec<_> = told.legs().iter().map(leg).collect();
    let fields = [
        ("run", run.run.to_string()),
        ("opportunity", told.id.to_string()),
        ("phase", phase(told).to_owned()),
        ("kind", told.kind.name().to_owned()),
        ("asset", run.asset(told.start).to_owned()),
        ("net", amount(told.net.0)),
        ("spent", amount(told.spent.0)),
        ("brought", amount(told.brought.0)),
        ("gross_ppb", told.gross_ppb.to_string()),
        ("buffers_ppm", told.buffers_ppm.to_string()),
        ("age_ns", told.age_ns.to_string()),
        ("first_ns", told.first_ns.to_string()),
        ("at", utc(told.at_ns)),
        ("at_ns", told.at_ns.to_string()),
        ("legs", json!(legs).to_string()),
    ];
    let (epoch, seq) = found.id;
    let mut message = json!({ "epoch": epoch, "seq": seq });
    for (name, value) in &fields {
        message[*name] = json!(value);
    }
    pipeline
        .cmd("EVALSHA")
        .arg(script)
        .arg(1)
        .arg(format!("{}:opportunities", settings.prefix))
        .arg(format!("{epoch}-{seq}"))
        .arg(settings.stream_max)
        .arg(format!("{}:opportunities", settings.prefix))
        .arg(message.to_string())
        .arg(&fields);
}

const fn phase(told: &Opportunity) -> &'static str {
    match told.phase {
        tandem_core::report::Phase::Open => "open",
        tandem_core::report::Phase::Update => "update",
        tandem_core::report::Phase::Close => "close",
        tandem_core::report::Phase::After => "after",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 with nanoseconds, UTC.
fn utc(ns: i64) -> String {
    let whole = crate::alerts::wire::utc(ns);
    let seconds = whole.trim_end_matches(" UTC").replace(' ', "T");
    format!("{seconds}.{:09}Z", ns.rem_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(utc(1_786_242_665_776_685_001), "2026-08-09T02:31:05.776685001Z");
        assert_eq!(utc(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
    }

    #[test]
    fn a_symbol_in_a_key_moves_no_terminal() {
        assert_eq!(clean("BTC/USD\u{1b}[31m\r\n"), "BTC/USD?[31m??");
    }
}
