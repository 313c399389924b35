//! The result: over time, by part, with other assumptions; and the balances.
//!
//! Invariant: what is left out of a plot for room stands in its table, or its query says what was left out.
//!
//! Not here: what became of opportunities and orders (`orders`).

use std::collections::BTreeMap;

use serde_json::Value;
use tandem_backtest::outcome::{Bucket, Outcome};

use super::Sensitivity;
use super::doc::{Doc, Label, Table};
use super::draw::{self, Bar, Hour, Series, X};
use super::figures::{Column, Rows, Unit};
use super::top::pointer;

/// Rows of a table behind a line: the line itself has them all.
const LINE_ROWS: usize = 60;
/// Bars of a plot; the table has the others.
const BARS: usize = 12;
/// Hours that are shown as bars; more are a calendar.
const BAR_HOURS: usize = 12;
/// Colours of lines.
const COLOURS: usize = 6;

/// Returns a column.
#[must_use]
pub fn column(title: &'static str, unit: Unit, query: &str) -> Column {
    Column { title, unit, query: query.to_owned() }
}

/// Returns the colour of a bar.
#[must_use]
pub const fn sign(value: i64) -> &'static str {
    if value < 0 { "loss" } else { "gain" }
}

/// Takes every nth of a list and the last, and says so in the query.
pub fn thinned<T>(all: &[T], query: &str) -> (Vec<usize>, String) {
    let every = all.len().div_ceil(LINE_ROWS).max(1);
    if every == 1 {
        return ((0..all.len()).collect(), query.to_owned());
    }
    let mut taken: Vec<usize> = (0..all.len()).step_by(every).collect();
    if taken.last() != Some(&(all.len() - 1)) {
        taken.push(all.len() - 1);
    }
    (taken, format!("{query} every {every}"))
}

fn line(name: Label, class: &str, points: Vec<(f64, f64)>) -> Series {
    Series {
        name,
        class: class.to_owned(),
        points,
        is_area: false,
        is_step: false,
        has_dots: false,
        is_help: false,
    }
}

/// Equity and drawdown over time.
pub fn equity(doc: &mut Doc, outcome: &Outcome) {
    doc.section("equity", "Equity over time");
    let points = &outcome.equity;
    if outcome.summary.rounds == 0 || points.is_empty() {
        doc.nothing(
            "Nothing to draw",
            "No round was entered, so the result stayed at zero all the time.",
        );
        return doc.end();
    }
    let (taken, query) = thinned(points, "rows {outcome.json#/equity}");
    let rows = taken.into_iter().filter_map(|at| points.get(at));
    let table = doc.record(Rows {
        id: "equity".to_owned(),
        title: "Result and distance from its peak".to_owned(),
        query,
        columns: vec![
            column("Time", Unit::Moment, "{@/at_ns}"),
            column("Result so far", Unit::Gain, "{@/pnl}"),
            column("Below its peak", Unit::Gain, "{@/drawdown}"),
        ],
        rows: rows.map(|p| vec![p.at_ns.into(), p.pnl.into(), p.drawdown.into()]).collect(),
    });
    let last = table.len().saturating_sub(1);
    let at = |value: fn(&tandem_backtest::outcome::EquityPoint) -> i64| -> Vec<(f64, f64)> {
        let scale = scale(doc);
        points.iter().map(|p| (p.at_ns as f64, value(p) as f64 / scale)).collect()
    };
    let unit = unit_words(doc);
    let mut result = line(table.label(last, 1), "s0", at(|p| p.pnl));
    result.is_step = true;
    let mut fall = line(table.label(last, 2), "loss", at(|p| p.drawdown));
    (fall.is_step, fall.is_area) = (true, true);
    let end = table.label(last, 1).html();
    doc.plot(
        &format!("The result ends at {end}"),
        &format!("Rounds settled so far, fees included, {unit}."),
        "Line of the result over time",
        |width| draw::lines(width, std::slice::from_ref(&result), X::Time),
        &[&table],
    );
    let deepest = doc.one(
        "drawdown",
        "Largest fall of the equity from a peak",
        Unit::Money,
        "{outcome.json#/summary/drawdown}",
        outcome.summary.drawdown,
    );
    let heading = match outcome.summary.drawdown {
        0 => "It never fell below an earlier peak".to_owned(),
        _ => format!("It was at most {deepest} below an earlier peak"),
    };
    doc.plot(
        &heading,
        &format!("Distance of the result from its highest so far, {unit}."),
        "Area of the drawdown over time, below zero",
        |width| draw::lines(width, std::slice::from_ref(&fall), X::Time),
        &[],
    );
    doc.end();
}

/// Quanta of one whole unit of the numeraire, for places on the page.
fn scale(doc: &Doc) -> f64 {
    10f64.powi(doc.currency.exponent.into())
}

/// What a plot's scale counts in.
fn unit_words(doc: &Doc) -> String {
    format!("in <span data-name>{}</span>", crate::reports::page::escaped(&doc.currency.name))
}

/// What the result would be if things were worse.
pub fn sensitivity(doc: &mut Doc, all: Option<&[Sensitivity]>) {
    doc.section("sensitivity", "If things are worse than assumed");
    let Some(all) = all else {
        doc.nothing(
            "Not tried",
            "No sensitivity.json is beside the outcome. <code>tandem backtest --sensitivity</code> runs the same data with \
             slower orders, more competition and other fees.",
        );
        return doc.end();
    };
    let axes = [
        ("latency", "Slower orders", "Every latency times this factor."),
        (
            "competition",
            "More competition",
            "Share of the crossing depth that others have taken, in percent.",
        ),
        ("fees", "Other fees", "Taker's fee of every venue, or the tier that every venue is at."),
    ];
    for (axis, title, reading) in axes {
        let of: Vec<&Sensitivity> = all.iter().filter(|one| one.axis == axis).collect();
        if of.is_empty() {
            doc.nothing(title, "Not tried in this run.");
            continue;
        }
        let table = doc.record(Rows {
            id: format!("sensitivity_{axis}"),
            title: format!("{title}: what came of it"),
            query: format!("rows {{sensitivity.json#}} where /axis = {axis}"),
            columns: vec![
                column("Value", Unit::Text, "{@/value}"),
                column("Result", Unit::Gain, "{@/summary/pnl}"),
                column("Rounds", Unit::Count, "{@/summary/rounds}"),
                column("Filled on every leg", Unit::Count, "{@/summary/rounds_filled}"),
                column("Deepest fall", Unit::Money, "{@/summary/drawdown}"),
                column("Fees", Unit::Money, "{@/summary/fees}"),
                column("Conserved", Unit::Flag, "{@/summary/is_conserved}"),
            ],
            rows: of
                .iter()
                .map(|one| {
                    let s = &one.summary;
                    vec![
                        one.value.as_str().into(),
                        s.pnl.into(),
                        s.rounds.into(),
                        s.rounds_filled.into(),
                        s.drawdown.into(),
                        s.fees.into(),
                        s.is_conserved.into(),
                    ]
                })
                .collect(),
        });
        let bars: Vec<Bar> = of
            .iter()
            .enumerate()
            .map(|(at, one)| {
                let value = table.label(at, 0);
                let label = match axis {
                    "latency" => Label::text("×").then(value),
                    "competition" => value.then(Label::text(" %")),
                    _ => value,
                };
                if one.summary.is_conserved {
                    let pnl = one.summary.pnl;
                    Bar { label, value: pnl as f64, text: table.label(at, 1), class: sign(pnl) }
                } else {
                    Bar { label, value: 0.0, text: Label::text("void"), class: "loss" }
                }
            })
            .collect();
        let lost = of.iter().filter(|one| one.summary.pnl < 0 && one.summary.is_conserved).count();
        let heading = match lost {
            0 => format!("{title}: it loses in none of them"),
            all if all == of.len() => format!("{title}: it loses in all of them"),
            _ => format!("{title}: it loses in some of them"),
        };
        let unit = unit_words(doc);
        doc.plot(
            &heading,
            &format!("{reading} The result, {unit}."),
            &format!("Bars of the result: {title}"),
            |width| draw::bars(width, &bars),
            &[&table],
        );
    }
    doc.end();
}

fn bucket_columns(first: &'static str) -> Vec<Column> {
    vec![
        column(first, Unit::Text, "{@key}"),
        column("Result", Unit::Gain, "{@/pnl}"),
        column("Fees", Unit::Money, "{@/fees}"),
        column("Turnover", Unit::Money, "{@/turnover}"),
        column("Rounds", Unit::Count, "{@/rounds}"),
        column("Fills", Unit::Count, "{@/fills}"),
    ]
}

fn bucket_table(
    doc: &mut Doc,
    first: &'static str,
    member: &str,
    of: &BTreeMap<String, Bucket>,
) -> Table {
    let rows = of.iter().map(|(name, b)| {
        vec![
            Value::from(name.as_str()),
            b.pnl.into(),
            b.fees.into(),
            b.turnover.into(),
            b.rounds.into(),
            b.fills.into(),
        ]
    });
    doc.record(Rows {
        id: member.to_owned(),
        title: format!("By {}", first.to_lowercase()),
        query: format!("rows {{outcome.json#/{member}}}"),
        columns: bucket_columns(first),
        rows: rows.collect(),
    })
}

/// Where the result came from.
pub fn parts(doc: &mut Doc, outcome: &Outcome) {
    doc.section("parts", "Where the result came from");
    let unit = unit_words(doc);
    let shares = "Each round counts with its share of the turnover.";
    let all = [
        ("Venue", "by_venue", &outcome.by_venue, shares),
        ("Instrument", "by_instrument", &outcome.by_instrument, shares),
        ("Kind", "by_kind", &outcome.by_kind, "Kinds of cycles."),
        ("Route", "by_route", &outcome.by_route, "The routes with the most rounds."),
    ];
    for (first, member, of, reading) in all {
        let title = format!("By {}", first.to_lowercase());
        if of.is_empty() {
            doc.nothing(&title, "No round touched any.");
            continue;
        }
        let table = bucket_table(doc, first, member, of);
        let mut order: Vec<(usize, i64)> = of.values().map(|b| b.pnl).enumerate().collect();
        order.sort_by_key(|(_, pnl)| std::cmp::Reverse(pnl.unsigned_abs()));
        let is_cut = BARS < order.len();
        order.truncate(BARS);
        order.sort_by_key(|(_, pnl)| std::cmp::Reverse(*pnl));
        let bars: Vec<Bar> = order
            .iter()
            .map(|(at, pnl)| Bar {
                label: table.label(*at, 0),
                value: *pnl as f64,
                text: table.label(*at, 1),
                class: sign(*pnl),
            })
            .collect();
        let best = order.first().filter(|(_, pnl)| 0 < *pnl);
        let heading = match best {
            Some((at, _)) => format!(
                "{title}: most came from {}, {}",
                table.label(*at, 0).html(),
                table.label(*at, 1).html()
            ),
            None => format!("{title}: none of them earned"),
        };
        let cut = if is_cut { " The largest are drawn; the table has all." } else { "" };
        doc.plot(
            &heading,
            &format!("{reading} Result after fees, {unit}.{cut}"),
            &format!("Bars of the result {}", title.to_lowercase()),
            |width| draw::bars(width, &bars),
            &[&table],
        );
    }
    hours(doc, outcome);
    doc.end();
}

fn hours(doc: &mut Doc, outcome: &Outcome) {
    let of = &outcome.by_hour;
    if of.is_empty() {
        return doc.nothing("By hour", "No round was entered in any hour.");
    }
    let table = bucket_table(doc, "Hour", "by_hour", of);
    let by_value = |pick: fn(&(usize, i64), &(usize, i64)) -> std::cmp::Ordering| {
        of.values().map(|b| b.pnl).enumerate().max_by(pick)
    };
    let best = by_value(|a, b| a.1.cmp(&b.1));
    let worst = by_value(|a, b| b.1.cmp(&a.1));
    let said = |place: Option<(usize, i64)>| {
        let Some((at, _)) = place else { return String::new() };
        format!("{}, {}", table.label(at, 0).html(), table.label(at, 1).html())
    };
    let heading = match of.len() {
        1 => format!("By hour: all in one, {}", said(best)),
        _ => format!("By hour: best {}; worst {}", said(best), said(worst)),
    };
    let unit = unit_words(doc);
    if of.len() <= BAR_HOURS {
        let bars: Vec<Bar> = of
            .values()
            .enumerate()
            .map(|(at, b)| Bar {
                label: table.label(at, 0),
                value: b.pnl as f64,
                text: table.label(at, 1),
                class: sign(b.pnl),
            })
            .collect();
        let reading = format!("Hours of UTC. Result after fees, {unit}.");
        let draw = |width| draw::bars(width, &bars);
        return doc.plot(&heading, &reading, "Bars of the result by hour", draw, &[&table]);
    }
    let cells: Vec<Hour> = of
        .iter()
        .enumerate()
        .filter_map(|(at, (name, b))| {
            // `YYYY-MM-DDTHH`; what is no hour stands in the table alone.
            let (day, hour) = (name.get(5..10)?, name.get(11..13)?.parse().ok()?);
            let hour: usize = hour;
            (hour < 24).then(|| Hour {
                day: crate::reports::page::escaped(day),
                hour,
                value: b.pnl as f64,
                tip: table.label(at, 1),
            })
        })
        .collect();
    doc.plot(
        &heading,
        "A row a day, a field an hour of UTC; green earned, red lost, the deeper the more. Empty: no round.",
        "Calendar of the result by hour",
        |width| draw::hours(width, &cells),
        &[&table],
    );
}

/// Balances over time.
pub fn inventory(doc: &mut Doc, outcome: &Outcome) {
    doc.section("inventory", "Inventory over time");
    let mut assets: BTreeMap<&str, Vec<(&str, &String)>> = BTreeMap::new();
    let mut without: Vec<&String> = Vec::new();
    for (key, points) in &outcome.inventory {
        let Some((venue, asset)) = key.split_once(' ') else {
            without.push(key);
            continue;
        };
        // An amount without its exponent is no amount: what has neither worth nor exponent is not drawn.
        let has_worth = points.iter().all(|point| point.worth.is_some());
        match points.is_empty() || !(has_worth || outcome.assets.contains_key(asset)) {
            false => assets.entry(asset).or_default().push((venue, key)),
            true => without.push(key),
        }
    }
    if assets.is_empty() {
        doc.nothing("Nothing to draw", "No balance was recorded.");
    }
    let unit = unit_words(doc);
    let mut moved = 0;
    for (asset, lines) in &assets {
        let exponent = outcome.assets.get(*asset).map(|exponent| (*exponent).min(18));
        let of = |key: &String| outcome.inventory.get(key).into_iter().flatten();
        let is_worth = lines.iter().flat_map(|(_, key)| of(key)).all(|p| p.worth.is_some());
        let divisor = match (is_worth, exponent) {
            (true, _) => scale(doc),
            (false, exponent) => 10f64.powi(exponent.unwrap_or(0).into()),
        };
        let mut tables = Vec::new();
        let mut series = Vec::new();
        for (at, (venue, key)) in lines.iter().enumerate() {
            let Some(points) = outcome.inventory.get(*key) else { continue };
            let (taken, query) =
                thinned(points, &format!("rows {{outcome.json#/inventory/{}}}", pointer(key)));
            let rows = taken.into_iter().filter_map(|at| points.get(at));
            let table = doc.record(Rows {
                id: format!("inventory {key}"),
                title: format!("{asset} at {venue}"),
                query,
                columns: vec![
                    column("Time", Unit::Moment, "{@/at_ns}"),
                    column("Worth", Unit::Money, "{@/worth}"),
                    column("Amount", exponent.map_or(Unit::Count, Unit::Asset), "{@/amount}"),
                ],
                rows: rows.map(|p| vec![p.at_ns.into(), p.worth.into(), p.amount.into()]).collect(),
            });
            let last = table.len().saturating_sub(1);
            let drawn = points.iter().filter_map(|p| {
                let value = if is_worth { p.worth? } else { p.amount };
                Some((p.at_ns as f64, value as f64 / divisor))
            });
            let shown = if is_worth { 1 } else { 2 };
            let name = Label::text(venue).then(Label::text(" ")).then(table.label(last, shown));
            let mut one = line(name, &format!("s{}", at % COLOURS), drawn.collect());
            one.is_step = true;
            series.push(one);
            tables.push(table);
        }
        moved += series.len();
        let all: Vec<&Table> = tables.iter().collect();
        let name = crate::reports::page::escaped(asset);
        let what = match is_worth {
            true => format!("Worth of the balance at the time, {unit}"),
            false => "The balance itself, for no book told its worth all the time".to_owned(),
        };
        let reading = format!("{what}; at the end of a line, what was left.");
        doc.plot(
            &format!("<span data-name>{name}</span>, by venue"),
            &reading,
            &format!("Lines of the balance of {asset} at each venue"),
            |width| draw::lines(width, &series, X::Time),
            &all,
        );
    }
    if !without.is_empty() && moved != 0 {
        let names: Vec<String> =
            without.iter().map(|name| crate::reports::page::escaped(name)).collect();
        doc.say(&format!(
            "Not drawn, because neither their worth nor their decimals are told: <span data-name>{}</span>.",
            names.join(", ")
        ));
    }
    doc.end();
}
