//! Sections of tables, as text for a terminal and as one HTML page.
//!
//! Invariant: both show the same words and numbers, from the same value. The page needs nothing else: no script,
//! no other file, no network; its colours follow the reader's choice of dark or light, and its tables scroll on a
//! narrow screen. Everything that came from outside is escaped; on a terminal, control characters are not sent.
//!
//! Not here: what is reported (`daily`).

use std::fmt::Write;

use super::daily::{Daily, FunnelLine, WaitLine};
use crate::demo::Percentiles;

/// A table.
#[derive(Clone, Debug, Default)]
pub struct TableText {
    /// What it shows, with units.
    pub caption: String,
    /// Column heads; a `#` in front marks numbers.
    pub head: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
    /// What is said where there are no rows.
    pub none: String,
}

impl TableText {
    fn new(caption: &str, head: &[&str], none: &str) -> TableText {
        TableText {
            caption: caption.to_owned(),
            head: head.iter().map(|head| (*head).to_owned()).collect(),
            rows: Vec::new(),
            none: none.to_owned(),
        }
    }

    fn with(mut self, rows: impl Iterator<Item = Vec<String>>) -> TableText {
        self.rows = rows.collect();
        self
    }
}

/// A section.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Its title.
    pub title: String,
    /// What is said before its tables.
    pub notes: Vec<String>,
    /// Its tables.
    pub tables: Vec<TableText>,
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// What is said below it.
    pub notes: Vec<String>,
    /// Its sections.
    pub sections: Vec<Section>,
}

fn line<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

/// Nanoseconds as people read them.
fn wait(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{}.{} us", ns / 1_000, ns / 100 % 10),
        1_000_000..1_000_000_000 => format!("{}.{:02} ms", ns / 1_000_000, ns / 10_000 % 100),
        _ => format!("{}.{:02} s", ns / 1_000_000_000, ns / 10_000_000 % 100),
    }
}

/// How long, in whole seconds.
fn span(seconds: i64) -> String {
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hours}:{minutes:02}:{:02}", seconds % 60)
}

/// Moments of one day: the day stands above.
fn clock(utc: &str) -> String {
    utc.get(11..23).map_or_else(|| utc.to_owned(), |time| format!("{time}Z"))
}

fn sums(by_asset: &std::collections::BTreeMap<String, super::Exact>) -> String {
    let sums: Vec<String> = by_asset.iter().map(|(asset, sum)| format!("{sum} {asset}")).collect();
    if sums.is_empty() { "0".to_owned() } else { sums.join(", ") }
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "not told".to_owned(), |value| value.to_string())
}

/// Makes the page of a day.
#[must_use]
pub fn of_day(report: &Daily) -> Page {
    let title = format!("Tandem, {} UTC", report.day);
    if report.is_empty() {
        let notes =
            vec!["No record of this day: nothing ran, or it is in another journal.".to_owned()];
        return Page { title, notes, sections: Vec::new() };
    }
    let runs: Vec<String> = report
        .runs
        .iter()
        .map(|run| {
            let (started, hash) = (&run.started, &run.configuration);
            format!("run {} ({}) since {started}, configuration {hash}", run.run, run.mode)
        })
        .collect();
    let mut notes =
        vec![format!("{} records, from {} to {}", report.records, report.from, report.to)];
    notes.extend(runs);
    let sections = vec![
        result(report),
        funnel(report),
        one_leg(report),
        latency(report),
        incidents(report),
        uptime(report),
        proof(report),
    ];
    Page { title, notes, sections }
}

fn result(report: &Daily) -> Section {
    let told = match &report.pnl {
        None => "No result was told: no round settled on this day.".to_owned(),
        Some(pnl) => format!(
            "Realised {} {c}, marked {} {c} (highest {} {c}), told last at {}.",
            pnl.realised,
            pnl.marked,
            pnl.peak,
            pnl.told,
            c = pnl.asset
        ),
    };
    let why = "A result has no venue: a round moves one asset to one venue and another one away. What each venue \
               moved is exact below, by asset and account of the ledger; fees are in the asset they were taken from.";
    let head = ["venue", "asset", "account", "#amount", "#postings"];
    let flows = report.flows.iter();
    let table = TableText::new("Ledger flows by venue, asset and account", &head, "No posting.")
        .with(flows.map(|f| line([&f.venue, &f.asset, &f.account, &f.amount, &f.postings])));
    let notes = vec![told, why.to_owned()];
    Section { title: "Result and fees".to_owned(), notes, tables: vec![table] }
}

fn funnel(report: &Daily) -> Section {
    let head = [
        "kind",
        "#found",
        "#denied",
        "#gone",
        "#taken",
        "#filled on every leg",
        "#nothing filled",
        "#hedged",
        "#taken back",
        "#partly",
        "#held",
        "#open",
        "#edge found",
        "#realised",
    ];
    let of = |f: &FunnelLine| {
        line([
            &f.kind,
            &f.found,
            &f.denied,
            &f.gone,
            &f.taken,
            &f.filled,
            &f.nothing_filled,
            &f.hedged,
            &f.taken_back,
            &f.partly,
            &f.held,
            &f.open,
            &sums(&f.found_net),
            &sums(&f.realised),
        ])
    };
    let found = TableText::new(
        "Opportunities by kind, and the rounds that took them",
        &head,
        "Nothing was found.",
    )
    .with(report.funnel.iter().map(of));
    let codes = TableText::new(
        "Candidates that were denied, by code; repeats counted",
        &["code", "kind", "#times"],
        "Nothing was denied.",
    )
    .with(report.denials.iter().map(|d| line([&d.code, &d.kind, &d.times])));
    let orders =
        TableText::new("Orders by how they ended", &["venue", "end", "#orders"], "No order.")
            .with(report.orders.iter().map(|o| line([&o.venue, &o.state, &o.count])));
    let note = "The edge found is of every opportunity at its best, after fees and buffers: many share the same \
                depth, so it is more than could have been taken. Several rounds may take one opportunity, one \
                after the other; the columns after `taken` count rounds.";
    Section {
        title: "Opportunities".to_owned(),
        notes: vec![note.to_owned()],
        tables: vec![found, codes, orders],
    }
}

fn one_leg(report: &Daily) -> Section {
    let total = TableText::new(
        "Rounds that were hedged, taken back, partly filled or held",
        &["asset", "#rounds", "#expected", "#realised", "#cost"],
        "None: every round was filled on every leg or not at all.",
    )
    .with(report.one_leg_total.iter().map(|(asset, (rounds, expected, realised))| {
        line([asset, rounds, expected, realised, &expected.minus(*realised)])
    }));
    let mut tables = vec![total];
    if !report.one_leg.is_empty() {
        let head = [
            "run",
            "round",
            "at",
            "outcome",
            "kind",
            "pair",
            "#hedges",
            "asset",
            "#expected",
            "#realised",
            "#cost",
        ];
        let caption = format!(
            "The {} dearest of {}: what was expected less what was realised",
            report.one_leg.len(),
            report.one_leg_count
        );
        tables.push(TableText::new(&caption, &head, "").with(report.one_leg.iter().map(|l| {
            line([
                &l.run,
                &l.round,
                &clock(&l.at),
                &l.outcome,
                &l.kind,
                &l.pair,
                &l.hedges,
                &l.asset,
                &l.expected,
                &l.realised,
                &l.cost,
            ])
        })));
    }
    Section { title: "Cost of one leg".to_owned(), notes: Vec::new(), tables }
}

fn latency(report: &Daily) -> Section {
    let p = |p: &Percentiles| [wait(p.p50), wait(p.p99), wait(p.max), p.count.to_string()];
    let of = |w: &WaitLine| {
        let mut cells = vec![w.venue.clone(), w.stage.clone()];
        cells.extend(p(&w.today));
        match &w.yesterday {
            None => cells.extend(["none", "none", "none", "0"].map(str::to_owned)),
            Some(before) => cells.extend(p(before)),
        }
        cells
    };
    let head = [
        "venue",
        "stage",
        "#p50",
        "#p99",
        "#max",
        "#orders",
        "#p50 yesterday",
        "#p99 yesterday",
        "#max yesterday",
        "#orders yesterday",
    ];
    let caption =
        "How long orders waited, this day and the one before, by the journal's own stamps";
    let waits =
        TableText::new(caption, &head, "No order was sent.").with(report.waits.iter().map(of));
    let mut tables = vec![waits];
    if !report.stages.is_empty() {
        let head = ["process", "stage", "#p50", "#p99", "#p99.9", "#max", "#count"];
        let caption = "Stages of the running processes, since their start";
        tables.push(TableText::new(caption, &head, "").with(report.stages.iter().map(|s| {
            let p = &s.since_start;
            // Only stages in nanoseconds are times.
            let show = |number: u64| match s.stage.ends_with("_ns") {
                true => wait(number),
                false => number.to_string(),
            };
            line([
                &s.process,
                &s.stage,
                &show(p.p50),
                &show(p.p99),
                &show(p.p999),
                &show(p.max),
                &p.count,
            ])
        })));
    }
    let notes = vec![report.latency_note.clone()];
    Section { title: "Latency".to_owned(), notes, tables }
}

fn incidents(report: &Daily) -> Section {
    let all =
        TableText::new(
            "What went wrong or might have, equal ones together",
            &["first", "last", "what", "where", "why", "#times"],
            "Nothing.",
        )
        .with(report.incidents.iter().map(|i| {
            line([&clock(&i.first), &clock(&i.last), &i.what, &i.place, &i.why, &i.times])
        }));
    let caption = match report.unknown_count {
        0 => "Orders whose outcome was not known for a time".to_owned(),
        all => format!(
            "Orders whose outcome was not known for a time: the {} longest of {all}",
            report.unknown.len()
        ),
    };
    let head = ["order", "venue", "symbol", "since", "why", "#lasted"];
    let unknown = TableText::new(&caption, &head, "None.").with(report.unknown.iter().map(|u| {
        let lasted = u.lasted_ms.map_or("still unknown".to_owned(), |ms| format!("{ms} ms"));
        line([&u.order, &u.venue, &u.symbol, &clock(&u.since), &u.why, &lasted])
    }));
    Section { title: "Incidents".to_owned(), notes: Vec::new(), tables: vec![all, unknown] }
}

fn uptime(report: &Daily) -> Section {
    let head = ["process", "#known for", "#up", "#deaths"];
    let caption =
        "How long each process was there, of the time for which the journal says it (h:mm:ss)";
    let table = TableText::new(caption, &head, "Nothing is known.").with(
        report
            .uptime
            .iter()
            .map(|u| line([&u.process, &span(u.known_s), &span(u.up_s), &u.deaths])),
    );
    let note = "The engine tells of gateways and warden. Of feeds the journal knows their books alone: see the \
                incidents.";
    Section { title: "Processes".to_owned(), notes: vec![note.to_owned()], tables: vec![table] }
}

fn proof(report: &Daily) -> Section {
    let p = &report.proof;
    let differing = report
        .balances
        .iter()
        .filter(|b| b.difference.is_some_and(|d| d != super::Exact::ZERO))
        .count();
    let notes = vec![
        format!(
            "{} postings, each checked: balance before plus amount is the balance after in all but {}.",
            p.postings, p.broken
        ),
        format!(
            "{} reconciliations, {} of them with differences.",
            p.reconciliations, p.reconciliations_differing
        ),
        format!(
            "{} balances, {differing} of them other than the venue's last word of this day or before it.",
            report.balances.len()
        ),
    ];
    let head = [
        "venue",
        "asset",
        "#ledger",
        "#told by the venue",
        "#difference",
        "told at",
        "#words",
        "#equal at once",
    ];
    let caption =
        "Our ledger when the venue spoke last, beside its words; a word may be older than a fill";
    let table = TableText::new(caption, &head, "No venue told a balance.").with(
        report.balances.iter().map(|b| {
            line([
                &b.venue,
                &b.asset,
                &optional(b.ledger),
                &optional(b.told),
                &optional(b.difference),
                &b.told_at,
                &b.words,
                &b.words_equal,
            ])
        }),
    );
    Section { title: "Reconciliation".to_owned(), notes, tables: vec![table] }
}

/// Text as a terminal may be sent it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The page as text.
#[must_use]
pub fn text(page: &Page) -> String {
    let mut out = format!("{}\n", plain(&page.title));
    for note in &page.notes {
        let _ = writeln!(out, "{}", plain(note));
    }
    for section in &page.sections {
        let _ = writeln!(out, "\n== {} ==", plain(&section.title));
        for note in section.notes.iter().filter(|note| !note.is_empty()) {
            let _ = writeln!(out, "{}", plain(note));
        }
        for table in &section.tables {
            let _ = writeln!(out, "\n{}", plain(&table.caption));
            text_table(&mut out, table);
        }
    }
    out
}

fn text_table(out: &mut String, table: &TableText) {
    if table.rows.is_empty() {
        let _ = writeln!(out, "  {}", plain(&table.none));
        return;
    }
    let heads: Vec<&str> = table.head.iter().map(|head| head.trim_start_matches('#')).collect();
    let cells: Vec<Vec<String>> =
        table.rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let width = |idx: usize| {
        let of_rows = cells.iter().filter_map(|row| row.get(idx)).map(|cell| cell.chars().count());
        of_rows.chain(heads.get(idx).map(|head| head.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut put = |row: Vec<&str>| {
        let cells = row.iter().zip(&widths).zip(&table.head).map(|((cell, width), head)| {
            let width = *width;
            if head.starts_with('#') {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "  {}", line.trim_end());
    };
    put(heads.clone());
    cells.iter().for_each(|row| put(row.iter().map(String::as_str).collect()));
}

/// Text in HTML, in an element or an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#57606a;--paper:#fff;--line:#d0d7de;--band:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#9aa5b1;--paper:#0d1117;--line:#30363d;--band:#161b22}}
body{margin:0 auto;padding:1rem;max-width:80rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid var(--line)}
p{margin:.3rem 0;max-width:46rem;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
tbody tr:nth-child(even){background:var(--band)}
.n{text-align:right}.none{color:var(--faint)}
@media print{.scroll{overflow:visible}}";

/// The page as HTML.
#[must_use]
pub fn html(page: &Page) -> String {
    let mut out = String::new();
    let title = escaped(&page.title);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    let paragraph = |out: &mut String, text: &str| {
        let _ = writeln!(out, "<p>{}</p>", escaped(text));
    };
    page.notes.iter().for_each(|note| paragraph(&mut out, note));
    for section in &page.sections {
        let _ = writeln!(out, "<section>\n<h2>{}</h2>", escaped(&section.title));
        let notes = section.notes.iter().filter(|note| !note.is_empty());
        notes.for_each(|note| paragraph(&mut out, note));
        section.tables.iter().for_each(|table| html_table(&mut out, table));
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn html_table(out: &mut String, table: &TableText) {
    let caption = escaped(&table.caption);
    if table.rows.is_empty() {
        let none = escaped(&table.none);
        let _ = writeln!(out, "<p><b>{caption}</b> <span class=\"none\">{none}</span></p>");
        return;
    }
    // A region that scrolls is reached by keyboard.
    let _ = writeln!(
        out,
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\n<table>\n\
         <caption>{caption}</caption>\n<thead><tr>"
    );
    let class = |head: &str| if head.starts_with('#') { " class=\"n\"" } else { "" };
    for head in &table.head {
        let text = escaped(head.trim_start_matches('#'));
        let _ = write!(out, "<th scope=\"col\"{}>{text}</th>", class(head));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (cell, head) in row.iter().zip(&table.head) {
            let _ = write!(out, "<td{}>{}</td>", class(head), escaped(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}
