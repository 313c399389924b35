//! Which alerts there are, and what of them is worth a message.
//!
//! Invariant: the first time is told at once, and so is what got worse; the same again is told no more often
//! than `repeat`; over is told once it has been over for `resolve`, so that what flickers is one alert with a
//! count. Nothing that was told as there is forgotten before it was told as over.
//!
//! Not here: what is wrong (`rules`), whom it is told to (`path`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Condition, Notice, Rule, Severity, State};

/// How often the same is told.
#[derive(Clone, Copy, Debug)]
pub struct BookSettings {
    /// Between two messages about one alert that pages; a ticket's are sixteen times as far apart.
    pub repeat: Duration,
    /// So long it must be over before it is told as over.
    pub resolve: Duration,
}

/// Alerts are kept up to this many; more of them than there are kinds and scopes cannot be.
const ALERTS_MAX: usize = 1_024;
/// A ticket is told again this many times less often than a page.
const TICKET_REPEATS: i64 = 16;
/// A kill that is not proven pages this often (`reference/reliability.md` section 6.3).
const UNCONFIRMED_NS: i64 = 60_000_000_000;

#[derive(Clone, Debug)]
struct Alert {
    rule: Rule,
    severity: Severity,
    detail: String,
    first_ns: i64,
    last_ns: i64,
    count: u64,
    told_ns: i64,
    told_count: u64,
    /// It stands, or it is an event that happened.
    stands: bool,
    /// Since when it does not stand.
    over_ns: i64,
    is_event: bool,
}

impl Alert {
    fn notice(&self, fingerprint: &str, state: State) -> Notice {
        Notice {
            state,
            severity: self.severity,
            fingerprint: fingerprint.to_owned(),
            title: self.rule.title,
            detail: self.detail.clone(),
            runbook: self.rule.runbook,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            count: self.count,
        }
    }

    fn told(&mut self, now_ns: i64) {
        self.told_ns = now_ns;
        self.told_count = self.count;
    }
}

/// The alerts.
#[derive(Debug)]
pub struct Book {
    repeat_ns: i64,
    resolve_ns: i64,
    alerts: BTreeMap<String, Alert>,
}

fn ns(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Book {
    /// Returns an empty book.
    #[must_use]
    pub fn new(settings: BookSettings) -> Book {
        Book {
            repeat_ns: ns(settings.repeat),
            resolve_ns: ns(settings.resolve),
            alerts: BTreeMap::new(),
        }
    }

    /// Takes all that is wrong now; what is not in it is over.
    pub fn stands(&mut self, conditions: &[Condition], now_ns: i64, out: &mut Vec<Notice>) {
        let mut standing = BTreeSet::new();
        for condition in conditions {
            let fingerprint = condition.fingerprint();
            // Two conditions of one name are one alert, as bad as the worse.
            if standing.insert(fingerprint.clone()) {
                self.stand(&fingerprint, condition, now_ns, out);
            }
        }
        for (fingerprint, alert) in &mut self.alerts {
            if alert.stands && !alert.is_event && !standing.contains(fingerprint) {
                alert.stands = false;
                alert.over_ns = now_ns;
            }
        }
    }

    fn stand(&mut self, name: &str, condition: &Condition, now_ns: i64, out: &mut Vec<Notice>) {
        let Some(alert) = self.alerts.get_mut(name) else {
            self.begin(name, condition, now_ns, false, out);
            return;
        };
        if !alert.stands {
            alert.stands = true;
            alert.count += 1;
        }
        alert.last_ns = now_ns;
        alert.detail.clone_from(&condition.detail);
        let worse = alert.severity < condition.severity;
        // What was bad enough to call somebody stays that until it is over.
        alert.severity = alert.severity.max(condition.severity);
        if worse {
            alert.told(now_ns);
            out.push(alert.notice(name, State::Firing));
        }
    }

    /// Takes something that happened.
    pub fn happened(&mut self, event: &Condition, now_ns: i64, out: &mut Vec<Notice>) {
        let name = event.fingerprint();
        let Some(alert) = self.alerts.get_mut(&name) else {
            self.begin(&name, event, now_ns, true, out);
            return;
        };
        alert.count += 1;
        alert.last_ns = now_ns;
        alert.detail.clone_from(&event.detail);
    }

    fn begin(
        &mut self,
        name: &str,
        condition: &Condition,
        now_ns: i64,
        is_event: bool,
        out: &mut Vec<Notice>,
    ) {
        if ALERTS_MAX <= self.alerts.len() {
            tracing::error!(alert = name, "too many alerts: this one is told and not kept");
        }
        let alert = Alert {
            rule: condition.rule,
            severity: condition.severity,
            detail: condition.detail.clone(),
            first_ns: now_ns,
            last_ns: now_ns,
            count: 1,
            told_ns: now_ns,
            told_count: 1,
            stands: true,
            over_ns: 0,
            is_event,
        };
        out.push(alert.notice(name, if is_event { State::Event } else { State::Firing }));
        if self.alerts.len() < ALERTS_MAX {
            self.alerts.insert(name.to_owned(), alert);
        }
    }

    /// Tells what has become due: again, over.
    pub fn tick(&mut self, now_ns: i64, out: &mut Vec<Notice>) {
        let (repeat_ns, resolve_ns) = (self.repeat_ns, self.resolve_ns);
        self.alerts.retain(|name, alert| {
            let quiet_ns = now_ns - alert.told_ns;
            if alert.is_event {
                if quiet_ns < repeat_ns {
                    return true;
                }
                let more = alert.told_count < alert.count;
                if more {
                    alert.told(now_ns);
                    out.push(alert.notice(name, State::Again));
                }
                return more;
            }
            if !alert.stands {
                let is_over = resolve_ns <= now_ns - alert.over_ns;
                if is_over {
                    out.push(alert.notice(name, State::Resolved));
                }
                return !is_over;
            }
            let repeat_ns = match alert.severity {
                _ if alert.rule.id == Rule::UNCONFIRMED.id => repeat_ns.min(UNCONFIRMED_NS),
                Severity::Page => repeat_ns,
                Severity::Ticket => repeat_ns.saturating_mul(TICKET_REPEATS),
                // What is good to know is known.
                Severity::Info => i64::MAX,
            };
            if repeat_ns <= quiet_ns {
                alert.told(now_ns);
                out.push(alert.notice(name, State::Again));
            }
            true
        });
    }

    /// Returns how many alerts stand.
    #[must_use]
    pub fn standing(&self) -> usize {
        self.alerts.values().filter(|alert| alert.stands && !alert.is_event).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: i64 = 1_000_000_000;

    fn book() -> Book {
        Book::new(BookSettings {
            repeat: Duration::from_secs(100),
            resolve: Duration::from_secs(10),
        })
    }

    fn step(book: &mut Book, conditions: &[Condition], at_s: i64) -> Vec<(State, String, u64)> {
        let mut out = Vec::new();
        book.stands(conditions, at_s * S, &mut out);
        book.tick(at_s * S, &mut out);
        out.into_iter().map(|n| (n.state, n.fingerprint, n.count)).collect()
    }

    #[test]
    fn one_trouble_is_one_message_then_updates_then_its_end() {
        let mut book = book();
        let one = [Condition::new(Rule::UNKNOWN, "kraken", "1 order")];
        let name = "unknown-order/kraken".to_owned();
        assert_eq!(step(&mut book, &one, 0), [(State::Firing, name.clone(), 1)]);
        for at in 1..100 {
            assert_eq!(step(&mut book, &one, at), [], "{at}");
        }
        assert_eq!(step(&mut book, &one, 100), [(State::Again, name.clone(), 1)]);
        // It flickers: no word of an end, no second alert, but a count.
        assert_eq!(step(&mut book, &[], 101), []);
        assert_eq!(step(&mut book, &one, 105), []);
        assert_eq!(step(&mut book, &[], 106), []);
        assert_eq!(step(&mut book, &[], 115), []);
        assert_eq!(step(&mut book, &[], 116), [(State::Resolved, name.clone(), 2)]);
        assert_eq!(step(&mut book, &[], 300), []);
        assert_eq!(step(&mut book, &one, 301), [(State::Firing, name, 1)]);
    }

    #[test]
    fn what_gets_worse_is_told_at_once() {
        let mut book = book();
        let mut low = Condition::new(Rule::HEADROOM, "", "20 h");
        step(&mut book, std::slice::from_ref(&low), 0);
        low.severity = Severity::Page;
        low.detail = "20 min".to_owned();
        let told = step(&mut book, std::slice::from_ref(&low), 1);
        assert_eq!(told, [(State::Firing, "journal-headroom".to_owned(), 1)]);
        assert_eq!(step(&mut book, &[low], 2), []);
    }

    #[test]
    fn a_kill_that_is_not_proven_pages_every_minute() {
        let mut book = book();
        let open = [Condition::new(Rule::UNCONFIRMED, "kraken", "")];
        let told = (0..=180).flat_map(|at| step(&mut book, &open, at)).count();
        assert_eq!(told, 4);
    }

    #[test]
    fn events_are_told_once_and_then_counted() {
        let mut book = book();
        let mut out = Vec::new();
        let lost = Condition::new(Rule::RECONNECT, "kraken", "");
        for at in 0..50 {
            book.happened(&lost, at * S, &mut out);
            book.tick(at * S, &mut out);
        }
        assert_eq!(out.len(), 1);
        book.tick(100 * S, &mut out);
        assert_eq!((out.len(), out[1].state, out[1].count), (2, State::Again, 50));
        book.tick(200 * S, &mut out);
        assert_eq!((out.len(), book.alerts.len()), (2, 0), "forgotten, and nothing told");
    }

    proptest! {
        /// Whatever comes and goes: per fingerprint a message begins, no two of it are closer than the
        /// bound unless one of them is a beginning or an end, and what began is told as over.
        #[test]
        fn no_alert_is_lost_and_none_is_a_flood(
            steps in prop::collection::vec((0u8..8, 1i64..30), 1..200),
        ) {
            let mut book = book();
            let mut now = 0;
            let mut told: BTreeMap<String, Vec<(State, i64)>> = BTreeMap::new();
            let mut run = |conditions: &[Condition], now: i64| {
                for (state, name, _) in step(&mut book, conditions, now) {
                    told.entry(name).or_default().push((state, now));
                }
            };
            for (set, pause) in steps {
                now += pause;
                let scopes = (0..3).filter(|bit| set >> bit & 1 == 1);
                let conditions: Vec<Condition> =
                    scopes.map(|n| Condition::new(Rule::DOWN, n.to_string(), "")).collect();
                run(&conditions, now);
            }
            for after in [1, 11, 12] {
                run(&[], now + after);
            }
            for states in told.values() {
                prop_assert_eq!(states.first().map(|s| s.0), Some(State::Firing));
                prop_assert_eq!(states.last().map(|s| s.0), Some(State::Resolved));
                for pair in states.windows(2) {
                    match (pair[0].0, pair[1].0) {
                        (State::Resolved, next) => prop_assert_eq!(next, State::Firing),
                        (_, State::Again) => prop_assert!(100 <= pair[1].1 - pair[0].1),
                        (_, next) => prop_assert_eq!(next, State::Resolved),
                    }
                }
            }
        }
    }
}
