//! One channel: its queue, its thread, and whether it works.
//!
//! Invariant: handing over a notice never waits. The queue is bounded; of one alert there is at most one
//! notice in it, the newest, and what does not fit drops what wants least of people, counted. A message is
//! tried until it is taken, refused, or its time is up; what was not taken goes back to whoever handed it
//! over. Since when a channel owes us an answer is known at any moment, also while it hangs.
//!
//! Not here: which notices a channel gets, and what becomes of those it did not deliver (`path`).

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Client, ClientError, HttpError, usable};
use super::wire::{Request, Sender, Service, Verdict};
use super::{Notice, State};
use crate::source::now_ns;

/// Notices that wait at most.
const WAITING_MAX: usize = 256;
/// First and longest bound of the pause between two tries; the pause itself is anything up to the bound
/// (full jitter), so that channels that failed together do not come back together.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why a channel cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Its address.
    #[error("alert channel {name}: its file holds no address: {why}")]
    Address {
        /// Channel.
        name: String,
        /// Why.
        why: HttpError,
    },
    /// Its client.
    #[error("alert channel {name}: {error}")]
    Client {
        /// Channel.
        name: String,
        /// Why.
        error: ClientError,
    },
}

/// What a channel is to be.
#[derive(Clone, Debug)]
pub struct ChannelSpec {
    /// Its name.
    pub name: String,
    /// Where.
    pub service: Service,
    /// The only certificate authority believed; absent: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Longest exchange.
    pub timeout: Duration,
    /// What happens within this time becomes one message.
    pub group: Duration,
    /// A message is tried for so long.
    pub retry: Duration,
    /// Without a message for so long, the channel is probed.
    pub probe: Duration,
    /// Messages a minute; what is more waits and becomes one.
    pub messages_per_min: u32,
}

/// How a channel is.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Since when it owes us an answer; nothing while it does not.
    pub owes_since: Option<Instant>,
    /// It said that it will never take anything; why.
    pub refused: Option<String>,
    /// What went wrong last.
    pub why: String,
    /// Messages taken.
    pub delivered: u64,
    /// Probes taken.
    pub probed: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Notices that found no room.
    pub dropped: u64,
}

impl Health {
    /// Returns why the channel counts as lost: it refuses, or it owes an answer for longer than `after`.
    #[must_use]
    pub fn lost(&self, now: Instant, after: Duration) -> Option<String> {
        if let Some(why) = &self.refused {
            return Some(why.clone());
        }
        let since = now.saturating_duration_since(self.owes_since?);
        let why = if self.why.is_empty() { "no answer yet" } else { &self.why };
        (after <= since).then(|| format!("{why}, for {} s", since.as_secs()))
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Notice>,
    /// When the first of them came.
    first: Option<Instant>,
    /// What is being sent.
    in_flight: Vec<Notice>,
    /// What is being sent was taken over by somebody else.
    is_moved: bool,
    /// What was not delivered.
    returned: Vec<Notice>,
    health: Health,
    /// Until when a heartbeat may say that all is well; others are probed at all times.
    beats_until: Option<Instant>,
    stop_by: Option<Instant>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half-way; the data are whole in any case.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel and its thread.
pub struct Channel {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Makes the client of a channel, or says why not.
pub fn client(spec: &ChannelSpec) -> Result<Client, ChannelError> {
    let name = || spec.name.clone();
    let request =
        spec.service.probe(&Sender { system: String::new(), runbook_url: String::new() }, 0);
    if usable(&request.url).is_none() {
        return Err(ChannelError::Address { name: name(), why: HttpError::Address });
    }
    Client::new(spec.timeout, spec.ca_file.as_deref())
        .map_err(|error| ChannelError::Client { name: name(), error })
}

impl Channel {
    /// Starts the channel's thread.
    pub fn start(spec: ChannelSpec, sender: Sender) -> Result<Channel, crate::DrainError> {
        let client = client(&spec)?;
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        let name = spec.name.clone();
        let worker = Worker {
            // Full at the start, so that what happens first is told at once.
            tokens: f64::from(spec.messages_per_min),
            filled: Instant::now(),
            next_probe: Instant::now(),
            shared: Arc::clone(&shared),
            client,
            spec,
            sender,
        };
        let thread =
            std::thread::Builder::new().name(format!("alert-{name}")).spawn(|| worker.run())?;
        Ok(Channel { name, shared, thread: Some(thread) })
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how it is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.lock().health.clone()
    }

    /// Hands over a notice.
    pub fn push(&self, notice: Notice) {
        let mut queue = self.shared.lock();
        let before = queue.health.dropped;
        queue.push(notice);
        if before < queue.health.dropped {
            tracing::error!(channel = self.name, dropped = queue.health.dropped, "alerts dropped");
        }
        self.shared.wake.notify_one();
    }

    /// Takes out what was not delivered.
    pub fn take_returned(&self) -> Vec<Notice> {
        std::mem::take(&mut self.shared.lock().returned)
    }

    /// Takes over everything that is not delivered: what waits, and what is being tried.
    pub fn take_over(&self) -> Vec<Notice> {
        let mut queue = self.shared.lock();
        let mut all = std::mem::take(&mut queue.returned);
        if !queue.is_moved {
            queue.is_moved = true;
            all.append(&mut queue.in_flight.clone());
        }
        queue.first = None;
        all.append(&mut queue.waiting);
        all
    }

    /// Lets a heartbeat go out until then.
    pub fn beat(&self, until: Instant) {
        self.shared.lock().beats_until = Some(until);
    }

    /// Sends what is left, until then, and ends. What hangs longer is left behind; it ends with the process.
    pub fn close(&mut self, by: Instant) {
        self.shared.lock().stop_by = Some(by);
        self.shared.wake.notify_one();
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < by {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A panic was told by its own message.
            let _ = thread.join();
        }
        let left = self.shared.lock();
        let left = left.waiting.len() + left.in_flight.len();
        if left != 0 {
            tracing::error!(channel = self.name, left, "alerts were not delivered");
        }
    }
}

impl Queue {
    fn push(&mut self, notice: Notice) {
        self.first.get_or_insert_with(Instant::now);
        let same = self.waiting.iter_mut().find(|w| w.fingerprint == notice.fingerprint);
        if let Some(waiting) = same {
            // An older word that comes back from another channel does not take back the end of it.
            if waiting.state == State::Resolved && waiting.first_ns == notice.first_ns {
                return;
            }
            let is_first = waiting.state == State::Firing && notice.state == State::Again;
            let state = if is_first { State::Firing } else { notice.state };
            *waiting = Notice { state, ..notice };
            return;
        }
        self.waiting.push(notice);
        if WAITING_MAX < self.waiting.len() {
            // The first of those that want least.
            let least = self.waiting.iter().enumerate().min_by_key(|(at, n)| (n.severity, *at));
            if let Some((at, _)) = least {
                self.waiting.remove(at);
                self.health.dropped += 1;
            }
        }
    }
}

/// What is to be done next.
enum Work {
    Tell(Vec<Notice>),
    Probe,
    End,
}

struct Worker {
    shared: Arc<Shared>,
    client: Client,
    spec: ChannelSpec,
    sender: Sender,
    tokens: f64,
    filled: Instant,
    next_probe: Instant,
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.next() {
                Work::Tell(notices) => self.tell(notices),
                Work::Probe => self.probe(),
                Work::End => return,
            }
        }
    }

    /// Waits for something to do.
    fn next(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        loop {
            let now = Instant::now();
            let is_ending = queue.stop_by.is_some();
            if is_ending && queue.waiting.is_empty() {
                return Work::End;
            }
            let mut until = self.next_probe;
            if let Some(first) = queue.first {
                // The end waits for nothing but its own time.
                let due =
                    if is_ending { now } else { (first + self.spec.group).max(self.ready(now)) };
                if due <= now {
                    self.tokens -= 1.0;
                    queue.first = None;
                    // What wants most of people first; the order within that stays.
                    let mut notices = std::mem::take(&mut queue.waiting);
                    notices.sort_by_key(|notice| std::cmp::Reverse(notice.severity));
                    queue.in_flight.clone_from(&notices);
                    queue.is_moved = false;
                    return Work::Tell(notices);
                }
                until = until.min(due);
            }
            if self.next_probe <= now {
                let is_heartbeat = matches!(self.spec.service, Service::Heartbeat { .. });
                if !is_heartbeat || queue.beats_until.is_some_and(|until| now < until) {
                    return Work::Probe;
                }
                self.next_probe = now + self.spec.probe;
                until = self.next_probe;
            }
            let pause = until.saturating_duration_since(now);
            let waited = self.shared.wake.wait_timeout(queue, pause);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns when the next message may leave.
    fn ready(&mut self, now: Instant) -> Instant {
        let per_s = f64::from(self.spec.messages_per_min) / 60.0;
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * per_s;
        self.filled = now;
        self.tokens = (self.tokens + gained).min(f64::from(self.spec.messages_per_min));
        match self.tokens {
            enough if 1.0 <= enough => now,
            some => now + Duration::from_secs_f64((1.0 - some) / per_s),
        }
    }

    fn tell(&mut self, notices: Vec<Notice>) {
        let mut told = 0;
        while told < notices.len() {
            let (request, count) =
                self.spec.service.message(&self.sender, &notices[told..], now_ns());
            if !self.deliver(&request, false) {
                break;
            }
            told += count;
            let mut queue = self.shared.lock();
            queue.in_flight = notices[told..].to_vec();
            queue.health.delivered += 1;
            drop(queue);
            if told < notices.len() {
                // A message of its own, so within the same bound.
                let wait = self.ready(Instant::now()).saturating_duration_since(Instant::now());
                self.tokens -= 1.0;
                self.pause(wait);
            }
        }
        let mut queue = self.shared.lock();
        let left = std::mem::take(&mut queue.in_flight);
        if !queue.is_moved {
            queue.returned.extend(left);
        }
    }

    fn probe(&mut self) {
        let request = self.spec.service.probe(&self.sender, now_ns());
        if self.deliver(&request, true) {
            self.shared.lock().health.probed += 1;
        }
    }

    /// Tries one request until it is taken, refused, or its time is up.
    fn deliver(&mut self, request: &Request, is_probe: bool) -> bool {
        let begun = Instant::now();
        let mut bound = PAUSE_FIRST;
        self.next_probe = begun + self.spec.probe;
        self.shared.lock().health.owes_since.get_or_insert(begun);
        loop {
            let (verdict, why) = attempt(&self.client, &self.spec.service, request, is_probe);
            let mut queue = self.shared.lock();
            let health = &mut queue.health;
            let after = match verdict {
                Verdict::Delivered => {
                    health.owes_since = None;
                    health.refused = None;
                    health.why.clear();
                    return true;
                }
                Verdict::Refused(_) => {
                    health.failed += 1;
                    health.refused = Some(why.clone());
                    health.why = why;
                    return false;
                }
                Verdict::Later(after, _) => {
                    health.failed += 1;
                    health.why = why;
                    after
                }
            };
            let is_ending = queue.stop_by.is_some();
            drop(queue);
            let jitter = Duration::from_secs_f64(rand::random_range(0.0..=bound.as_secs_f64()));
            let pause = jitter.max(after.unwrap_or(Duration::ZERO));
            bound = (bound * 2).min(PAUSE_MAX);
            // A probe is tried again at its next time anyway.
            if is_probe || is_ending || self.spec.retry < begun.elapsed().saturating_add(pause) {
                return false;
            }
            self.pause(pause);
        }
    }

    /// Waits, unless the end is asked for.
    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut queue = self.shared.lock();
        while queue.stop_by.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.wake.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One try: what it means, and in words what was wrong.
pub fn attempt(
    client: &Client,
    service: &Service,
    request: &Request,
    is_probe: bool,
) -> (Verdict, String) {
    let verdict = match client.post(&request.url, &request.headers, &request.body) {
        Ok(answer) if is_probe => service.judge_probe(&answer),
        Ok(answer) => service.judge(&answer),
        Err(error) => Verdict::Later(None, error.to_string()),
    };
    let why = match &verdict {
        Verdict::Delivered => String::new(),
        Verdict::Later(_, why) | Verdict::Refused(why) => why.clone(),
    };
    (verdict, why)
}

#[cfg(test)]
mod tests {
    use super::super::{Rule, Severity};
    use super::*;

    fn notice(name: &str, severity: Severity, state: State) -> Notice {
        Notice {
            state,
            severity,
            fingerprint: name.to_owned(),
            title: Rule::TEST.title,
            detail: String::new(),
            runbook: Rule::TEST.runbook,
            first_ns: 0,
            last_ns: 0,
            count: 1,
        }
    }

    #[test]
    fn a_full_queue_keeps_what_wants_most_and_one_of_each() {
        let mut queue = Queue::default();
        for n in 0..10 * WAITING_MAX {
            let severity = if n % 100 == 0 { Severity::Page } else { Severity::Info };
            queue.push(notice(&n.to_string(), severity, State::Firing));
            queue.push(notice(&n.to_string(), severity, State::Again));
        }
        assert_eq!(queue.waiting.len(), WAITING_MAX);
        assert_eq!(queue.health.dropped as usize, 9 * WAITING_MAX);
        let pages = queue.waiting.iter().filter(|n| n.severity == Severity::Page).count();
        assert_eq!(pages, 26);
        assert!(queue.waiting.iter().all(|n| n.state == State::Firing), "the first word stays");
        queue.push(notice("0", Severity::Page, State::Resolved));
        let state =
            |queue: &Queue| queue.waiting.iter().find(|n| n.fingerprint == "0").map(|n| n.state);
        assert_eq!(state(&queue), Some(State::Resolved));
        queue.push(notice("0", Severity::Page, State::Firing));
        assert_eq!(state(&queue), Some(State::Resolved), "an older word of the same trouble");
        queue.push(Notice { first_ns: 1, ..notice("0", Severity::Page, State::Firing) });
        assert_eq!(state(&queue), Some(State::Firing), "it began again");
    }

    #[test]
    fn a_channel_is_lost_by_refusing_or_by_owing() {
        let now = Instant::now();
        let after = Duration::from_secs(60);
        let mut health = Health::default();
        assert_eq!(health.lost(now, after), None);
        health.owes_since = Some(now);
        assert_eq!(health.lost(now + Duration::from_secs(59), after), None);
        assert!(health.lost(now + after, after).is_some_and(|why| why.contains("no answer yet")));
        health = Health { refused: Some("HTTP 404".to_owned()), ..Health::default() };
        assert_eq!(health.lost(now, after), Some("HTTP 404".to_owned()));
    }
}
