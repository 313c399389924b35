//! From what was seen to what was earned: opportunities, edges, lateness, orders; and what was assumed.
//!
//! Invariant: bins are shown as the outcome has them, none is left out and none merged.
//!
//! Not here: the result itself (`money`).

use serde_json::Value;
use tandem_backtest::outcome::{DecayPoint, Outcome};

use super::doc::{Doc, Label, Table};
use super::draw::{self, Bar, Pair, Series, X};
use super::figures::{Column, Rows, Unit, per, ppm};
use super::money::{column, sign};
use super::top::pointer;
use super::words;
use crate::reports::page::escaped;

/// How late the curve of a venue's millisecond is drawn, microseconds; the table has the rest.
const NEAR_US: i64 = 20_000;
/// Points that make a curve.
const NEAR_POINTS: usize = 4;
/// Bars of the codes of denials; the table has the others.
const CODES: usize = 12;

fn unit_words(doc: &Doc) -> String {
    format!("in <span data-name>{}</span>", escaped(&doc.currency.name))
}

/// Words for a range from one cell to the next.
fn range(table: &Table, row: usize, from: i64, to: i64) -> Label {
    let (first, last) = (table.label(row, 0), table.label(row, 1));
    let (no_first, no_last) = (from <= i64::MIN / 2, i64::MAX / 2 <= to);
    match (no_first || from == 0, no_last) {
        (true, true) => Label::text("all"),
        (true, false) => Label::text("below ").then(last),
        (false, true) => first.then(Label::text(" or more")),
        (false, false) => first.then(Label::text(" to ")).then(last),
    }
}

/// From candidates to gains.
pub fn funnel(doc: &mut Doc, outcome: &Outcome) {
    let f = &outcome.funnel;
    doc.section("funnel", "What became of opportunities");
    let steps: [(&str, &str, &str, u64); 4] = [
        ("Opportunities found", "opportunities", "evaluations", f.opportunities),
        ("Tried with a round", "tried", "opportunities", f.tried),
        ("Filled on every leg", "filled", "tried", f.filled),
        ("Earned", "earned", "filled", f.earned),
    ];
    let before = [f.evaluations, f.opportunities, f.tried, f.filled];
    let walked = doc.one(
        "evaluations",
        "Candidates walked exactly",
        Unit::Count,
        "{outcome.json#/funnel/evaluations}",
        f.evaluations,
    );
    let mut bars = Vec::new();
    for ((title, member, of, count), whole) in steps.into_iter().zip(before) {
        let shown = doc.record(Rows {
            id: format!("funnel_{member}"),
            title: title.to_owned(),
            query: "rows {outcome.json#/funnel} single".to_owned(),
            columns: vec![
                column(
                    "Count",
                    Unit::Count,
                    match member {
                        "opportunities" => "{@/opportunities}",
                        "tried" => "{@/tried}",
                        "filled" => "{@/filled}",
                        _ => "{@/earned}",
                    },
                ),
                column(
                    "Of the step before",
                    Unit::Share,
                    match of {
                        "evaluations" => "{@/opportunities} * 1000000 / {@/evaluations}",
                        "opportunities" => "{@/tried} * 1000000 / {@/opportunities}",
                        "tried" => "{@/filled} * 1000000 / {@/tried}",
                        _ => "{@/earned} * 1000000 / {@/filled}",
                    },
                ),
            ],
            rows: vec![vec![count.into(), ppm(count.into(), whole.into())]],
        });
        let text = match shown.number(0, 1) {
            Some(_) => shown.label(0, 0).then(Label::text(", ")).then(shown.label(0, 1)),
            None => shown.label(0, 0),
        };
        bars.push(Bar {
            label: Label::text(title),
            value: shown.number(0, 1).unwrap_or(0) as f64,
            text,
            class: "s0",
        });
    }
    doc.plot(
        &format!("Of {walked} candidates, how many reached each step"),
        "Each bar is the share of the step before it. Several rounds may try one opportunity; from there on rounds \
         are counted, and a hedged one may earn without having filled on every leg.",
        "Bars of the share of each step that reaches the next",
        |width| draw::bars(width, &bars),
        &[],
    );
    let nets = [
        ("Had each been taken as first seen", "opportunities_net", f.opportunities_net),
        ("Expected by the rounds", "tried_net", f.tried_net),
        ("Realised by them", "realised", f.realised),
    ];
    let mut worth = Vec::new();
    for (title, member, value) in nets {
        let query = match member {
            "opportunities_net" => "{@/opportunities_net}",
            "tried_net" => "{@/tried_net}",
            _ => "{@/realised}",
        };
        let table = doc.record(Rows {
            id: format!("funnel_{member}"),
            title: title.to_owned(),
            query: "rows {outcome.json#/funnel} single".to_owned(),
            columns: vec![column("Worth", Unit::Gain, query)],
            rows: vec![vec![value.into()]],
        });
        worth.push(Bar {
            label: Label::text(title),
            value: value as f64,
            text: table.label(0, 0),
            class: sign(value),
        });
    }
    let unit = unit_words(doc);
    doc.plot(
        "What they were worth at each step",
        &format!("After fees, {unit}. Opportunities share the same depth, so all of them together could not have been taken."),
        "Bars of the worth of opportunities, of the rounds' expectation and of what was realised",
        |width| draw::bars(width, &worth),
        &[],
    );
    denials(doc, outcome);
    doc.end();
}

fn denials(doc: &mut Doc, outcome: &Outcome) {
    let of = &outcome.funnel.denials;
    if of.is_empty() {
        return doc.nothing("Why candidates were denied", "None was denied.");
    }
    let table = doc.record(Rows {
        id: "denials".to_owned(),
        title: "Candidates denied, by reason".to_owned(),
        query: "rows {outcome.json#/funnel/denials}".to_owned(),
        columns: vec![
            column("Reason", Unit::Text, "words {@key}"),
            column("Code", Unit::Text, "{@key}"),
            column("Times", Unit::Count, "{@}"),
        ],
        rows: of
            .iter()
            .map(|(code, count)| {
                vec![words::denial(code).into(), code.as_str().into(), (*count).into()]
            })
            .collect(),
    });
    let mut order: Vec<(usize, u64)> = of.values().copied().enumerate().collect();
    order.sort_by_key(|(at, count)| (std::cmp::Reverse(*count), *at));
    let is_cut = CODES < order.len();
    order.truncate(CODES);
    let bars: Vec<Bar> = order
        .iter()
        .map(|(at, count)| Bar {
            label: table.label(*at, 0),
            value: *count as f64,
            text: table.label(*at, 2),
            class: "s3",
        })
        .collect();
    let first = order.first().map(|(at, _)| table.label(*at, 0).html()).unwrap_or_default();
    let cut = if is_cut { " The most frequent are drawn; the table has all." } else { "" };
    doc.plot(
        &format!("Most were denied for: {first}"),
        &format!("How often, repeats counted; the code in parentheses.{cut}"),
        "Bars of the denials by reason",
        |width| draw::bars(width, &bars),
        &[&table],
    );
}

/// What was expected beside what came of it.
pub fn edges(doc: &mut Doc, outcome: &Outcome) {
    doc.section("edges", "Edge: predicted against realised");
    let bins = &outcome.edges;
    if bins.iter().all(|bin| bin.rounds == 0) {
        doc.nothing(
            "Nothing to compare",
            "No round was entered, so no prediction was put to the test.",
        );
        return doc.end();
    }
    let mean = |sum: i64, rounds: u64| per(sum.into(), rounds.into());
    let table = doc.record(Rows {
        id: "edges".to_owned(),
        title: "Rounds by their expected edge".to_owned(),
        query: "rows {outcome.json#/edges}".to_owned(),
        columns: vec![
            column("From", Unit::Edge, "{@/from_ppm}"),
            column("To", Unit::Edge, "{@/to_ppm}"),
            column("Rounds", Unit::Count, "{@/rounds}"),
            column("Expected", Unit::Gain, "{@/expected}"),
            column("Realised", Unit::Gain, "{@/realised}"),
            column("Expected a round", Unit::Gain, "{@/expected} / {@/rounds}"),
            column("Realised a round", Unit::Gain, "{@/realised} / {@/rounds}"),
            column("Kept", Unit::Share, "{@/realised} * 1000000 / {@/expected}"),
        ],
        rows: bins
            .iter()
            .map(|b| {
                vec![
                    b.from_ppm.into(),
                    b.to_ppm.into(),
                    b.rounds.into(),
                    b.expected.into(),
                    b.realised.into(),
                    mean(b.expected, b.rounds),
                    mean(b.realised, b.rounds),
                    ppm(b.realised.into(), b.expected.into()),
                ]
            })
            .collect(),
    });
    let scale = 10f64.powi(doc.currency.exponent.into());
    let rows: Vec<Pair> = bins
        .iter()
        .enumerate()
        .filter(|(_, bin)| 0 < bin.rounds)
        .map(|(at, bin)| Pair {
            label: range(&table, at, bin.from_ppm, bin.to_ppm),
            expected: bin.expected as f64 / bin.rounds as f64 / scale,
            realised: bin.realised as f64 / bin.rounds as f64 / scale,
            text: table.label(at, 2).then(Label::text(if bin.rounds == 1 {
                " round"
            } else {
                " rounds"
            })),
        })
        .collect();
    let kept = doc.one(
        "kept",
        "Realised by all rounds, of what they expected",
        Unit::Share,
        "{outcome.json#/funnel/realised} * 1000000 / {outcome.json#/funnel/tried_net}",
        ppm(outcome.funnel.realised.into(), outcome.funnel.tried_net.into()),
    );
    let unit = unit_words(doc);
    doc.plot(
        &format!("Of what rounds expected, {kept} came of it"),
        &format!("Mean of a round, {unit}, by the edge that was expected when it was entered (after fees and buffers)."),
        "Pairs of marks: expected and realised by expected edge",
        |width| draw::pairs(width, &rows),
        &[&table],
    );
    doc.end();
}

fn decay_columns() -> Vec<Column> {
    vec![
        column("Later by", Unit::Micros, "{@/late_us}"),
        column("Would have earned", Unit::Gain, "{@/net}"),
        column("Filled whole", Unit::Count, "{@/filled}"),
        column("Looked at", Unit::Count, "{@/count}"),
        column("Filled whole, share", Unit::Share, "{@/filled} * 1000000 / {@/count}"),
    ]
}

fn decay_table(doc: &mut Doc, id: &str, title: &str, query: &str, points: &[DecayPoint]) -> Table {
    let rows = points.iter().map(|p| {
        vec![
            Value::from(p.late_us),
            p.net.into(),
            p.filled.into(),
            p.count.into(),
            ppm(p.filled.into(), p.count.into()),
        ]
    });
    doc.record(Rows {
        id: id.to_owned(),
        title: title.to_owned(),
        query: format!("rows {{outcome.json#{query}}}"),
        columns: decay_columns(),
        rows: rows.collect(),
    })
}

/// The curve of one venue: what is lost against being punctual first.
fn late_table(
    doc: &mut Doc,
    id: &str,
    title: &str,
    query: &str,
    points: &[DecayPoint],
    zero: usize,
) -> Table {
    let mut columns = decay_columns();
    let against = format!("{{@/net}} - {{outcome.json#{query}/{zero}/net}}");
    columns.insert(1, column("Against punctual", Unit::Gain, &against));
    let punctual = points.get(zero).map_or(0, |point| point.net);
    let rows = points.iter().map(|p| {
        vec![
            Value::from(p.late_us),
            per(i128::from(p.net) - i128::from(punctual), 1),
            p.net.into(),
            p.filled.into(),
            p.count.into(),
            ppm(p.filled.into(), p.count.into()),
        ]
    });
    doc.record(Rows {
        id: id.to_owned(),
        title: title.to_owned(),
        query: format!("rows {{outcome.json#{query}}}"),
        columns,
        rows: rows.collect(),
    })
}

fn late_axis(points: &[DecayPoint]) -> X {
    let sizes = || points.iter().map(|p| p.late_us.unsigned_abs()).filter(|us| *us != 0);
    let (least, most) = (sizes().min().unwrap_or(1), sizes().max().unwrap_or(1));
    if 40 < most / least { X::Decades } else { X::Micros }
}

fn curve(name: Label, class: &str, points: &[DecayPoint], scale: f64) -> Series {
    Series {
        name,
        class: class.to_owned(),
        points: points.iter().map(|p| (p.late_us as f64, p.net as f64 / scale)).collect(),
        is_area: false,
        is_step: false,
        has_dots: true,
        is_help: false,
    }
}

/// How long opportunities live, and what being late costs.
pub fn lateness(doc: &mut Doc, outcome: &Outcome) {
    doc.section("lateness", "What being late costs");
    let scale = 10f64.powi(doc.currency.exponent.into());
    let unit = unit_words(doc);
    value_of_ms(doc, outcome, scale, &unit);
    if outcome.decay.iter().all(|point| point.count == 0) {
        doc.nothing("Decay", "No opportunity was there to be late for.");
    } else {
        let points = &outcome.decay;
        let table = decay_table(doc, "decay", "All orders later by a time", "/decay", points);
        let last = table.len().saturating_sub(1);
        let (axis, ends) = (late_axis(points), table.label(last, 1));
        let series = curve(ends.clone(), "s0", points, scale);
        let heading = format!(
            "Seen and taken at once: {}; {} later: {}",
            points
                .iter()
                .position(|p| p.late_us == 0)
                .map_or_else(|| table.label(0, 1).html(), |at| table.label(at, 1).html()),
            table.label(last, 0).html(),
            ends.html()
        );
        let log =
            if axis == X::Decades { " Each decade of time is as wide as the next." } else { "" };
        doc.plot(
            &heading,
            &format!("What all opportunities would have earned, {unit}, if every order came later by that much.{log}"),
            "Line of the worth of opportunities over lateness",
            |width| draw::lines(width, std::slice::from_ref(&series), axis),
            &[&table],
        );
    }
    lives(doc, outcome);
    capture(doc, outcome);
    doc.end();
}

fn value_of_ms(doc: &mut Doc, outcome: &Outcome, scale: f64, unit: &str) {
    for (at, (venue, value)) in outcome.value_of_ms.iter().enumerate() {
        let name = escaped(venue);
        if value.points.is_empty() {
            doc.nothing(&format!("<span data-name>{name}</span>"), "No curve was measured.");
            continue;
        }
        let query = format!("/value_of_ms/{}/points", pointer(venue));
        let (id, title) = (format!("late {venue}"), format!("Orders to {venue} later by a time"));
        let zero = value.points.iter().position(|point| point.late_us == 0).unwrap_or(0);
        let table = late_table(doc, &id, &title, &query, &value.points, zero);
        // A millisecond is seen near the beginning, on a scale that is straight.
        let near = value.points.iter().take_while(|point| point.late_us <= NEAR_US).count();
        let (drawn, axis) = match NEAR_POINTS <= near {
            true => (&value.points[..near], X::Micros),
            false => (value.points.as_slice(), late_axis(&value.points)),
        };
        let end = table.label(drawn.len().saturating_sub(1), 1);
        let punctual = value.points.get(zero).map_or(0.0, |point| point.net as f64);
        let mut one = curve(end, &format!("s{}", at % 6), drawn, scale);
        one.points.iter_mut().for_each(|(_, net)| *net -= punctual / scale);
        let mut series = vec![one];
        // The slope, drawn through the point at no lateness, over the run's time; straight on this scale alone.
        let days = outcome.summary.seconds as f64 / 86_400.0;
        if axis == X::Micros && drawn.iter().any(|point| point.late_us == 0) {
            let per_us = value.per_ms_day as f64 * days / 1_000.0;
            let low = drawn.iter().map(|point| point.net as f64 - punctual).fold(0.0, f64::min);
            let most = drawn.iter().map(|point| point.late_us).max().unwrap_or(0) as f64;
            // No further than the curve goes down: the slope is that of its beginning.
            let end = if 0.0 < per_us { (-low / per_us).min(most) } else { most };
            let points = vec![(0.0, 0.0), (end, -per_us * end / scale)];
            series.push(Series {
                name: Label::text("slope"),
                class: "help".to_owned(),
                points,
                is_area: false,
                is_step: false,
                has_dots: false,
                is_help: true,
            });
        }
        let shown = doc.one(
            &format!("ms_{venue}"),
            &format!("{venue}: worth of 1 ms less on its orders, a day"),
            Unit::GainPerDay,
            &format!("{{outcome.json#/value_of_ms/{}/per_ms_day}}", pointer(venue)),
            value.per_ms_day,
        );
        let slope = if series.len() == 2 { " The broken line is that slope." } else { "" };
        let cut = if drawn.len() < value.points.len() { " The table goes on." } else { "" };
        doc.plot(
            &format!("<span data-name>{name}</span>: <span data-name>1 ms</span> is worth {shown}"),
            &format!(
                "What opportunities would have earned more or less in the whole run, {unit}, if orders to this venue alone came later or earlier.{slope}{cut}"
            ),
            &format!("Line of the worth of opportunities over the lateness of {venue}"),
            |width| draw::lines(width, &series, axis),
            &[&table],
        );
    }
}

fn lives(doc: &mut Doc, outcome: &Outcome) {
    let bins = &outcome.lives;
    let all: u64 = bins.iter().map(|bin| bin.count).sum();
    if all == 0 {
        return doc.nothing("How long opportunities lived", "There was none.");
    }
    let table = doc.record(Rows {
        id: "lives".to_owned(),
        title: "Opportunities by how long they lived".to_owned(),
        query: "rows {outcome.json#/lives}".to_owned(),
        columns: vec![
            column("From", Unit::Micros, "{@/from_us}"),
            column("To", Unit::Micros, "{@/to_us}"),
            column("Opportunities", Unit::Count, "{@/count}"),
            column("Their best worth", Unit::Gain, "{@/net}"),
        ],
        rows: bins
            .iter()
            .map(|b| vec![b.from_us.into(), b.to_us.into(), b.count.into(), b.net.into()])
            .collect(),
    });
    let rows: Vec<Bar> = bins
        .iter()
        .enumerate()
        .map(|(at, bin)| Bar {
            label: range(&table, at, bin.from_us, bin.to_us),
            value: bin.count as f64,
            text: table.label(at, 2),
            class: "s0",
        })
        .collect();
    let most = bins.iter().enumerate().max_by_key(|(_, bin)| bin.count).map_or(0, |(at, _)| at);
    let bin = bins.get(most).copied().unwrap_or_default();
    let heading = format!(
        "How long opportunities lived: most often {}",
        range(&table, most, bin.from_us, bin.to_us).html()
    );
    doc.plot(
        &heading,
        "Opportunities by the time from the first to the last moment at which they paid.",
        "Bars of opportunities by their life",
        |width| draw::bars(width, &rows),
        &[&table],
    );
}

fn capture(doc: &mut Doc, outcome: &Outcome) {
    let bins = &outcome.capture;
    if bins.iter().all(|bin| bin.rounds == 0) {
        return doc.nothing("Capture rate by age", "No round was entered.");
    }
    let table = doc.record(Rows {
        id: "capture".to_owned(),
        title: "Rounds by the age of the crossing when the last leg arrived".to_owned(),
        query: "rows {outcome.json#/capture}".to_owned(),
        columns: vec![
            column("From", Unit::Micros, "{@/from_us}"),
            column("To", Unit::Micros, "{@/to_us}"),
            column("Rounds", Unit::Count, "{@/rounds}"),
            column("Filled on every leg", Unit::Count, "{@/filled}"),
            column("Share", Unit::Share, "{@/filled} * 1000000 / {@/rounds}"),
            column("Expected", Unit::Gain, "{@/expected}"),
            column("Realised", Unit::Gain, "{@/realised}"),
        ],
        rows: bins
            .iter()
            .map(|b| {
                vec![
                    b.from_us.into(),
                    b.to_us.into(),
                    b.rounds.into(),
                    b.filled.into(),
                    ppm(b.filled.into(), b.rounds.into()),
                    b.expected.into(),
                    b.realised.into(),
                ]
            })
            .collect(),
    });
    let rows: Vec<Bar> = bins
        .iter()
        .enumerate()
        .map(|(at, bin)| {
            let text = match bin.rounds {
                0 => Label::text("no round"),
                _ => table.label(at, 4).then(Label::text(" of ")).then(table.label(at, 2)),
            };
            let value = table.number(at, 4).unwrap_or(0) as f64;
            Bar { label: range(&table, at, bin.from_us, bin.to_us), value, text, class: "s0" }
        })
        .collect();
    let rate = doc.one(
        "rounds_filled_share",
        "Rounds with all legs filled whole, of those entered",
        Unit::Share,
        "{outcome.json#/summary/rounds_filled} * 1000000 / {outcome.json#/summary/rounds}",
        ppm(outcome.summary.rounds_filled.into(), outcome.summary.rounds.into()),
    );
    doc.plot(
        &format!("Capture rate by age: {rate} of all rounds filled on every leg"),
        "Share of rounds that filled on every leg, by the age of the crossing when their last leg arrived.",
        "Bars of the share of rounds that filled, by age",
        |width| draw::bars(width, &rows),
        &[&table],
    );
}

/// What being left with one leg cost.
pub fn one_leg(doc: &mut Doc, outcome: &Outcome) {
    let o = &outcome.one_leg;
    doc.section("one-leg", "Cost of one leg");
    if o.rounds == 0 {
        doc.nothing("None", "Every round was filled on every leg or not at all.");
        return doc.end();
    }
    let q = |member: &str| format!("{{outcome.json#/one_leg/{member}}}");
    let rounds =
        doc.one("one_leg_rounds", "Rounds left with one leg", Unit::Count, &q("rounds"), o.rounds);
    let expected =
        doc.one("one_leg_expected", "What these expected", Unit::Gain, &q("expected"), o.expected);
    let realised =
        doc.one("one_leg_realised", "What these realised", Unit::Gain, &q("realised"), o.realised);
    let cost = doc.one(
        "one_leg_cost",
        "Expected less realised",
        Unit::Money,
        "{outcome.json#/one_leg/expected} - {outcome.json#/one_leg/realised}",
        o.expected.saturating_sub(o.realised),
    );
    let hedges = doc.one("one_leg_hedges", "Hedges sent", Unit::Count, &q("hedges"), o.hedges);
    let mean =
        doc.one("one_leg_mean", "Mean time until settled", Unit::Micros, &q("mean_us"), o.mean_us);
    let longest = doc.one("one_leg_max", "Longest", Unit::Micros, &q("max_us"), o.max_us);
    doc.say(&format!(
        "{rounds} rounds were left with something that had to be completed or taken back. They expected {expected} and \
         realised {realised}: being left with one leg cost {cost}. {hedges} hedges were sent; it took {mean} on \
         average until nothing was left, {longest} at most."
    ));
    doc.end();
}

/// What happened to orders, by venue; and those that rested.
pub fn venues(doc: &mut Doc, outcome: &Outcome) {
    doc.section("venues", "Orders by venue");
    if outcome.venues.is_empty() {
        doc.nothing("None", "No venue took an order.");
    } else {
        let table = doc.record(Rows {
            id: "venues".to_owned(),
            title: "What happened to orders".to_owned(),
            query: "rows {outcome.json#/venues}".to_owned(),
            columns: vec![
                column("Venue", Unit::Text, "{@key}"),
                column("Orders", Unit::Count, "{@/orders}"),
                column("Filled whole", Unit::Count, "{@/filled}"),
                column("In part", Unit::Count, "{@/partial}"),
                column("Missed", Unit::Count, "{@/missed}"),
                column("Refused", Unit::Count, "sum {@/rejected}"),
                column("Unknown", Unit::Count, "{@/unknown}"),
                column("Into quarantine", Unit::Count, "{@/quarantined}"),
                column("Taken by others", Unit::Share, "{@/taken_by_others_ppm}"),
                column("Order latency p50", Unit::Micros, "{@/entry_us/0}"),
                column("p99", Unit::Micros, "{@/entry_us/1}"),
                column("Feed latency p50", Unit::Micros, "{@/feed_us/0}"),
                column("p99", Unit::Micros, "{@/feed_us/1}"),
                column("Taker fee", Unit::Edge, "{@/taker_fee_ppm}"),
                column("Bans", Unit::Count, "{@/bans}"),
                column("Outages", Unit::Count, "{@/outages}"),
                column("Transfers in", Unit::Count, "{@/transfers}"),
            ],
            rows: outcome
                .venues
                .iter()
                .map(|(venue, v)| {
                    let refused =
                        v.rejected.values().fold(0u64, |sum, count| sum.saturating_add(*count));
                    vec![
                        Value::from(venue.as_str()),
                        v.orders.into(),
                        v.filled.into(),
                        v.partial.into(),
                        v.missed.into(),
                        refused.into(),
                        v.unknown.into(),
                        v.quarantined.into(),
                        v.taken_by_others_ppm.into(),
                        v.entry_us[0].into(),
                        v.entry_us[1].into(),
                        v.feed_us[0].into(),
                        v.feed_us[1].into(),
                        v.taker_fee_ppm.into(),
                        v.bans.into(),
                        v.outages.into(),
                        v.transfers.into(),
                    ]
                })
                .collect(),
        });
        doc.table(&table);
        let mut refused = Vec::new();
        for (venue, v) in outcome.venues.iter().filter(|(_, v)| !v.rejected.is_empty()) {
            let table = doc.record(Rows {
                id: format!("rejected {venue}"),
                title: format!("Refused by {venue}, by reason"),
                query: format!("rows {{outcome.json#/venues/{}/rejected}}", pointer(venue)),
                columns: vec![
                    column("Reason", Unit::Text, "{@key}"),
                    column("Orders", Unit::Count, "{@}"),
                ],
                rows: v
                    .rejected
                    .iter()
                    .map(|(reason, count)| vec![reason.as_str().into(), (*count).into()])
                    .collect(),
            });
            refused.push(table);
        }
        let refused: Vec<&Table> = refused.iter().collect();
        doc.details("Why orders were refused", &refused);
    }
    doc.out.push_str("<h3>Orders that would have rested</h3>\n");
    if outcome.resting.is_empty() {
        doc.say(
            "Not asked for (<code>[resting] is_on</code>): the engine takes, it does not rest.",
        );
    } else {
        let table = doc.record(Rows {
            id: "resting".to_owned(),
            title: "Resting orders followed to learn how long they would have waited".to_owned(),
            query: "rows {outcome.json#/resting}".to_owned(),
            columns: vec![
                column("Instrument", Unit::Text, "{@/instrument}"),
                column("Orders", Unit::Count, "{@/orders}"),
                column("Filled whole", Unit::Count, "{@/filled}"),
                column("Share", Unit::Share, "{@/filled} * 1000000 / {@/orders}"),
                column("Mean time to that", Unit::Micros, "{@/mean_us}"),
            ],
            rows: outcome
                .resting
                .iter()
                .map(|r| {
                    vec![
                        r.instrument.as_str().into(),
                        r.orders.into(),
                        r.filled.into(),
                        ppm(r.filled.into(), r.orders.into()),
                        r.mean_us.into(),
                    ]
                })
                .collect(),
        });
        doc.table(&table);
    }
    doc.end();
}

/// Levels that controls raised.
pub fn levels(doc: &mut Doc, outcome: &Outcome) {
    doc.section("levels", "Levels that controls raised");
    if outcome.levels.is_empty() {
        doc.say("None: no control paused or halted anything.");
    } else {
        let table = doc.record(Rows {
            id: "levels".to_owned(),
            title: "Scope, level, cause and control".to_owned(),
            query: "rows {outcome.json#/levels}".to_owned(),
            columns: vec![
                column("What was raised", Unit::Text, "{@key}"),
                column("Times", Unit::Count, "{@}"),
            ],
            rows: outcome
                .levels
                .iter()
                .map(|(what, times)| vec![what.as_str().into(), (*times).into()])
                .collect(),
        });
        doc.table(&table);
    }
    doc.end();
}

/// How near the simulation comes to what really happened.
pub fn calibration(doc: &mut Doc, outcome: &Outcome) {
    doc.section("calibration", "Calibration");
    let Some(c) = &outcome.calibration else {
        doc.nothing(
            "None",
            "The recording holds no rounds that really happened. A journal of live or paper trading does: \
             <code>tandem report drift</code> compares the two fill by fill.",
        );
        return doc.end();
    };
    let table = doc.record(Rows {
        id: "calibration".to_owned(),
        title: "Simulated beside recorded; an error is simulated less recorded".to_owned(),
        query: "rows {outcome.json#/calibration} single".to_owned(),
        columns: vec![
            column("Rounds recorded", Unit::Count, "{@/recorded_rounds}"),
            column("Simulated", Unit::Count, "{@/simulated_rounds}"),
            column("Entered by both", Unit::Count, "{@/matched}"),
            column("Fill rate error", Unit::Share, "{@/fill_rate_error_ppm}"),
            column("Price error", Unit::Edge, "{@/price_error_ppm}"),
            column("Time to fill error", Unit::Micros, "{@/time_error_us}"),
            column("Median time to fill, recorded", Unit::Micros, "{@/time_live_median_us}"),
            column("Median time to fill, simulated", Unit::Micros, "{@/time_simulated_median_us}"),
            column("Result error", Unit::Difference, "{@/pnl_error}"),
        ],
        rows: vec![vec![
            c.recorded_rounds.into(),
            c.simulated_rounds.into(),
            c.matched.into(),
            c.fill_rate_error_ppm.into(),
            c.price_error_ppm.into(),
            c.time_error_us.into(),
            c.time_live_median_us.into(),
            c.time_simulated_median_us.into(),
            c.pnl_error.into(),
        ]],
    });
    doc.table(&table);
    doc.say(
        "A positive price error is a simulation that was too good. Times to fill are those of orders that both filled; \
         their error is the mean, which a few late ones move and the medians not.",
    );
    doc.end();
}

/// What was assumed, and what was read.
pub fn assumed(doc: &mut Doc, outcome: &Outcome) {
    doc.section("assumed", "What it rests on");
    let d = &outcome.data;
    let table = doc.record(Rows {
        id: "data".to_owned(),
        title: "Data that was read".to_owned(),
        query: "rows {outcome.json#/data} single".to_owned(),
        columns: vec![
            column("From", Unit::Moment, "{@/from_ns}"),
            column("To", Unit::Moment, "{@/to_ns}"),
            column("Market records", Unit::Count, "{@/records}"),
            column("Quarantines", Unit::Count, "{@/quarantines}"),
            column("Negative latencies", Unit::Count, "{@/negative_latencies}"),
        ],
        rows: vec![vec![
            d.from_ns.into(),
            d.to_ns.into(),
            d.records.into(),
            d.quarantines.into(),
            d.negative_latencies.into(),
        ]],
    });
    doc.table(&table);
    for (id, title, value) in [
        ("paths", "Where it was read", serde_json::to_value(&d.paths)),
        ("config", "Configuration", serde_json::to_value(&outcome.config)),
    ] {
        let (mut rows, place) = (Vec::new(), if id == "paths" { "data/paths" } else { id });
        flat(&value.unwrap_or(Value::Null), "", &mut rows);
        // A value that stands alone has no key to be shown by.
        if rows.len() == 1 && rows[0].first() == Some(&Value::from("")) {
            continue;
        }
        let table = doc.record(Rows {
            id: id.to_owned(),
            title: title.to_owned(),
            query: format!("leaves {{outcome.json#/{place}}}"),
            columns: vec![column("Key", Unit::Text, "{@key}"), column("Value", Unit::Text, "{@}")],
            rows,
        });
        doc.details(title, &[&table]);
    }
    let digest = doc.one(
        "digest",
        "SHA-256 over every record in and out of the engine",
        Unit::Text,
        "{outcome.json#/summary/digest}",
        outcome.summary.digest.as_str(),
    );
    let seed = doc.one(
        "seed",
        "Seed",
        Unit::Text,
        "{outcome.json#/summary/seed}",
        outcome.summary.seed.to_string(),
    );
    doc.say(&format!("Seed {seed}; the same seed, data and configuration give the same digest: <code>{digest}</code>"));
    doc.end();
}

/// Every value below one, by its place.
fn flat(value: &Value, place: &str, rows: &mut Vec<Vec<Value>>) {
    match value {
        Value::Object(all) if !all.is_empty() => {
            all.iter()
                .for_each(|(key, value)| flat(value, &format!("{place}/{}", pointer(key)), rows));
        }
        // Samples of a latency may be many: their number is enough to see, the file has them.
        Value::Array(all) if !all.is_empty() && all.len() <= 20 => {
            all.iter()
                .enumerate()
                .for_each(|(at, value)| flat(value, &format!("{place}/{at}"), rows));
        }
        Value::Array(all) if !all.is_empty() => {
            rows.push(vec![place.into(), format!("{} values", all.len()).into()]);
        }
        Value::Null => rows.push(vec![place.into(), "not set".into()]),
        Value::Object(_) => rows.push(vec![place.into(), "none".into()]),
        Value::Array(_) => rows.push(vec![place.into(), "none".into()]),
        Value::String(text) => rows.push(vec![place.into(), text.as_str().into()]),
        other => rows.push(vec![place.into(), other.to_string().into()]),
    }
}
