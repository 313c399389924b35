//! What codes are called for people.
//!
//! Invariant: a code that is not known is shown as it is, never under another's name.
//!
//! Not here: the codes (`tandem_core::detector`, `tandem_core::controls`).

use tandem_core::controls::Control;
use tandem_core::detector::Verdict;

/// Returns what denied a candidate in words, its code behind them in parentheses.
#[must_use]
pub fn denial(code: &str) -> String {
    let plain = |name: &str| name.replace([' ', '-'], "_");
    let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.name() == code);
    let control =
        (0..=u8::MAX).filter_map(Control::from_tag).find(|c| plain(c.name()) == plain(code));
    match (verdict, control) {
        (Some(verdict), _) => format!("{} ({code})", of_verdict(verdict)),
        (None, Some(control)) => {
            // `C11 funds`: the number is the code; a control without one is its own name.
            let number = control.name().split(' ').next().filter(|word| word.starts_with('C'));
            format!("{} ({})", of_control(control), number.unwrap_or(control.name()))
        }
        (None, None) => code.to_owned(),
    }
}

const fn of_verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pays => "Pays",
        Verdict::Edge => "Net edge too small",
        Verdict::Depth => "Too little depth shown",
        Verdict::Lot => "Less than one lot",
        Verdict::NotionalMin => "Worth less than the venue takes",
        Verdict::Limit => "One lot is above a limit",
        Verdict::Stale => "Data too old",
        Verdict::NotLive => "Book not proven in sync",
        Verdict::Status => "Venue or instrument not trading",
        Verdict::Halted => "Instrument halted",
        Verdict::EdgeMax => "Too good to be true",
        Verdict::Control => "A control",
    }
}

const fn of_control(control: Control) -> &'static str {
    match control {
        Control::Level => "Level does not allow it",
        Control::Venue => "Venue's session not ready",
        Control::Instrument => "Instrument or its rules",
        Control::Grid => "Off the venue's grid",
        Control::Collar => "Price outside its collar",
        Control::Quantity => "Quantity above its limit",
        Control::Notional => "Notional above its limit",
        Control::Exposure => "Exposure above its limit",
        Control::OpenOrders => "Too many open orders",
        Control::Unknown => "Orders of unknown outcome",
        Control::Funds => "Not enough funds",
        Control::Pair => "No room for the whole round",
        Control::Throttle => "Too many messages",
        Control::Duplicate => "Duplicate order",
        Control::Repeated => "Repeated execution",
        Control::SelfTrade => "Would trade with ourselves",
        Control::Freshness => "Data not fresh",
        Control::Edge => "Edge or depth gone",
        Control::Loss => "Loss limit",
        Control::Inventory => "Inventory out of its band",
        Control::Slippage => "Slippage above its limit",
        Control::Ack => "Acknowledgements too slow",
        Control::Clock => "Clock not sure enough",
        Control::Build => "Build or configuration differs",
        Control::Session => "Cap of the session",
        Control::Moves => "Price moved too fast",
        Control::Denials => "Too many denials",
        Control::SingleLegs => "Single legs in a row",
        Control::Dust => "Too much dust",
        Control::Held => "A held round",
        Control::Drift => "Ledger differs from the venue",
        Control::Invariant => "A broken invariant",
        Control::Refusal => "Refused by the venue",
        Control::FeeModel => "Fees differ from the model",
        Control::LongUnknown => "Orders unknown for long",
        Control::Bust => "A fill was taken back",
        Control::Size => "Our bounds leave nothing that pays",
        Control::Rounds => "All rounds are in use",
        Control::Outranked => "Better ones were tried in that step",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_and_strangers_their_own() {
        assert_eq!(denial("edge"), "Net edge too small (edge)");
        assert_eq!(denial("C11 funds"), "Not enough funds (C11)");
        assert_eq!(denial("C16_self_trade"), "Would trade with ourselves (C16)");
        assert_eq!(denial("held_round"), "A held round (held round)");
        assert_eq!(denial("<tomorrow's>"), "<tomorrow's>");
    }
}
