//! Coinbase's failure reasons and statuses (`protocols/coinbase.md` sections 7 and 8).
//!
//! Invariant: as [`crate::codes`]: what is not in the table is unknown. A `PREVIEW_` before a reason is
//! another spelling of it.

use tandem_core::order::RejectClass as Class;

use crate::codes::{Effect, Judged, UNKNOWN, Verdict, refused};

/// The reasons; the position plus one is the code that reports carry.
pub const TABLE: [(&str, Judged); 61] = [
    ("INSUFFICIENT_FUND", refused(Class::Funds)),
    ("INSUFFICIENT_FUNDS", refused(Class::Funds)),
    ("INVALID_LEDGER_BALANCE", refused(Class::Funds)),
    ("INSUFFICIENT_LEDGER_BALANCE", refused(Class::Funds)),
    ("BREACHED_RISK_LIMIT", refused(Class::Funds)),
    ("INVALID_SIZE_PRECISION", refused(Class::Filter)),
    ("INVALID_PRICE_PRECISION", refused(Class::Filter)),
    ("INVALID_BASE_SIZE_TOO_SMALL", refused(Class::Filter)),
    ("INVALID_BASE_SIZE_TOO_LARGE", refused(Class::Filter)),
    ("INVALID_QUOTE_SIZE_TOO_SMALL", refused(Class::Filter)),
    ("INVALID_QUOTE_SIZE_TOO_LARGE", refused(Class::Filter)),
    ("INVALID_QUOTE_SIZE_PRECISION", refused(Class::Filter)),
    ("INVALID_PRICE_TOO_LARGE", refused(Class::Filter)),
    ("NON_NUMERIC_ORDER_SIZE", refused(Class::Filter)),
    ("INVALID_LIMIT_PRICE_POST_ONLY", refused(Class::PostOnly)),
    ("POST_ONLY_NOT_ALLOWED_WITH_FOK", refused(Class::PostOnly)),
    ("INVALID_LIMIT_PRICE", refused(Class::Filter)),
    ("LIMIT_PRICE_TOO_FAR_FROM_MARKET", refused(Class::Filter)),
    ("LIMIT_ORDER_PRICE_EXCEEDS_PRICE_BAND_ON_BUY", refused(Class::Filter)),
    ("LIMIT_ORDER_PRICE_EXCEEDS_PRICE_BAND_ON_SELL", refused(Class::Filter)),
    ("BREACHED_PRICE_LIMIT", refused(Class::Filter)),
    ("INVALID_NO_LIQUIDITY", refused(Class::Market)),
    ("MISSING_PRODUCT_PRICE_BOOK", refused(Class::Market)),
    ("ORDER_ENTRY_DISABLED", refused(Class::Market)),
    ("INELIGIBLE_PAIR", refused(Class::Market)),
    ("UNTRADABLE_PRODUCT", refused(Class::Market)),
    ("INVALID_PRODUCT_ID", refused(Class::Market)),
    ("PRODUCT_TRADING_HALTED", refused(Class::Market)),
    ("TRADING_DISABLED", refused(Class::Market)),
    ("GEOFENCING_RESTRICTION", refused(Class::Market)),
    ("FOK_DISABLED", refused(Class::Market)),
    ("NOT_ALLOWED_BY_MARKET_STATE", refused(Class::Market)),
    ("UNSUPPORTED_ORDER_CONFIGURATION", refused(Class::Other)),
    ("INVALID_ORDER_CONFIG", refused(Class::Other)),
    ("INVALID_SIDE", refused(Class::Other)),
    ("INVALID_REQUEST", refused(Class::Other)),
    ("END_TIME_IS_IN_THE_PAST", refused(Class::Other)),
    ("END_TIME_TOO_FAR_IN_FUTURE", refused(Class::Other)),
    ("GTD_ORDERS_MUST_HAVE_END_TIME", refused(Class::Other)),
    ("REDUCE_ONLY_NOT_ALLOWED_ON_SPOT_PRODUCTS", refused(Class::Other)),
    ("TOO_MANY_PENDING_REPLACES", refused(Class::Other)),
    ("RISK_PROXY_FAILURE", UNKNOWN),
    ("HOLD_FAILURE", refused(Class::Funds)),
    ("TOO_MANY_OPEN_ORDERS", (Verdict::Refused(Class::RateLimit), Effect::Wait)),
    ("REJECT_REASON_INSUFFICIENT_FUNDS", refused(Class::Funds)),
    ("REJECT_REASON_UNSPECIFIED", UNKNOWN),
    ("RATE_LIMIT_EXCEEDED", (Verdict::Refused(Class::RateLimit), Effect::Wait)),
    ("UNKNOWN_FAILURE_REASON", UNKNOWN),
    ("COMMANDER_REJECTED_NEW_ORDER", UNKNOWN),
    ("ORDER_IS_PENDING_CANCEL", UNKNOWN),
    // An order of this id is there: ours (section 7.2).
    ("DUPLICATE_CLIENT_ORDER_ID", UNKNOWN),
    ("COMPLIANCE_PURCHASE_LIMIT_EXCEEDED", (Verdict::Refused(Class::Auth), Effect::Key)),
    ("UNKNOWN_CANCEL_ORDER", refused(Class::NoOrder)),
    ("ORDER_IS_FULLY_FILLED", refused(Class::NoOrder)),
    ("INVALID_CANCEL_REQUEST", refused(Class::Other)),
    ("INVALID_CANCEL_PRODUCT_ID", refused(Class::Other)),
    ("COMMANDER_REJECTED_CANCEL_ORDER", UNKNOWN),
    ("DUPLICATE_CANCEL_REQUEST", UNKNOWN),
    ("NOT_ALLOWED_TO_CANCEL", refused(Class::Other)),
    ("ORDER_IS_BEING_REPLACED", UNKNOWN),
    ("UNKNOWN_CANCEL_FAILURE_REASON", UNKNOWN),
];

/// Judges a reason; returns its code for reports as well, 0 where it is in no table.
#[must_use]
pub fn judge(reason: &str) -> (Judged, i64) {
    let plain = reason.strip_prefix("PREVIEW_").unwrap_or(reason);
    match TABLE.iter().position(|(known, _)| *known == plain) {
        Some(idx) => (TABLE[idx].1, idx as i64 + 1),
        None => (UNKNOWN, 0),
    }
}

/// Judges an HTTP status without a reason. `json` says whether the body was of the venue's own shape.
#[must_use]
pub fn judge_status(status: u16, json: bool) -> Judged {
    match status {
        400 if json => refused(Class::Other),
        401 => (Verdict::Refused(Class::Auth), Effect::Key),
        403 if json => (Verdict::Refused(Class::Auth), Effect::Key),
        // A firewall's page.
        403 => (Verdict::Unknown, Effect::Wait),
        404 if json => refused(Class::NoOrder),
        429 => (Verdict::Refused(Class::RateLimit), Effect::Wait),
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row OE-01. Every reason of the sheet in both spellings, and what is in no table.
    #[test]
    fn every_documented_reason_is_judged() {
        for (idx, (reason, judged)) in TABLE.iter().enumerate() {
            for spelled in [(*reason).to_owned(), format!("PREVIEW_{reason}")] {
                assert_eq!(judge(&spelled), (*judged, idx as i64 + 1), "{spelled}");
            }
        }
        let undocumented = ["", "PREVIEW_", "SOMETHING_NEW", "insufficient_fund"];
        for reason in undocumented {
            assert_eq!(judge(reason), (UNKNOWN, 0));
        }
        for (status, json, verdict) in [
            (400, true, Verdict::Refused(Class::Other)),
            (401, false, Verdict::Refused(Class::Auth)),
            (403, true, Verdict::Refused(Class::Auth)),
            (403, false, Verdict::Unknown),
            (429, true, Verdict::Refused(Class::RateLimit)),
            (500, true, Verdict::Unknown),
            (502, false, Verdict::Unknown),
            (503, false, Verdict::Unknown),
            (504, false, Verdict::Unknown),
            (520, false, Verdict::Unknown),
            (302, false, Verdict::Unknown),
        ] {
            assert_eq!(judge_status(status, json).0, verdict, "{status}");
        }
        println!(
            "figure OE-01: coinbase {} of {} documented reasons mapped, {} undocumented ones unknown",
            TABLE.len(),
            TABLE.len(),
            undocumented.len()
        );
    }
}
