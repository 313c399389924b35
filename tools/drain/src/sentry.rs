//! Sentry: what processes wrote about their errors is forwarded, by the drain alone.
//!
//! Invariant: the files of `spool` are the queue, so it is bounded and survives this process; a line is
//! forwarded under an id that is its own hash, so that sending it twice is one event. Every exchange has a
//! time-out, a service that says "not now" is asked again when it said, and one that is gone costs this
//! thread alone. A line is foreign text: one that cannot be read is passed over and counted.
//!
//! Not here: what is written and scrubbed (`spool`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::sentry::protocol::{Envelope, Event, Exception, Level, Values};
use ::sentry::types::{Dsn, Uuid};
use aws_lc_rs::digest;
use tandem_core::record::Record;
use tandem_gateway::keys::Secret;

use crate::alerts::http::{Answer, Client};
use crate::source::{Look, now_ns};
use crate::spool::{self, Line, What};
use crate::status::SinkStatus;
use crate::{DrainError, Sink};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events of one minute; more wait in their files.
const PER_MINUTE_MAX: usize = 60;
/// First and longest pause after a failure; the pause is a random part of it.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Where it is remembered how far each file was sent.
const SENT: &str = "sent.json";

/// What the sink is told.
#[derive(Debug)]
pub struct SentrySettings {
    /// The client key as Sentry shows it, `https://KEY@HOST/PROJECT`.
    pub dsn: Secret,
    /// E.g. `production`.
    pub environment: String,
    /// What runs.
    pub release: String,
    /// The run's directory.
    pub run_dir: PathBuf,
    /// Whose certificates are believed besides the public authorities'.
    pub ca_file: Option<PathBuf>,
    /// For one exchange.
    pub timeout: Duration,
}

/// Why it cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SentryError {
    /// The key makes no sense; it is not shown.
    #[error("sentry.dsn_file: not of the form https://KEY@HOST/PROJECT")]
    Dsn,
    /// The certificate authority's file.
    #[error(transparent)]
    Client(#[from] crate::alerts::http::ClientError),
    /// The thread.
    #[error(transparent)]
    Drain(#[from] DrainError),
}

#[derive(Default)]
struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
    is_done: AtomicBool,
}

/// The sink.
pub struct Sentry {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sentry {
    /// Starts the forwarding thread.
    pub fn start(settings: SentrySettings, status: Arc<SinkStatus>) -> Result<Sentry, SentryError> {
        let text = std::str::from_utf8(settings.dsn.reveal()).map_err(|_| SentryError::Dsn)?;
        let dsn: Dsn = text.trim().parse().map_err(|_| SentryError::Dsn)?;
        let shared = Arc::new(Shared::default());
        let mut forwarder = Forwarder {
            address: Secret::from(dsn.envelope_api_url().as_str()),
            auth: dsn.to_auth(Some(concat!("tandem/", env!("CARGO_PKG_VERSION")))).to_string(),
            client: Client::new(settings.timeout, settings.ca_file.as_deref())?,
            sent: read_sent(&settings.run_dir.join(spool::FOLDER)),
            settings,
            status,
            shared: Arc::clone(&shared),
            times: Vec::new(),
            bound: PAUSE_FIRST,
        };
        let run = move || {
            forwarder.run();
            forwarder.shared.is_done.store(true, Ordering::Release);
        };
        let thread = std::thread::Builder::new().name("sentry".to_owned()).spawn(run);
        Ok(Sentry { shared, thread: Some(thread.map_err(DrainError::from)?) })
    }
}

impl Sink for Sentry {
    fn record(&mut self, _record: &Record, _is_past: bool) {}

    fn lost(&mut self, _what: &str) {}

    fn look(&mut self, _look: &Look) {}

    fn close(&mut self, within: Duration) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        let until = Instant::now() + within;
        // What was not sent stays in its file for the next drain.
        while !self.shared.is_done.load(Ordering::Acquire) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            drop(thread.join());
        }
    }
}

struct Forwarder {
    settings: SentrySettings,
    address: Secret,
    auth: String,
    client: Client,
    /// By name of the file: bytes that are done.
    sent: BTreeMap<String, u64>,
    status: Arc<SinkStatus>,
    shared: Arc<Shared>,
    /// When events were sent within the last minute.
    times: Vec<Instant>,
    bound: Duration,
}

/// What became of one event.
enum Sent {
    Done,
    /// It never will be taken.
    Refused,
    Later(Duration),
}

impl Forwarder {
    fn run(&mut self) {
        loop {
            let is_ending = self.pause(LOOK_EVERY);
            let pause = self.forward(is_ending);
            if is_ending {
                return;
            }
            if let Some(pause) = pause {
                self.pause(pause);
            }
        }
    }

    /// Waits unless the end is asked for; says whether it is.
    fn pause(&self, pause: Duration) -> bool {
        let stop = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.wake.wait_timeout_while(stop, pause, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sends what is new; returns how long to wait where the service wants, or does not answer.
    fn forward(&mut self, is_ending: bool) -> Option<Duration> {
        let folder = self.settings.run_dir.join(spool::FOLDER);
        let files = spool::files(&folder).unwrap_or_default();
        let names: Vec<String> = files.iter().filter_map(|path| name_of(path)).collect();
        self.sent.retain(|name, _| names.contains(name));
        let mut waiting = 0;
        let mut pause = None;
        for (path, name) in files.iter().zip(&names) {
            let lines = spool::new_lines(path, self.sent.get(name).copied().unwrap_or(0));
            for (line, end) in lines {
                if pause.is_some() {
                    waiting += 1;
                    continue;
                }
                match self.one(&line) {
                    Sent::Later(after) => {
                        waiting += 1;
                        pause = Some(after);
                    }
                    outcome => {
                        if matches!(outcome, Sent::Refused) {
                            self.status.dead_letters(1);
                        }
                        self.sent.insert(name.clone(), end);
                        write_sent(&folder, &self.sent);
                    }
                }
            }
            if pause.is_none() && !is_ending && is_over(path) {
                let _ = fs::remove_file(path);
            }
        }
        self.status.backlog(waiting);
        pause
    }

    fn one(&mut self, text: &[u8]) -> Sent {
        let Ok(line) = serde_json::from_slice::<Line>(text) else { return Sent::Refused };
        let minute = Duration::from_secs(60);
        self.times.retain(|at| at.elapsed() < minute);
        if PER_MINUTE_MAX <= self.times.len() {
            return Sent::Later(Duration::from_secs(5));
        }
        let mut envelope = Envelope::new();
        envelope.add_item(event(&line, text, &self.settings));
        let mut body = Vec::new();
        if envelope.to_writer(&mut body).is_err() {
            return Sent::Refused;
        }
        let begun = Instant::now();
        let headers = [("X-Sentry-Auth", self.auth.clone())];
        let kind = "application/x-sentry-envelope";
        self.times.push(begun);
        match self.client.post_as(&self.address, kind, &headers, &body) {
            Err(error) => {
                self.status.failed(&error.to_string(), true);
                Sent::Later(self.back_off())
            }
            Ok(answer) => self.judged(&answer, begun.elapsed()),
        }
    }

    fn judged(&mut self, answer: &Answer, took: Duration) -> Sent {
        let limited = answer.limits.as_deref().and_then(limit);
        match answer.status {
            200..300 => {
                self.bound = PAUSE_FIRST;
                self.status.wrote(1, took, now_ns());
                // It was taken, and is the last one for a time.
                if let Some(wait) = limited {
                    self.pause(wait);
                }
                Sent::Done
            }
            429 => {
                self.status.failed("Sentry says: not now", false);
                Sent::Later(limited.or(answer.retry_after).unwrap_or(Duration::from_secs(60)))
            }
            400 | 413 => {
                self.status.failed("Sentry refuses an event", false);
                Sent::Refused
            }
            status => {
                let fix = match status {
                    401 | 403 => "; check sentry.dsn_file",
                    _ => "",
                };
                self.status.failed(&format!("Sentry says {status}{fix}"), true);
                Sent::Later(answer.retry_after.unwrap_or_else(|| self.back_off()))
            }
        }
    }

    fn back_off(&mut self) -> Duration {
        let part = rand::random_range(0.0..=self.bound.as_secs_f64());
        self.bound = (self.bound * 2).min(PAUSE_MAX);
        Duration::from_secs_f64(part)
    }
}

/// Seconds of `X-Sentry-Rate-Limits` that are about errors: `60:error;default:organization, 2700::key`.
fn limit(header: &str) -> Option<Duration> {
    let of = |part: &str| -> Option<u64> {
        let mut words = part.trim().split(':');
        let seconds: u64 = words.next()?.trim().parse().ok()?;
        let kinds = words.next().unwrap_or_default();
        let is_ours =
            kinds.is_empty() || kinds.split(';').any(|kind| ["error", "default"].contains(&kind));
        is_ours.then_some(seconds)
    };
    let longest = header.split(',').take(16).filter_map(of).max()?;
    Some(Duration::from_secs(longest.min(86_400)))
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Whether its process is gone: nothing more will come.
fn is_over(path: &Path) -> bool {
    let name = name_of(path).unwrap_or_default();
    let pid = name.rsplit('.').nth(2).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn read_sent(folder: &Path) -> BTreeMap<String, u64> {
    let text = fs::read(folder.join(SENT)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// What cannot be remembered is sent again, under the same id.
fn write_sent(folder: &Path, sent: &BTreeMap<String, u64>) {
    let half = folder.join(format!("{SENT}.half"));
    let text = serde_json::to_vec(sent).unwrap_or_default();
    if fs::write(&half, text).and_then(|()| fs::rename(&half, folder.join(SENT))).is_err() {
        tracing::debug!("what was sent to Sentry cannot be remembered");
    }
}

/// Numbers that differ from one time to the next do not make another trouble.
fn pattern(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for letter in message.chars() {
        match letter {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            other => out.push(other),
        }
    }
    out
}

fn event(line: &Line, text: &[u8], settings: &SentrySettings) -> Event<'static> {
    let hash = digest::digest(&digest::SHA256, text);
    let mut id = [0u8; 16];
    id.copy_from_slice(&hash.as_ref()[..16]);
    // Scrubbed once more: a process may not have known a secret that this one knows.
    let told = |text: &str| spool::scrub(text);
    let kind = match line.what {
        What::Panic => "panic",
        What::Error => "error",
        What::Exit => "exit",
    };
    let role = told(&line.role);
    let fingerprint: Vec<Cow<'static, str>> = vec![
        Cow::Owned(role.clone()),
        Cow::Borrowed(kind),
        Cow::Owned(match line.what {
            What::Panic => told(&line.place),
            What::Error | What::Exit => pattern(&told(&line.message)),
        }),
    ];
    let at = u64::try_from(line.at_ns).unwrap_or(0);
    let exception = Exception {
        ty: kind.to_owned(),
        value: Some(told(&line.message)),
        module: Some(told(&line.place)),
        ..Exception::default()
    };
    let tags = [("role".to_owned(), role.clone()), ("kind".to_owned(), kind.to_owned())];
    let fields = line.fields.iter().filter(|(name, _)| spool::FIELDS.contains(&name.as_str()));
    Event {
        event_id: Uuid::from_bytes(id),
        level: match line.what {
            What::Panic | What::Exit => Level::Fatal,
            What::Error => Level::Error,
        },
        fingerprint: Cow::Owned(fingerprint),
        culprit: Some(told(&line.place)),
        logger: Some(role),
        platform: Cow::Borrowed("native"),
        timestamp: std::time::UNIX_EPOCH + Duration::from_nanos(at),
        // Which host it is, is nobody's business there.
        server_name: Some(Cow::Borrowed("tandem")),
        release: Some(Cow::Owned(settings.release.clone())),
        environment: Some(Cow::Owned(settings.environment.clone())),
        exception: Values { values: vec![exception] },
        tags: tags.into_iter().collect(),
        extra: fields.map(|(name, value)| (name.clone(), told(value).into())).collect(),
        ..Event::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_about_errors_are_kept() {
        let s = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(limit("60:error;default:organization"), s(60));
        assert_eq!(limit("60:transaction:key, 2700::organization"), s(2_700));
        assert_eq!(limit("60:transaction:key"), None);
        assert_eq!(limit("99999999999:error"), s(86_400));
        assert_eq!(limit(",,:,x:error,-1:error"), None);
    }

    #[test]
    fn numbers_make_no_other_trouble() {
        assert_eq!(pattern("order 123 at 4.56"), pattern("order 9 at 78.9"));
        assert_eq!(pattern("no number"), "no number");
    }
}
