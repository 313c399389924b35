//! What was told lately, for whoever looks: the dashboard and `tandem top`.
//!
//! Invariant: bounded; what is shown is what the channels were given.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::{Notice, State};
use crate::standing::ChannelStands;

/// Notices that are kept.
const HISTORY_MAX: usize = 500;
/// Alerts that stand, at most.
const STANDING_MAX: usize = 1_024;

/// One notice for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of Notice")]
pub struct NoticeView {
    pub rev: u64,
    pub state: &'static str,
    pub severity: &'static str,
    pub fingerprint: String,
    pub title: &'static str,
    pub detail: String,
    pub runbook: &'static str,
    pub first_us: i64,
    pub last_us: i64,
    pub count: u64,
}

#[derive(Debug, Default)]
struct Inside {
    rev: u64,
    standing: BTreeMap<String, NoticeView>,
    history: VecDeque<NoticeView>,
    channels: Vec<ChannelStands>,
}

/// What stands and what was told; clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Inside>>);

impl Board {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Whoever panicked with it left whole rows.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is being told.
    pub fn take(&self, notices: &[Notice]) {
        if notices.is_empty() {
            return;
        }
        let mut inside = self.inside();
        for notice in notices {
            inside.rev += 1;
            let view = NoticeView {
                rev: inside.rev,
                state: notice.state.name(),
                severity: notice.severity.name(),
                fingerprint: notice.fingerprint.clone(),
                title: notice.title,
                detail: notice.detail.clone(),
                runbook: notice.runbook,
                first_us: notice.first_ns / 1_000,
                last_us: notice.last_ns / 1_000,
                count: notice.count,
            };
            match notice.state {
                State::Firing | State::Again if inside.standing.len() < STANDING_MAX => {
                    inside.standing.insert(notice.fingerprint.clone(), view.clone());
                }
                State::Resolved => {
                    inside.standing.remove(&notice.fingerprint);
                }
                _ => {}
            }
            inside.history.push_back(view);
            if HISTORY_MAX < inside.history.len() {
                inside.history.pop_front();
            }
        }
    }

    /// Takes how the channels are.
    pub fn put_channels(&self, channels: Vec<ChannelStands>) {
        self.inside().channels = channels;
    }

    /// Returns how the channels are.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelStands> {
        self.inside().channels.clone()
    }

    /// Returns the revision of the newest notice.
    #[must_use]
    pub fn rev(&self) -> u64 {
        self.inside().rev
    }

    /// Returns what stands now.
    #[must_use]
    pub fn standing(&self) -> Vec<NoticeView> {
        self.inside().standing.values().cloned().collect()
    }

    /// Returns what was told after a revision, the newest first.
    #[must_use]
    pub fn told(&self, after: u64) -> Vec<NoticeView> {
        let inside = self.inside();
        inside.history.iter().rev().take_while(|view| after < view.rev).cloned().collect()
    }
}
