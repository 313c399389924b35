//! Plots as SVG: lines, bars, pairs of dots, a calendar of hours.
//!
//! Invariant: floats are places on the page, never amounts: what is written beside a mark is a traced word
//! ([`Label`]). Any numbers give a drawing: what is not finite or has no extent is drawn at the edge. A drawing is
//! its height, a line break, and the inside of the element.
//!
//! Not here: which numbers (`money`, `orders`), colours (`report.css`).

use std::fmt::Write;

use super::doc::{Label, WIDE};

/// Width of a character of the plots' text, at most on average.
const CHAR: f64 = 7.2;
/// Height of a line of text.
const LINE: f64 = 16.0;

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// What stands at its end.
    pub name: Label,
    /// Class of its colour: `s0` to `s5`, `gain`, `loss`.
    pub class: String,
    /// Its points, by ascending x.
    pub points: Vec<(f64, f64)>,
    /// Filled down to zero.
    pub is_area: bool,
    /// A step from one point to the next, not a slope.
    pub is_step: bool,
    /// Its points are shown: there are few.
    pub has_dots: bool,
    /// Drawn as a help, broken.
    pub is_help: bool,
}

/// What the x axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X {
    /// UNIX ns.
    Time,
    /// Microseconds.
    Micros,
    /// Microseconds, each decade as wide as the next; 0 has a place of its own.
    Decades,
}

fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Round steps that cut a range in at most `most` parts.
fn step(range: f64, most: usize) -> f64 {
    let rough = range / most.max(1) as f64;
    if !(rough.is_finite() && 0.0 < rough) {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| rough <= *s * 1.000_001)
        .unwrap_or(power * 10.0)
}

fn ticks(from: f64, to: f64, most: usize) -> Vec<f64> {
    let by = step(to - from, most);
    let first = (from / by).ceil();
    // The axis ends; a step below the resolution of the numbers does not.
    (0..=most + 1)
        .map(|at| (first + at as f64) * by)
        .filter(|tick| *tick <= to + by * 1e-6)
        .collect()
}

/// A tick of an amount: as few digits as the step has.
fn scale_text(value: f64, by: f64) -> String {
    let (divisor, suffix) = match value.abs().max(by) {
        size if 1e12 <= size => (1e12, "T"),
        size if 1e9 <= size => (1e9, "bn"),
        size if 1e6 <= size => (1e6, "M"),
        size if 1e4 <= size => (1e3, "k"),
        _ => (1.0, ""),
    };
    let places = (-(by / divisor).log10().floor()).clamp(0.0, 9.0) as usize;
    let mut text = format!("{:.places$}", value.abs() / divisor);
    if places == 0 && text.len() == 4 {
        text.insert(1, ',');
    }
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    match (text.as_str(), value < 0.0) {
        ("0", _) => "0".to_owned(),
        (_, true) => format!("\u{2212}{text}{suffix}"),
        (_, false) => format!("{text}{suffix}"),
    }
}

/// A tick of a time span in µs.
fn span_text(us: f64) -> String {
    let (value, unit) = match us.abs() {
        0.0 => return "0".to_owned(),
        size if size < 1e3 => (us, "µs"),
        size if size < 1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let sign = if value < 0.0 { "\u{2212}" } else { "" };
    let text = format!("{:.2}", value.abs());
    format!("{sign}{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

const MINUTE: f64 = 60e9;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

fn time_ticks(from: f64, to: f64, most: usize) -> (Vec<f64>, f64) {
    let steps = [
        1e9,
        2e9,
        5e9,
        15e9,
        30e9,
        MINUTE,
        2.0 * MINUTE,
        5.0 * MINUTE,
        15.0 * MINUTE,
        30.0 * MINUTE,
        HOUR,
        2.0 * HOUR,
        3.0 * HOUR,
        6.0 * HOUR,
        12.0 * HOUR,
        DAY,
        2.0 * DAY,
        7.0 * DAY,
        30.0 * DAY,
        90.0 * DAY,
        365.0 * DAY,
    ];
    let rough = (to - from) / most as f64;
    let by = steps.into_iter().find(|by| rough <= *by).unwrap_or(3_650.0 * DAY);
    let first = (from / by).ceil();
    let all =
        (0..=most + 1).map(|at| (first + at as f64) * by).filter(|tick| *tick <= to).collect();
    (all, by)
}

fn time_text(ns: f64, by: f64) -> String {
    let text = crate::time::utc(ns as i64);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or("").to_owned();
    match by {
        _ if DAY <= by => part(5, 10),
        _ if by < MINUTE => part(11, 19),
        // Midnight says which day begins.
        _ if part(11, 16) == "00:00" => part(5, 10),
        _ => part(11, 16),
    }
}

fn scaled(x: X, value: f64, least: f64) -> f64 {
    match x {
        X::Time | X::Micros => value,
        X::Decades => (value / least).asinh(),
    }
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    if low <= high { (low, high) } else { (0.0, 0.0) }
}

/// A ruler over an area of the page.
struct Ruler {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Ruler {
    fn at(&self, value: f64) -> f64 {
        let range = self.to - self.from;
        let share = if range <= 0.0 { 0.5 } else { (value - self.from) / range };
        let share = if share.is_finite() { share.clamp(-0.02, 1.02) } else { 0.0 };
        self.start + share * (self.end - self.start)
    }
}

/// Lines over time or lateness, with their names at their ends; y is an amount.
#[must_use]
pub fn lines(width: f64, series: &[Series], x: X) -> String {
    let is_wide = width == WIDE;
    let height = if is_wide { 250.0 } else { 210.0 };
    let names = series.iter().map(|one| one.name.chars()).max().unwrap_or(0) as f64;
    let right = width - (names * CHAR + 12.0).min(width * 0.36);
    let (top, bottom) = (12.0, height - 26.0);
    let all = || series.iter().flat_map(|one| one.points.iter());
    let (low, high) = extent(all().map(|point| point.1).chain([0.0]));
    let by = step((high - low).max(f64::MIN_POSITIVE), 4);
    // A little beyond zero needs no step of its own.
    let out_to = |value: f64, stepped: f64| if value.abs() < by * 0.15 { value } else { stepped };
    let (low, high) = if low == high {
        (-1.0, 1.0)
    } else {
        (out_to(low, (low / by).floor() * by), out_to(high, (high / by).ceil() * by))
    };
    let by = if low == -1.0 && high == 1.0 { 1.0 } else { by };
    let marks = ticks(low, high, 5);
    let texts: Vec<String> = marks.iter().map(|mark| scale_text(*mark, by)).collect();
    let left = texts.iter().map(|t| t.chars().count()).max().unwrap_or(1) as f64 * CHAR + 8.0;
    let y = Ruler { from: low, to: high, start: bottom, end: top };
    let least = all().map(|point| point.0.abs()).filter(|v| 0.0 < *v).fold(f64::MAX, f64::min);
    let place = |value: f64| scaled(x, value, least);
    let (from, to) = extent(all().map(|point| place(point.0)));
    let across = Ruler { from, to, start: left, end: right };
    let mut out = format!("{}\n<g class=\"axis\" data-scale=\"y\">", number(height));
    for (mark, text) in marks.iter().zip(&texts) {
        let at = number(y.at(*mark));
        let class = if *mark == 0.0 { "zero" } else { "grid" };
        let _ = write!(
            out,
            "<line class=\"{class}\" x1=\"{}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{text}</text>",
            number(left),
            number(right),
            number(left - 6.0),
            number(y.at(*mark) + 4.0)
        );
    }
    out.push_str("</g><g class=\"axis\" data-scale=\"x\">");
    let most = if is_wide { 7 } else { 3 };
    for (at, text) in x_ticks(x, all().map(|point| point.0), most) {
        let along = across.at(place(at));
        let _ = write!(
            out,
            "<line class=\"tick\" x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\"/><text x=\"{0}\" y=\"{3}\" text-anchor=\"middle\">{text}</text>",
            number(along),
            number(bottom),
            number(bottom + 4.0),
            number(bottom + 18.0)
        );
    }
    out.push_str("</g>");
    let mut ends: Vec<(f64, usize)> = Vec::new();
    for (at, one) in series.iter().enumerate() {
        let places: Vec<(f64, f64)> =
            one.points.iter().map(|(px, py)| (across.at(place(*px)), y.at(*py))).collect();
        out.push_str(&path(one, &places, y.at(0.0)));
        match places.last() {
            // A help's name is at its own end, wherever that is.
            Some((along, down)) if one.is_help => {
                let is_far = right - 60.0 < *along;
                let (shift, anchor) = if is_far { (0.0, "end") } else { (6.0, "start") };
                let _ = write!(
                    out,
                    "<text class=\"help\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                    number(along + shift),
                    number((down + if is_far { 16.0 } else { 0.0 }).min(bottom - 6.0)),
                    one.name.svg(usize::MAX)
                );
            }
            Some((_, down)) => ends.push((*down, at)),
            None => {}
        }
    }
    // Names keep a line's height apart, in the order of their ends.
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut least_y = top;
    let last_y = height - 30.0;
    for (nth, (end, at)) in ends.iter().enumerate() {
        let left_over = (ends.len() - 1 - nth) as f64;
        let place = end.max(least_y).min(last_y - left_over * LINE).max(least_y);
        least_y = place + LINE;
        let one = &series[*at];
        let most = ((width - right - 8.0) / CHAR) as usize;
        let _ = write!(
            out,
            "<text class=\"name {}\" x=\"{}\" y=\"{}\">{}</text>",
            one.class,
            number(right + 7.0),
            number(place + 4.0),
            one.name.svg(most)
        );
    }
    out
}

fn path(one: &Series, places: &[(f64, f64)], zero: f64) -> String {
    let mut out = String::new();
    let mut line = String::new();
    let mut before: Option<f64> = None;
    for (px, py) in places {
        match before {
            None => {
                let _ = write!(line, "M{} {}", number(*px), number(*py));
            }
            Some(_) if one.is_step => {
                let _ = write!(line, "H{}V{}", number(*px), number(*py));
            }
            Some(_) => {
                let _ = write!(line, "L{} {}", number(*px), number(*py));
            }
        }
        before = Some(*py);
    }
    if let (true, Some(first)) = (one.is_area, places.first()) {
        let _ = write!(
            out,
            "<path class=\"area {}\" d=\"{line}V{2}H{}Z\"/>",
            one.class,
            number(first.0),
            number(zero)
        );
    }
    let help = if one.is_help { " help" } else { "" };
    let _ = write!(out, "<path class=\"line {}{help}\" d=\"{line}\"/>", one.class);
    if one.has_dots || places.len() == 1 {
        for (px, py) in places {
            let _ = write!(
                out,
                "<circle class=\"dot {}\" cx=\"{}\" cy=\"{}\" r=\"3\"/>",
                one.class,
                number(*px),
                number(*py)
            );
        }
    }
    out
}

fn x_ticks(x: X, values: impl Iterator<Item = f64> + Clone, most: usize) -> Vec<(f64, String)> {
    let (from, to) = extent(values.clone());
    match x {
        X::Time => {
            let (all, by) = time_ticks(from, to, most);
            all.into_iter().map(|at| (at, time_text(at, by))).collect()
        }
        X::Micros => ticks(from, to, most).into_iter().map(|at| (at, span_text(at))).collect(),
        X::Decades => {
            let least = values.map(f64::abs).filter(|v| 0.0 < *v).fold(f64::MAX, f64::min);
            let mut all = Vec::new();
            if from <= 0.0 && 0.0 <= to {
                all.push(0.0);
            }
            let mut decade = 10f64.powf(least.log10().ceil());
            while decade <= to && all.len() < 12 {
                all.push(decade);
                decade *= 10.0;
            }
            let every = all.len().div_ceil(most + 1).max(1);
            all.into_iter().step_by(every).map(|at| (at, span_text(at))).collect()
        }
    }
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What stands before it.
    pub label: Label,
    /// How long it is.
    pub value: f64,
    /// What stands behind it.
    pub text: Label,
    /// Class of its colour.
    pub class: &'static str,
}

/// Where labels, marks and words of a row of a plot are.
struct Rowed {
    width: f64,
    label: f64,
    from: f64,
    to: f64,
    row: f64,
    is_wide: bool,
}

impl Rowed {
    fn new(width: f64, labels: usize, texts: usize) -> Rowed {
        let is_wide = width == WIDE;
        let text = texts as f64 * CHAR + 14.0;
        if is_wide {
            let label = (labels as f64 * CHAR + 12.0).clamp(60.0, 330.0);
            Rowed { width, label, from: label, to: width - text, row: 26.0, is_wide }
        } else {
            // The label stands above its bar: nothing is cut.
            Rowed { width, label: width - text, from: 2.0, to: width - 2.0, row: 40.0, is_wide }
        }
    }

    fn words(&self, out: &mut String, top: f64, label: &Label, text: &Label) {
        let base = number(top + if self.is_wide { 17.0 } else { 14.0 });
        let most = ((self.label - 8.0) / CHAR).max(4.0) as usize;
        let (x, anchor) = if self.is_wide { (self.label - 10.0, "end") } else { (2.0, "start") };
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"{anchor}\">{}</text><text class=\"value\" x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>",
            number(x),
            label.svg(most),
            number(self.width - 2.0),
            text.svg(usize::MAX)
        );
    }

    fn middle(&self, top: f64) -> f64 {
        top + if self.is_wide { 13.0 } else { 27.0 }
    }
}

/// Bars from zero, one below the other.
#[must_use]
pub fn bars(width: f64, all: &[Bar]) -> String {
    let labels = all.iter().map(|bar| bar.label.chars()).max().unwrap_or(0);
    let texts = all.iter().map(|bar| bar.text.chars()).max().unwrap_or(0);
    let place = Rowed::new(width, labels, texts);
    let (low, high) = extent(all.iter().map(|bar| bar.value).chain([0.0]));
    let x = Ruler { from: low, to: high, start: place.from, end: place.to };
    let height = all.len() as f64 * place.row + 4.0;
    let mut out = format!("{}\n", number(height));
    for (at, bar) in all.iter().enumerate() {
        let top = at as f64 * place.row + 2.0;
        place.words(&mut out, top, &bar.label, &bar.text);
        let (zero, end) =
            if low == high { (place.from, place.from) } else { (x.at(0.0), x.at(bar.value)) };
        // What is not nothing is seen.
        let long = (end - zero).abs().max(if bar.value == 0.0 { 0.0 } else { 1.5 });
        let start = if bar.value < 0.0 { zero - long } else { zero };
        let thick = if place.is_wide { 16.0 } else { 12.0 };
        let _ = write!(
            out,
            "<rect class=\"bar {}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{thick}\" rx=\"1.5\"/>",
            bar.class,
            number(start),
            number(place.middle(top) - thick / 2.0),
            number(long)
        );
    }
    let zero = if low == high { place.from } else { x.at(0.0) };
    for at in 0..all.len() {
        let middle = place.middle(at as f64 * place.row + 2.0);
        let half = if place.is_wide { place.row / 2.0 } else { 9.0 };
        let _ = write!(
            out,
            "<line class=\"zero\" x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\"/>",
            number(zero),
            number(middle - half),
            number(middle + half)
        );
    }
    out
}

/// Two marks a row: what was expected, what came of it.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What stands before it.
    pub label: Label,
    /// Hollow mark.
    pub expected: f64,
    /// Full mark.
    pub realised: f64,
    /// What stands behind it.
    pub text: Label,
}

/// Rows with two marks each, on a scale of amounts.
#[must_use]
pub fn pairs(width: f64, all: &[Pair]) -> String {
    let labels = all.iter().map(|pair| pair.label.chars()).max().unwrap_or(0);
    let texts = all.iter().map(|pair| pair.text.chars()).max().unwrap_or(0);
    let place = Rowed::new(width, labels, texts);
    let (low, high) =
        extent(all.iter().flat_map(|pair| [pair.expected, pair.realised]).chain([0.0]));
    let by = step((high - low).max(f64::MIN_POSITIVE), 5);
    let (low, high) =
        if low == high { (-1.0, 1.0) } else { ((low / by).floor() * by, (high / by).ceil() * by) };
    let x = Ruler { from: low, to: high, start: place.from + 10.0, end: place.to - 10.0 };
    let (top, rows) = (22.0, all.len() as f64 * place.row);
    let mut out = format!("{}\n<g class=\"axis\" data-scale=\"x\">", number(top + rows + 26.0));
    for mark in ticks(low, high, if place.is_wide { 6 } else { 4 }) {
        let class = if mark == 0.0 { "zero" } else { "grid" };
        let _ = write!(
            out,
            "<line class=\"{class}\" x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\"/><text x=\"{0}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>",
            number(x.at(mark)),
            number(top),
            number(top + rows),
            number(top + rows + 17.0),
            scale_text(mark, by)
        );
    }
    out.push_str("</g>");
    for (at, pair) in all.iter().enumerate() {
        let start = top + at as f64 * place.row;
        place.words(&mut out, start, &pair.label, &pair.text);
        let (from, to, y) = (x.at(pair.expected), x.at(pair.realised), number(place.middle(start)));
        let class = if pair.realised < pair.expected { "loss" } else { "gain" };
        let _ = write!(
            out,
            "<line class=\"link {class}\" x1=\"{0}\" x2=\"{1}\" y1=\"{y}\" y2=\"{y}\"/><circle class=\"hollow\" cx=\"{0}\" cy=\"{y}\" r=\"5\"/>\
             <circle class=\"dot {class}\" cx=\"{1}\" cy=\"{y}\" r=\"5\"/>",
            number(from),
            number(to)
        );
        if at == 0 {
            // Beside their marks where these are near each other.
            let words = if from < to { ["expected", "realised"] } else { ["realised", "expected"] };
            let (low, high) = (from.min(to), from.max(to));
            let (low, high, anchors) = if high - low < 80.0 {
                let low = low.clamp(60.0, width - 76.0);
                (low, high.clamp(low + 8.0, width - 62.0), ["end", "start"])
            } else {
                (low.max(32.0), high.min(width - 32.0), ["middle", "middle"])
            };
            for ((along, anchor), word) in [low, high].into_iter().zip(anchors).zip(words) {
                let _ = write!(
                    out,
                    "<text class=\"key\" x=\"{}\" y=\"14\" text-anchor=\"{anchor}\">{word}</text>",
                    number(along)
                );
            }
        }
    }
    out
}

/// An hour of a calendar.
#[derive(Clone, Debug)]
pub struct Hour {
    /// Day, as `MM-DD`.
    pub day: String,
    /// 0 to 23.
    pub hour: usize,
    /// What it brought.
    pub value: f64,
    /// What is told of it, and nothing else, when it is pointed at.
    pub tip: Label,
}

/// Days below each other, hours beside each other; the deeper the colour, the more.
#[must_use]
pub fn hours(width: f64, all: &[Hour]) -> String {
    let mut days: Vec<&str> = all.iter().map(|hour| hour.day.as_str()).collect();
    days.dedup();
    let left = 46.0;
    let cell = (width - left) / 24.0;
    let tall = cell.min(22.0);
    let most = all.iter().map(|hour| hour.value.abs()).fold(0.0, f64::max);
    let mut out = format!(
        "{}\n<g class=\"axis\" data-scale=\"hours\">",
        number(20.0 + days.len() as f64 * tall + 2.0)
    );
    for hour in (0..24).step_by(if width == WIDE { 3 } else { 6 }) {
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"12\">{hour:02}:00</text>",
            number(left + hour as f64 * cell)
        );
    }
    let every = days.len().div_ceil(16).max(1);
    for (at, day) in days.iter().enumerate().step_by(every) {
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{day}</text>",
            number(left - 6.0),
            number(20.0 + at as f64 * tall + tall / 2.0 + 4.0)
        );
    }
    out.push_str("</g>");
    let mut row = 0;
    for hour in all {
        while days.get(row).is_some_and(|day| *day != hour.day) {
            row += 1;
        }
        let share = if most == 0.0 { 0.0 } else { (hour.value.abs() / most).sqrt() };
        let (class, deep) = match hour.value {
            value if 0.0 < value => ("gain", 0.15 + 0.85 * share),
            value if value < 0.0 => ("loss", 0.15 + 0.85 * share),
            _ => ("idle", 1.0),
        };
        let _ = write!(
            out,
            "<rect class=\"hour {class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill-opacity=\"{deep:.2}\">{}</rect>",
            number(left + hour.hour as f64 * cell + 0.5),
            number(20.0 + row as f64 * tall + 0.5),
            number(cell - 1.0),
            number(tall - 1.0),
            hour.tip.title()
        );
    }
    out
}
