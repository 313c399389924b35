//! Accounts and sessions as records: balances, session states, peers, the clock.
//!
//! Invariant: nothing here is a decision; these are observations that a gateway or the engine's host
//! makes and that the engine takes as inputs, so that a replay sees what the run saw.
//!
//! Not here: what our own books say (`ledger`).

use crate::record::{Kind, Record, Venue, flag};
use crate::units::Amount;

/// Where a balance was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BalanceSource {
    /// A full account snapshot; assets not in it are zero. Its last record carries [`flag::LAST`].
    Snapshot = 1,
    /// The user stream, after an event.
    Stream = 2,
    /// Configured (paper).
    Opening = 3,
}

/// A balance at a venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Where.
    pub venue: Venue,
    /// Asset index.
    pub asset: u16,
    /// All of it.
    pub total: Amount,
    /// Of that, reserved for open orders.
    pub held: Amount,
    /// Where it was read.
    pub source: BalanceSource,
}

impl Balance {
    /// Returns the record; `last` marks the end of a snapshot.
    #[must_use]
    pub fn record(&self, last: bool) -> Record {
        let data = [self.total.0, self.held.0, self.source as i64, 0];
        let flags = if last { flag::LAST } else { 0 };
        let asset = self.asset;
        Record { flags, asset, ..Record::new(Kind::Balance, self.venue as u8, u16::MAX, data) }
    }

    /// Reads the record; nothing where it is another kind or makes no sense.
    #[must_use]
    pub fn read(record: &Record) -> Option<Balance> {
        if record.kind() != Some(Kind::Balance) {
            return None;
        }
        let sources = [BalanceSource::Snapshot, BalanceSource::Stream, BalanceSource::Opening];
        Some(Balance {
            venue: Venue::from_tag(record.venue)?,
            asset: record.asset,
            total: Amount(record.data[0]),
            held: Amount(record.data[1]),
            source: sources.into_iter().find(|s| *s as i64 == record.data[2])?,
        })
    }
}

/// How far a venue's trading session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SessionState {
    /// No connection.
    Down = 0,
    /// Connecting, authenticating, or subscribing.
    Connecting = 1,
    /// Authenticated, user stream open and buffered; not reconciled yet.
    Authenticated = 2,
    /// Reconciled: orders may be sent.
    Ready = 3,
    /// Rate limited, banned, or in maintenance: no new orders until it is over.
    Suspended = 4,
    /// The venue refuses our key.
    Refused = 5,
}

impl SessionState {
    /// Every state, in the order of its tag.
    pub const ALL: [SessionState; 6] = [
        SessionState::Down,
        SessionState::Connecting,
        SessionState::Authenticated,
        SessionState::Ready,
        SessionState::Suspended,
        SessionState::Refused,
    ];

    /// Returns the state's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SessionState::Down => "down",
            SessionState::Connecting => "connecting",
            SessionState::Authenticated => "authenticated",
            SessionState::Ready => "ready",
            SessionState::Suspended => "suspended",
            SessionState::Refused => "refused",
        }
    }
}

/// A venue's trading session. Told on every change and at least every 500 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where.
    pub venue: Venue,
    /// How far.
    pub state: SessionState,
    /// The venue's code or a close code, 0 where there is none.
    pub code: i64,
    /// When the user stream was last proven alive, UNIX ns; 0 never.
    pub heard_ns: i64,
    /// Until when the venue's dead-man switch is armed, UNIX ns; 0 where the venue offers none,
    /// -1 where it offers one that is not armed.
    pub deadman_ns: i64,
}

impl Session {
    /// Returns the record.
    #[must_use]
    pub fn record(&self) -> Record {
        let data = [self.state as i64, self.code, self.heard_ns, self.deadman_ns];
        let record = Record::new(Kind::Session, self.venue as u8, u16::MAX, data);
        Record { flags: flag::LAST, ..record }
    }

    /// Reads the record; nothing where it is another kind or makes no sense.
    #[must_use]
    pub fn read(record: &Record) -> Option<Session> {
        if record.kind() != Some(Kind::Session) {
            return None;
        }
        let [state, code, heard_ns, deadman_ns] = record.data;
        Some(Session {
            venue: Venue::from_tag(record.venue)?,
            state: SessionState::ALL.into_iter().find(|s| *s as i64 == state)?,
            code,
            heard_ns,
            deadman_ns,
        })
    }
}

/// A process that trading depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PeerRole {
    /// The engine itself.
    Engine = 1,
    /// A venue's gateway.
    Gateway = 2,
    /// The warden.
    Warden = 3,
}

/// Another process as the engine's host sees it on the control page. Told on every change and at
/// least every 500 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is.
    pub role: PeerRole,
    /// Of which venue, for gateways.
    pub venue: Option<Venue>,
    /// It lives and its beat is fresh.
    pub alive: bool,
    /// Its last beat, UNIX ns.
    pub beat_ns: i64,
    /// It was built from the same source and runs on the same configuration.
    pub same_build: bool,
}

impl Peer {
    /// Returns the record.
    #[must_use]
    pub fn record(&self) -> Record {
        let data =
            [self.role as i64, i64::from(self.alive), self.beat_ns, i64::from(self.same_build)];
        let venue = self.venue.map_or(0, |venue| venue as u8);
        Record { flags: flag::LAST, ..Record::new(Kind::Peer, venue, u16::MAX, data) }
    }

    /// Reads the record; nothing where it is another kind or makes no sense.
    #[must_use]
    pub fn read(record: &Record) -> Option<Peer> {
        if record.kind() != Some(Kind::Peer) {
            return None;
        }
        let [role, alive, beat_ns, same_build] = record.data;
        let roles = [PeerRole::Engine, PeerRole::Gateway, PeerRole::Warden];
        Some(Peer {
            role: roles.into_iter().find(|r| *r as i64 == role)?,
            venue: Venue::from_tag(record.venue),
            alive: alive == 1,
            beat_ns,
            same_build: same_build == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_read_back_and_nonsense_does_not() {
        let balance = Balance {
            venue: Venue::Coinbase,
            asset: 3,
            total: Amount(10),
            held: Amount(4),
            source: BalanceSource::Stream,
        };
        assert_eq!(Balance::read(&balance.record(true)), Some(balance));
        for state in SessionState::ALL {
            let session =
                Session { venue: Venue::Kraken, state, code: 1, heard_ns: 2, deadman_ns: -1 };
            assert_eq!(Session::read(&session.record()), Some(session));
        }
        let peer = Peer {
            role: PeerRole::Gateway,
            venue: Some(Venue::Binance),
            alive: true,
            beat_ns: 5,
            same_build: false,
        };
        assert_eq!(Peer::read(&peer.record()), Some(peer));
        let mut bad = Session {
            venue: Venue::Kraken,
            state: SessionState::Down,
            code: 0,
            heard_ns: 0,
            deadman_ns: 0,
        }
        .record();
        bad.data[0] = 99;
        assert_eq!(Session::read(&bad), None);
    }
}
