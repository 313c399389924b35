//! Binance's error codes (`protocols/binance.md` section 9).
//!
//! Invariant: as [`crate::codes`]: what is not in the table is unknown. Codes are stable, messages are not:
//! a message only ever makes a refusal more precise, or less certain.

use tandem_core::order::RejectClass as Class;

use crate::codes::{Effect, Judged, UNKNOWN, Verdict, refused};

/// Judges an error reply to a new order.
#[must_use]
pub fn judge(status: u16, code: i64, message: &str) -> Judged {
    match status {
        418 => return (Verdict::Refused(Class::RateLimit), Effect::Ban),
        // A firewall's page: normally the order did not pass, which is no proof.
        403 => return (Verdict::Unknown, Effect::Wait),
        451 => return (Verdict::Refused(Class::Auth), Effect::Key),
        500.. => return UNKNOWN,
        _ => {}
    }
    match code {
        -1000 | -1001 | -1006 | -1007 | -1008 => UNKNOWN,
        -1002 | -1022 | -2008 | -2014 | -2015 => (Verdict::Refused(Class::Auth), Effect::Key),
        -1003 | -1015 | -1034 => (Verdict::Refused(Class::RateLimit), Effect::Wait),
        -1021 => refused(Class::Auth),
        -1013 | -1111 => refused(Class::Filter),
        -1112 | -1121 | -1122 | -1220 | -2016 | -2043 => refused(Class::Market),
        -1014
        | -1016
        | -1020
        | -1033
        | -1035
        | -1106..=-1100
        | -1108
        | -1120..=-1114
        | -1125
        | -1127
        | -1128
        | -1130
        | -1134
        | -1135
        | -1139
        | -1145
        | -1153..=-1151
        | -1155
        | -1161
        | -1199..=-1165
        | -1210
        | -1211
        | -1225..=-1221
        | -2035
        | -2036
        | -2038
        | -2042 => refused(Class::Other),
        -2010 => rejected_by_engine(message),
        -2011 | -2013 | -2026 | -2039 => refused(Class::NoOrder),
        // Two requests in one: neither of them is ours.
        -2021 | -2022 => UNKNOWN,
        _ => UNKNOWN,
    }
}

/// `-2010` says only that the engine refused; the text says why.
fn rejected_by_engine(message: &str) -> Judged {
    let says = |part: &str| message.contains(part);
    if says("Duplicate order sent") {
        // This client id is live: an order of ours is there, whatever this reply says (trap 17).
        UNKNOWN
    } else if says("insufficient balance") {
        refused(Class::Funds)
    } else if says("immediately match") {
        refused(Class::PostOnly)
    } else if says("trading is not enabled") {
        (Verdict::Refused(Class::Market), Effect::Wait)
    } else if says("disabled on this account") || says("may not place") {
        (Verdict::Refused(Class::Auth), Effect::Key)
    } else if says("Market is closed") || says("symbol is") || says("liquidity") {
        refused(Class::Market)
    } else if says("self-trade") {
        refused(Class::SelfTrade)
    } else if says("zero or less") {
        refused(Class::Filter)
    } else {
        refused(Class::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row OE-01. Every code of the sheet's table, and what is in no table.
    #[test]
    fn every_documented_code_is_judged() {
        let sheet: &[(&[i64], Option<Class>)] = &[
            (&[-1000, -1001, -1006, -1007, -1008], None),
            (&[-1002, -1022, -2008, -2014, -2015, -1021], Some(Class::Auth)),
            (&[-1003, -1015, -1034], Some(Class::RateLimit)),
            (&[-1013, -1111], Some(Class::Filter)),
            (
                &[
                    -1014, -1016, -1020, -1033, -1035, -1100, -1101, -1102, -1103, -1104, -1105,
                    -1106, -1108, -1114, -1115, -1116, -1117, -1118, -1119, -1120, -1125, -1127,
                    -1128, -1130, -1134, -1135, -1139, -1145, -1151, -1152, -1153, -1155, -1161,
                    -1165, -1194, -1199, -1210, -1211, -1221, -1222, -1225, -2035, -2036, -2038,
                    -2042,
                ],
                Some(Class::Other),
            ),
            (&[-1112, -1121, -1122, -1220, -2016, -2043], Some(Class::Market)),
            (&[-2011, -2013, -2026, -2039], Some(Class::NoOrder)),
            (&[-2021, -2022], None),
        ];
        let mut rows = 0;
        for (codes, expected) in sheet {
            for code in *codes {
                let verdict = expected.map_or(Verdict::Unknown, Verdict::Refused);
                assert_eq!(judge(400, *code, "").0, verdict, "{code}");
                assert_eq!(judge(503, *code, "").0, Verdict::Unknown, "5xx is unknown");
                rows += 1;
            }
        }
        let mut unmapped = 0;
        for code in [0, 1, -1, -999, -1004, -1999, -2000, -2044, -3000, i64::MIN, i64::MAX] {
            assert_eq!(judge(400, code, "").0, Verdict::Unknown, "{code} is in no table");
            unmapped += 1;
        }
        println!(
            "figure OE-01: binance {rows} of {rows} documented codes mapped, {unmapped} of {unmapped} undocumented ones unknown"
        );
    }

    #[test]
    fn the_engines_texts() {
        let cases = [
            (
                "Account has insufficient balance for requested action.",
                Verdict::Refused(Class::Funds),
            ),
            ("Duplicate order sent.", Verdict::Unknown),
            ("Order would immediately match and take.", Verdict::Refused(Class::PostOnly)),
            ("Market is closed.", Verdict::Refused(Class::Market)),
            ("This symbol is not permitted for this account.", Verdict::Refused(Class::Market)),
            ("This action is disabled on this account.", Verdict::Refused(Class::Auth)),
            ("Rest API trading is not enabled.", Verdict::Refused(Class::Market)),
            ("Price * QTY is zero or less.", Verdict::Refused(Class::Filter)),
            ("Something new.", Verdict::Refused(Class::Other)),
        ];
        for (message, expected) in cases {
            assert_eq!(judge(400, -2010, message).0, expected, "{message}");
        }
    }

    #[test]
    fn statuses_without_a_code() {
        assert_eq!(judge(418, 0, "").1, Effect::Ban);
        assert_eq!(judge(403, 0, "<html>"), (Verdict::Unknown, Effect::Wait));
        assert_eq!(judge(451, 0, "").1, Effect::Key);
        assert_eq!(judge(429, -1003, "").1, Effect::Wait);
        assert_eq!(judge(401, -2015, "").1, Effect::Key);
        assert_eq!(judge(504, -1007, "").0, Verdict::Unknown);
    }
}
