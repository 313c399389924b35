//! Named behaviours that a script may take away, to see that a test notices.
//!
//! Invariant: without the `mutation` feature [`muted`] is a constant `false`, so what ships has no trace of
//! it. With the feature, the environment names at most one behaviour.

/// Every behaviour with a name; a script goes through them and expects a failing test for each.
pub const IDS: [&str; 18] = [
    "C13_NEW",
    "C13_FLOOR",
    "C26_ORDERS",
    "C26_NOTIONAL",
    "C26_INTENTS",
    "C26_REPEAT",
    "C26_EXPIRED",
    "C26_SESSION",
    "C26_ADDRESS",
    "LEVEL",
    "TIMEOUT",
    "PROOF_TIME",
    "PROOF_POLLS",
    "PROOF_TRADES",
    "DEDUPE",
    "BUST_ABSENT",
    "BUST_TWICE",
    "BUST_REPEAT",
];

/// Returns whether this behaviour is taken away.
#[cfg(feature = "mutation")]
#[must_use]
pub fn muted(id: &str) -> bool {
    use std::sync::OnceLock;
    static MUTED: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(IDS.contains(&id), "a behaviour of the list");
    MUTED.get_or_init(|| std::env::var("TANDEM_MUTE").ok()).as_deref() == Some(id)
}

/// Returns whether this behaviour is taken away: never, in what ships.
#[cfg(not(feature = "mutation"))]
#[inline(always)]
#[must_use]
pub const fn muted(_id: &str) -> bool {
    false
}
