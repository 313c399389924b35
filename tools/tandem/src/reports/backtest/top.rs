//! What is read first: the verdict, what a millisecond is worth, the headline figures.
//!
//! Invariant: a run that is not conserved is called void, and nothing else is said of it. A statement on how a
//! result holds is made where it was tried, and its lack is said where it was not.
//!
//! Not here: what is behind the figures (`money`, `orders`).

use std::fmt::Write;

use serde_json::Value;
use tandem_backtest::outcome::{Outcome, ValueOfMs};

use super::Sensitivity;
use super::doc::Doc;
use super::figures::{Column, Rows, Unit, ppm};
use crate::reports::page::escaped;

/// Rounds below which one of them may be all of the result.
const FEW_ROUNDS: u64 = 30;
/// Seconds of recording below which amounts a day are those of another day.
const SHORT_S: i64 = 6 * 3_600;

/// A run that does not add up.
pub fn void(doc: &mut Doc, outcome: &Outcome) {
    doc.out.push_str(
        "<section id=\"verdict\" class=\"void\" role=\"alert\" aria-labelledby=\"verdict-title\">\n\
         <h2 id=\"verdict-title\">VOID: this run does not add up</h2>\n",
    );
    let wrong: Vec<String> = outcome
        .conservation
        .iter()
        .filter(|one| one.difference != "0")
        .map(|one| escaped(&one.asset))
        .collect();
    let named = match wrong.as_slice() {
        [] => "The run itself says so, without naming an asset".to_owned(),
        all => format!(
            "What there was, what was traded and what was paid is not what is left of <span data-name>{}</span>",
            all.join(", ")
        ),
    };
    doc.say(&format!(
        "{named}. Something came from nowhere or went there, so none of its figures can be believed, and none \
         is shown. The table says by how much; the cause is a fault of the program or of its input."
    ));
    conservation(doc, outcome);
    doc.end();
}

/// The conservation of every asset.
pub fn conservation(doc: &mut Doc, outcome: &Outcome) {
    let text = |title: &'static str, query: &str| Column {
        title,
        unit: Unit::Text,
        query: str::to_owned(query),
    };
    let rows = outcome.conservation.iter().map(|one| {
        [
            &one.asset,
            &one.difference,
            &one.opening,
            &one.traded,
            &one.fees,
            &one.transfer_fees,
            &one.in_transit,
            &one.closing,
            &one.ledger,
        ]
        .map(|text| Value::from(text.as_str()))
        .to_vec()
    });
    let rows = Rows {
        id: "conservation".to_owned(),
        title: "Opening + traded − fees − transfer fees = in transit + closing, by the venues' books and by our ledger; a difference \
                is in quanta"
            .to_owned(),
        query: "rows {outcome.json#/conservation}".to_owned(),
        columns: vec![
            text("Asset", "{@/asset}"),
            text("Difference", "{@/difference}"),
            text("Opening", "{@/opening}"),
            text("Traded", "{@/traded}"),
            text("Fees", "{@/fees}"),
            text("Transfer fees", "{@/transfer_fees}"),
            text("In transit", "{@/in_transit}"),
            text("Closing", "{@/closing}"),
            text("Our ledger", "{@/ledger}"),
        ],
        rows: rows.collect(),
    };
    let table = doc.record(rows);
    if table.is_empty() {
        doc.say("No asset was held.");
    } else {
        doc.table(&table);
    }
}

fn summary(
    doc: &mut Doc,
    title: &str,
    unit: Unit,
    member: &str,
    value: impl Into<Value>,
) -> String {
    doc.one(member, title, unit, &format!("{{outcome.json#/summary/{member}}}"), value)
}

/// The verdict in words.
pub fn verdict(doc: &mut Doc, outcome: &Outcome, sensitivity: Option<&[Sensitivity]>) {
    let s = &outcome.summary;
    doc.section("verdict", "Verdict");
    let pnl =
        summary(doc, "Result of all rounds that settled, fees included", Unit::Gain, "pnl", s.pnl);
    let time = summary(doc, "Length of the recording", Unit::Seconds, "seconds", s.seconds);
    let rounds = summary(doc, "Rounds entered", Unit::Count, "rounds", s.rounds);
    let first = if s.rounds == 0 {
        let found =
            summary(doc, "Opportunities opened", Unit::Count, "opportunities", s.opportunities);
        let walked = doc.one(
            "evaluations",
            "Candidates walked exactly",
            Unit::Count,
            "{outcome.json#/funnel/evaluations}",
            outcome.funnel.evaluations,
        );
        match s.opportunities {
            0 => format!(
                "<strong>No trade.</strong> In {time} of recorded market nothing paid after fees and buffers: {walked} \
                 candidates were walked and all were denied."
            ),
            _ => format!(
                "<strong>No trade.</strong> In {time} of recorded market {found} opportunities were found, and no round \
                 was entered: what was denied, and why, stands under Opportunities."
            ),
        }
    } else {
        let word = match s.pnl {
            0 => "came out even at",
            gain if 0 < gain => "would have earned",
            _ => "would have lost:",
        };
        format!(
            "Over {time} of recorded market this configuration {word} <strong>{pnl}</strong> after fees, in {rounds} \
             rounds."
        )
    };
    let _ = writeln!(doc.out, "<p class=\"lead\">{first}</p>");
    if 0 < s.rounds {
        let mut parts = vec![robust(doc, s.pnl, sensitivity)];
        if s.rounds < FEW_ROUNDS {
            parts.push("So few rounds prove little: one of them may be all of it.".to_owned());
        }
        parts.push(calibrated(doc, outcome));
        if 0 < s.rounds_held {
            let held =
                summary(doc, "Rounds held at the end", Unit::Count, "rounds_held", s.rounds_held);
            parts.push(format!(
                "{held} rounds were still held at the end: an operator would have been called."
            ));
        }
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        doc.say(&parts.join(" "));
    }
    doc.end();
}

/// How the result holds when things are worse than assumed.
fn robust(doc: &mut Doc, pnl: i64, sensitivity: Option<&[Sensitivity]>) -> String {
    let Some(all) = sensitivity.filter(|all| !all.is_empty()) else {
        return "No sensitivity run is beside it (<code>tandem backtest --sensitivity</code>): nothing says how it holds \
                when orders are slower or others faster."
            .to_owned();
    };
    if pnl <= 0 {
        return String::new();
    }
    let mut parts = Vec::new();
    for (axis, what) in [("latency", "latency"), ("competition", "share taken by competitors")] {
        let of = || {
            all.iter().enumerate().filter(|(_, one)| one.axis == axis && one.summary.is_conserved)
        };
        let bad = of().find(|(_, one)| one.summary.pnl <= 0);
        let word = |doc: &mut Doc, (at, one): (usize, &Sensitivity), id: &str| {
            let query = format!("{{sensitivity.json#/{at}/value}}");
            doc.one(
                &format!("{axis}_{id}"),
                &format!("{what}: {id}"),
                Unit::Text,
                &query,
                one.value.as_str(),
            )
        };
        let suffix = if axis == "latency" { "times what was assumed" } else { "%" };
        match (bad, of().next_back()) {
            (Some(bad), _) => {
                let text = word(doc, bad, "where it stops paying");
                parts.push(format!("at a {what} of {text} {suffix} it no longer pays"));
            }
            (None, Some(last)) => {
                let text = word(doc, last, "up to where it pays");
                parts.push(format!("at a {what} of {text} {suffix} it still pays"));
            }
            (None, None) => {}
        }
    }
    match parts.as_slice() {
        [] => String::new(),
        [one] => format!("Under worse assumptions: {one}."),
        [first, second, ..] => format!("Under worse assumptions: {first}; {second}."),
    }
}

fn calibrated(doc: &mut Doc, outcome: &Outcome) -> String {
    let Some(calibration) = outcome.calibration.as_ref().filter(|c| 0 < c.recorded_rounds) else {
        return "It is not calibrated: the recording holds no rounds that really happened, so how near it comes to \
                reality is not known."
            .to_owned();
    };
    let recorded = doc.one(
        "recorded_rounds",
        "Rounds in the recording",
        Unit::Count,
        "{outcome.json#/calibration/recorded_rounds}",
        calibration.recorded_rounds,
    );
    let error = pnl_error(doc, calibration.pnl_error);
    format!(
        "{recorded} rounds were really traded on this market: simulated less real, the results differ by {error}."
    )
}

fn pnl_error(doc: &mut Doc, error: i64) -> String {
    doc.one(
        "calibration_pnl_error",
        "Calibration: simulated result less the real one",
        Unit::Difference,
        "{outcome.json#/calibration/pnl_error}",
        error,
    )
}

/// What a millisecond is worth, by venue: the first thing that is looked for.
pub fn millisecond(doc: &mut Doc, outcome: &Outcome) {
    doc.out.push_str(
        "<section id=\"millisecond\" class=\"ms\" aria-labelledby=\"millisecond-title\">\n\
         <h2 id=\"millisecond-title\">What is <span data-name>1 ms</span> worth?</h2>\n",
    );
    let mut venues: Vec<(&String, &ValueOfMs)> = outcome.value_of_ms.iter().collect();
    if venues.is_empty() {
        doc.say("Not measured in this run: there was no opportunity to measure it on.");
        return doc.end();
    }
    let time =
        summary(doc, "Length of the recording", Unit::Seconds, "seconds", outcome.summary.seconds);
    let short = match outcome.summary.seconds < SHORT_S {
        true => {
            " So short a recording does not stand for a day: take the order of the venues from it, not the amounts."
        }
        false => "",
    };
    doc.say(&format!(
        "What would be added every day if orders to that venue, and to it alone, arrived <span data-name>1 ms</span> \
         earlier; counted over every opportunity that was seen in {time}, taken or not, after fees and competitors, \
         and scaled to a day.{short} <a href=\"#lateness\">The curves</a>"
    ));
    venues.sort_by_key(|(_, value)| std::cmp::Reverse(value.per_ms_day));
    let most = venues.iter().map(|(_, value)| value.per_ms_day.unsigned_abs()).max();
    let most = most.unwrap_or(0).max(1);
    doc.out.push_str("<ul class=\"cards\">\n");
    for (venue, of) in venues {
        let value = of.per_ms_day;
        let is_early = of.points.first().is_some_and(|point| point.late_us < 0);
        let shown = doc.one(
            &format!("ms_{venue}"),
            &format!("{venue}: worth of 1 ms less on its orders, a day"),
            Unit::GainPerDay,
            &format!("{{outcome.json#/value_of_ms/{}/per_ms_day}}", pointer(venue)),
            value,
        );
        let note = match value {
            0 => "faster orders would add nothing here",
            gain if 0 < gain && is_early => {
                "for the first millisecond that orders here arrive earlier"
            }
            gain if 0 < gain => {
                "is what one millisecond more would cost: there is none to be saved"
            }
            _ => "faster orders would not have paid here",
        };
        let share = value.unsigned_abs() as f64 / most as f64 * 100.0;
        let class = if value < 0 { "loss" } else { "gain" };
        let _ = writeln!(
            doc.out,
            "<li><h3><span data-name>{}</span></h3><p class=\"big\">{shown}</p><div class=\"meter\" aria-hidden=\"true\"><i \
             class=\"{class}\" style=\"width:{share:.1}%\"></i></div><p>{note}</p></li>",
            escaped(venue)
        );
    }
    doc.out.push_str("</ul>\n");
    doc.end();
}

/// A member's name in a JSON pointer.
#[must_use]
pub fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The figures on one line.
pub fn headline(doc: &mut Doc, outcome: &Outcome) {
    let s = &outcome.summary;
    doc.section("headline", "In figures");
    let pnl =
        summary(doc, "Result of all rounds that settled, fees included", Unit::Gain, "pnl", s.pnl);
    let marked = summary(
        doc,
        "The same, what is open marked with the worse side",
        Unit::Gain,
        "pnl_marked",
        s.pnl_marked,
    );
    let drawdown =
        summary(doc, "Largest fall of the equity from a peak", Unit::Money, "drawdown", s.drawdown);
    let fees = summary(doc, "Fees", Unit::Money, "fees", s.fees);
    let turnover = summary(doc, "Worth of all fills", Unit::Money, "turnover", s.turnover);
    let rounds = summary(doc, "Rounds entered", Unit::Count, "rounds", s.rounds);
    let lost = summary(doc, "Rounds that lost", Unit::Count, "rounds_lost", s.rounds_lost);
    let whole = doc.one(
        "rounds_filled_share",
        "Rounds with all legs filled whole, of those entered",
        Unit::Share,
        "{outcome.json#/summary/rounds_filled} * 1000000 / {outcome.json#/summary/rounds}",
        ppm(s.rounds_filled.into(), s.rounds.into()),
    );
    let hedged = summary(
        doc,
        "Rounds with something left over that was completed or taken back",
        Unit::Count,
        "rounds_hedged",
        s.rounds_hedged,
    );
    let missed = summary(
        doc,
        "Rounds in which nothing filled",
        Unit::Count,
        "rounds_missed",
        s.rounds_missed,
    );
    let orders = summary(doc, "Orders sent", Unit::Count, "orders", s.orders);
    let rate = doc.one(
        "fill_rate",
        "Orders filled whole or in part, of those sent",
        Unit::Share,
        "{outcome.json#/summary/orders_filled} * 1000000 / {outcome.json#/summary/orders}",
        ppm(s.orders_filled.into(), s.orders.into()),
    );
    let rejected =
        summary(doc, "Orders refused", Unit::Count, "orders_rejected", s.orders_rejected);
    let assets = doc.one(
        "conserved_assets",
        "Assets whose sums agree",
        Unit::Count,
        "count {outcome.json#/conservation}",
        outcome.conservation.len(),
    );
    let mut tiles = vec![
        ("Result", pnl, format!("{marked} with what is open at its worse side")),
        ("Deepest fall", drawdown, "of the equity from a peak".to_owned()),
        ("Fees", fees, format!("on a turnover of {turnover}")),
        ("Rounds", rounds, format!("{lost} of them lost")),
        ("Filled on every leg", whole, format!("{hedged} hedged, {missed} without a fill")),
        ("Orders filled", rate, format!("of {orders}; {rejected} refused")),
        ("Conservation", "exact".to_owned(), format!("to the last quantum, in {assets} assets")),
    ];
    match outcome.calibration.as_ref().filter(|c| 0 < c.recorded_rounds) {
        None => tiles.push((
            "Calibration",
            "none".to_owned(),
            "no real rounds in the recording to compare with".to_owned(),
        )),
        Some(calibration) => {
            let error = pnl_error(doc, calibration.pnl_error);
            let rate = doc.one(
                "calibration_fill_rate_error",
                "Calibration: simulated fill rate less the real one",
                Unit::Share,
                "{outcome.json#/calibration/fill_rate_error_ppm}",
                calibration.fill_rate_error_ppm,
            );
            tiles.push((
                "Calibration error",
                error,
                format!("of the result; {rate} of the fill rate"),
            ));
        }
    }
    doc.out.push_str("<dl class=\"tiles\">\n");
    for (name, value, note) in tiles {
        let _ = writeln!(
            doc.out,
            "<div><dt>{name}</dt><dd class=\"big\">{value}</dd><dd>{note}</dd></div>"
        );
    }
    doc.out.push_str("</dl>\n");
    doc.end();
}
