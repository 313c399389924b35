//! Kraken's error texts (`protocols/kraken.md` section 9).
//!
//! Invariant: as [`crate::codes`]: what is not in the table is unknown. Texts gain suffixes, so they are
//! matched up to the second colon, and within that by their beginning.

use tandem_core::order::RejectClass as Class;

use crate::codes::{Effect, Judged, UNKNOWN, Verdict, refused};

const WAIT: Judged = (Verdict::Refused(Class::RateLimit), Effect::Wait);
const KEY: Judged = (Verdict::Refused(Class::Auth), Effect::Key);

/// The table; the first row whose text the error begins with counts. The position plus one is the code
/// that reports carry.
pub const TABLE: [(&str, Judged); 59] = [
    ("EAPI:Invalid key", KEY),
    ("EAPI:Invalid signature", KEY),
    ("EAPI:Invalid nonce", refused(Class::Auth)),
    ("EAPI:Rate limit exceeded", WAIT),
    ("EGeneral:Too many requests", WAIT),
    ("EAPI:Bad request", refused(Class::Other)),
    ("EAPI:Feature disabled", refused(Class::Other)),
    ("EService:Unavailable", UNKNOWN),
    ("EService:Busy", UNKNOWN),
    ("EService:Timeout", UNKNOWN),
    ("EGeneral:Internal error", UNKNOWN),
    ("EDatabase:Internal error", UNKNOWN),
    // Normally nothing was placed: no proof without a look at the executions.
    ("EService:Deadline elapsed", UNKNOWN),
    ("EService:Market in cancel_only mode", refused(Class::Market)),
    ("EService:Market in post_only mode", refused(Class::Market)),
    ("EService:Market in limit_only mode", refused(Class::Market)),
    ("EService: Throttled", WAIT),
    ("EService:Throttled", WAIT),
    ("EGeneral:Permission denied", KEY),
    ("EGeneral:Invalid arguments", refused(Class::Filter)),
    ("EGeneral:Unknown method", refused(Class::Other)),
    ("EGeneral:Temporary lockout", KEY),
    ("EAuth:Too many requests", KEY),
    ("EAuth:Rate limit exceeded", KEY),
    ("EAuth:Account temporary disabled", KEY),
    ("EAuth:Account unconfirmed", KEY),
    ("EAuth:Failed", KEY),
    ("EAccount:Invalid permissions", refused(Class::Market)),
    ("ETrade:Locked", KEY),
    ("ETrade:User Locked", KEY),
    ("ETrade:Invalid request", refused(Class::Other)),
    ("EQuery:Unknown asset pair", refused(Class::Market)),
    ("EQuery:Unknown asset", refused(Class::Market)),
    ("EOrder:Insufficient funds", refused(Class::Funds)),
    ("EOrder:Order minimum not met", refused(Class::Filter)),
    ("EOrder:Cost minimum not met", refused(Class::Filter)),
    ("EOrder:Tick size check failed", refused(Class::Filter)),
    ("EOrder:Invalid price", refused(Class::Filter)),
    ("EOrder:Rate limit exceeded", WAIT),
    ("EOrder:Domain rate limit exceeded", WAIT),
    ("EOrder:Orders limit exceeded", refused(Class::RateLimit)),
    ("EOrder:Scheduled orders limit exceeded", refused(Class::RateLimit)),
    ("EOrder:Positions limit exceeded", refused(Class::RateLimit)),
    ("EOrder:Unknown order", refused(Class::NoOrder)),
    // The sheet says to query: an order of that name may be there.
    ("EOrder:Invalid order", UNKNOWN),
    ("EOrder:Order not editable", UNKNOWN),
    ("EOrder:Not enough leaves qty", UNKNOWN),
    ("EOrder:Cancel pending", UNKNOWN),
    ("EOrder:Post only order", refused(Class::PostOnly)),
    ("EOrder:Reduce only", refused(Class::Other)),
    ("EOrder:Cannot open position", refused(Class::Other)),
    ("EOrder:Cannot open opposing position", refused(Class::Other)),
    ("EOrder:Margin", refused(Class::Other)),
    ("EOrder:Insufficient margin", refused(Class::Other)),
    ("EOrder:Insufficient initial margin", refused(Class::Other)),
    ("EOrder:Trading agreement required", refused(Class::Market)),
    ("EOrder:Unknown position", refused(Class::Other)),
    ("EBM:limit exceeded", KEY),
    ("ESession:Invalid session", refused(Class::Auth)),
];

/// Judges an error text; returns its code for reports as well, 0 where it is in no table.
#[must_use]
pub fn judge(text: &str) -> (Judged, i64) {
    match TABLE.iter().position(|(known, _)| text.starts_with(known)) {
        Some(idx) => (TABLE[idx].1, idx as i64 + 1),
        None => (UNKNOWN, 0),
    }
}

/// Returns the UNIX ns until which a `Throttled` says to wait.
#[must_use]
pub fn throttled_until(text: &str) -> Option<i64> {
    let (_, after) = text.split_once("Throttled:")?;
    after.trim().parse::<i64>().ok()?.checked_mul(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row OE-01. Every text of the sheet's table, some with suffixes, and what is in no table.
    #[test]
    fn every_documented_text_is_judged() {
        for (idx, (text, judged)) in TABLE.iter().enumerate() {
            let (found, code) = judge(&format!("{text}: something more"));
            assert_eq!((found, code), (*judged, idx as i64 + 1), "{text} is shadowed");
        }
        let spot: &[(&str, Judged)] = &[
            ("EGeneral:Invalid arguments:volume", refused(Class::Filter)),
            ("EAccount:Invalid permissions:XYZ trading restricted for XX", refused(Class::Market)),
            ("EService: Throttled: 1764000005", WAIT),
            ("EBM:limit exceeded:CAL", KEY),
            ("EOrder:Reduce only:Non-PC", refused(Class::Other)),
        ];
        for (text, judged) in spot {
            assert_eq!(judge(text).0, *judged, "{text}");
        }
        let undocumented =
            ["", "E", "EOrder:", "EOrder:Something", "WGeneral:note", "eorder:unknown order"];
        for text in undocumented {
            assert_eq!(judge(text), (UNKNOWN, 0), "{text}");
        }
        assert_eq!(
            throttled_until("EService: Throttled: 1764000005"),
            Some(1_764_000_005_000_000_000)
        );
        println!(
            "figure OE-01: kraken {} of {} documented texts mapped, {} undocumented ones unknown",
            TABLE.len(),
            TABLE.len(),
            undocumented.len()
        );
    }
}
