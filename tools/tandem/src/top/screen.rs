//! How it looks. One function from what is known to what is drawn.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Direction, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::view::{OrderLine, View};

/// Whether colours are used; what they say is always in words too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colours {
    /// As usual.
    #[default]
    On,
    /// `NO_COLOR`.
    Off,
}

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// Everything at a glance.
    #[default]
    Main,
    /// Every stage.
    Latency,
    /// Orders by time.
    Orders,
    /// The keys.
    Help,
}

/// What somebody at the keys chose.
#[derive(Clone, Debug, Default)]
pub struct Show {
    /// The screen.
    pub screen: Screen,
    /// Only what has this in it.
    pub filter: String,
    /// The filter is being typed.
    pub is_typing: bool,
    /// What a key did.
    pub told: String,
    /// Colours.
    pub colours: Colours,
}

/// From here on there is room for everything.
const WIDE: u16 = 150;

impl Show {
    fn style(&self, colour: Color) -> Style {
        match self.colours {
            Colours::On => Style::default().fg(colour),
            Colours::Off => Style::default(),
        }
    }

    fn bold(&self, colour: Color) -> Style {
        self.style(colour).add_modifier(Modifier::BOLD)
    }

    /// Words that are wrong, that want attention, and the rest.
    fn word(&self, word: &str) -> Style {
        match word {
            "KILL" | "HALT" | "DEAD" | "down" | "refused" | "unknown" | "UNKNOWN" | "rejected"
            | "PAGE" | "UNCONFIRMED" | "stale" => self.bold(Color::Red),
            "PAUSE" | "REDUCE" | "suspended" | "connecting" | "TICKET" | "partial" | "absent"
            | "syncing" | "fallback" => self.style(Color::Yellow),
            "ARMED" | "alive" | "ready" | "live" | "filled" | "CLEAN" => self.style(Color::Green),
            _ => Style::default(),
        }
    }

    fn cell(&self, word: &str) -> Cell<'static> {
        Cell::from(Span::styled(word.to_owned(), self.word(word)))
    }

    fn keeps(&self, text: &str) -> bool {
        self.filter.is_empty() || text.to_lowercase().contains(&self.filter.to_lowercase())
    }
}

fn block(title: &str) -> Block<'static> {
    Block::default().borders(Borders::TOP).title(format!(" {title} "))
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn head(names: &[&'static str], show: &Show) -> Row<'static> {
    Row::new(names.iter().map(|name| Cell::from(*name)).collect::<Vec<_>>())
        .style(show.style(Color::DarkGray))
}

/// A duration in the unit that suits it.
fn span(ns: i64) -> String {
    let of = |unit: f64, name: &str| {
        let value = ns as f64 / unit;
        let digits = usize::from(value < 100.0) + usize::from(value < 10.0);
        format!("{value:.digits$} {name}")
    };
    match ns {
        ..0 => format!("{ns} ns"),
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => of(1e3, "us"),
        1_000_000..1_000_000_000 => of(1e6, "ms"),
        1_000_000_000..120_000_000_000 => of(1e9, "s"),
        120_000_000_000..7_200_000_000_000 => of(6e10, "min"),
        _ => of(3.6e12, "h"),
    }
}

fn time(us: i64) -> String {
    if us == 0 {
        // What carries no time of its own.
        return "-".to_owned();
    }
    let seconds = us.div_euclid(1_000_000).rem_euclid(86_400);
    let ms = us.div_euclid(1_000).rem_euclid(1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn age(us: Option<i64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| span(us.max(0) * 1_000))
}

fn bar(ppm: Option<i64>, width: usize) -> String {
    let Some(ppm) = ppm else { return format!("{:.<width$}", "unknown ") };
    let full = usize::try_from(ppm.clamp(0, 1_000_000)).unwrap_or(0) * width / 1_000_000;
    let full = if 0 < ppm { full.max(1) } else { 0 };
    format!("{}{}", "#".repeat(full), ".".repeat(width - full))
}

/// Returns a drawn screen as text, a line for each row, without what ends a line in blanks.
#[must_use]
pub fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content().chunks(width);
    let line = |row: &[ratatui::buffer::Cell]| {
        let text: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    };
    rows.map(line).collect::<Vec<_>>().join("\n")
}

/// Draws a screen.
pub fn draw(frame: &mut Frame<'_>, view: &View, show: &Show) {
    let area = frame.area();
    let [top, middle, bottom] = Layout::default()
        .direction(Direction::Vertical)
        .constraints([Constraint::Length(3), Constraint::Min(0), Constraint::Length(1)])
        .areas(area);
    header(frame, top, view, show);
    match show.screen {
        Screen::Main if WIDE <= area.width => wide(frame, middle, view, show),
        Screen::Main => narrow(frame, middle, view, show),
        Screen::Latency => latency(frame, middle, view, show),
        Screen::Orders => orders(frame, middle, "orders, newest first", &view.recent, show),
        Screen::Help => help(frame, middle),
    }
    footer(frame, bottom, show);
}

fn header(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let mode = match view.mode.as_str() {
        "live" => Span::styled("LIVE", show.bold(Color::Red)),
        mode => Span::raw(mode.to_uppercase()),
    };
    let mut first = vec![
        Span::styled("tandem ", Style::default().add_modifier(Modifier::BOLD)),
        mode,
        Span::raw("  level "),
        Span::styled(view.level.clone(), show.word(&view.level)),
    ];
    if view.level != "ARMED" && !view.cause.is_empty() {
        first.push(Span::raw(format!(" ({})", view.cause)));
    }
    if view.catching_up {
        first.push(Span::styled("  reading the past", show.style(Color::Yellow)));
    }
    first.push(Span::raw(format!("  {} UTC", time(view.now_us))));
    let result = view.result.as_ref().map_or_else(
        || "no result yet".to_owned(),
        |(amount, asset)| format!("today {amount} {asset}"),
    );
    let clock = view
        .clock_ns
        .map_or_else(|| "clock -".to_owned(), |ns| format!("clock {:+.1} ms", ns as f64 / 1e6));
    let deadman = view.venues.iter().filter_map(|venue| venue.deadman_s).min();
    let deadman = deadman.map_or_else(String::new, |s| format!("  dead-man {s} s"));
    let second = format!(
        "{result}  loss of the day [{}]  {clock}{deadman}  run {}",
        bar(view.loss_ppm, 10),
        view.run
    );
    let (opportunities, rounds, orders, fills) = view.counts;
    let mut third = Vec::new();
    if !view.alerts.is_empty() {
        let text = format!("{} ALERTS  ", view.alerts.len());
        third.push(Span::styled(text, show.bold(Color::Red)));
    }
    third.push(Span::raw(format!(
        "opportunities {opportunities}  rounds {rounds}  orders {orders}  fills {fills}  journal {} free{}",
        view.journal_free_ppm.map_or("-".to_owned(), |ppm| format!("{} %", ppm / 10_000)),
        view.records_per_s.map_or_else(String::new, |rate| format!(", {rate}/s")),
    )));
    let lines = vec![Line::from(first), Line::from(second), Line::from(third)];
    frame.render_widget(Paragraph::new(lines), area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, show: &Show) {
    let text = if show.is_typing {
        format!("filter: {}_", show.filter)
    } else if !show.told.is_empty() {
        show.told.clone()
    } else if show.filter.is_empty() {
        "p pause  K KILL  / filter  l latency  o orders  ? help  q quit".to_owned()
    } else {
        format!("only `{}` (Esc: all)  p pause  K KILL  q quit", show.filter)
    };
    frame.render_widget(Paragraph::new(text).style(show.style(Color::Cyan)), area);
}

fn rows_of(parts: &[u16], area: Rect) -> Vec<Rect> {
    let mut constraints: Vec<Constraint> = parts.iter().map(|n| Constraint::Length(*n)).collect();
    constraints.push(Constraint::Min(0));
    Layout::default().direction(Direction::Vertical).constraints(constraints).split(area).to_vec()
}

fn narrow(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let venue_rows = u16::try_from(view.venues.len()).unwrap_or(3) + 2;
    let parts = rows_of(&[venue_rows, 5, 4, 4], area);
    venues(frame, parts[0], view, show, false);
    pairs(frame, parts[1], view, show, false);
    open_orders(frame, parts[2], view, show);
    alerts(frame, parts[3], view, show);
    events(frame, parts[4], view, show);
}

fn wide(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let venue_rows = u16::try_from(view.venues.len()).unwrap_or(3) + 2;
    let parts = rows_of(&[venue_rows, 14, 12, 11], area);
    venues(frame, parts[0], view, show, true);
    pairs(frame, parts[1], view, show, true);
    let halves = |area: Rect| -> [Rect; 3] {
        Layout::default()
            .direction(Direction::Horizontal)
            .spacing(2)
            .constraints([
                Constraint::Percentage(45),
                Constraint::Percentage(27),
                Constraint::Min(0),
            ])
            .areas(area)
    };
    let [left, centre, end] = halves(parts[2]);
    open_orders(frame, left, view, show);
    limits(frame, centre, view, show);
    balances(frame, end, view, show);
    let [left, centre, end] = halves(parts[3]);
    alerts(frame, left, view, show);
    denied(frame, centre, view, show);
    processes(frame, end, view, show);
    events(frame, parts[4], view, show);
}

fn venues(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show, wide: bool) {
    let mut names =
        vec!["venue", "level", "feed", "books", "age", "session", "budget", "lost", "warden"];
    let mut widths = vec![9, 6, 6, 7, 8, 13, 6, 4, 11];
    if wide {
        names.extend(["dead-man", "first word p50", "p99"]);
        widths.extend([9, 15, 10]);
    }
    let rows = view.venues.iter().filter(|venue| show.keeps(&venue.venue)).map(|venue| {
        let books = format!("{}/{}", venue.books_live, venue.books);
        let style =
            if venue.books_live == venue.books { Style::default() } else { show.bold(Color::Red) };
        let mut cells = vec![
            Cell::from(venue.venue.clone()),
            show.cell(&venue.level),
            show.cell(&venue.feed),
            Cell::from(Span::styled(books, style)),
            Cell::from(age(venue.age_us)),
            show.cell(&venue.session),
            Cell::from(venue.budget_left.map_or("-".to_owned(), |left| left.to_string())),
            Cell::from(venue.disconnects.to_string()),
            show.cell(&venue.warden),
        ];
        if wide {
            let ns = |ns: Option<u64>| {
                ns.map_or("-".to_owned(), |ns| span(i64::try_from(ns).unwrap_or(i64::MAX)))
            };
            cells.extend([
                Cell::from(venue.deadman_s.map_or("-".to_owned(), |s| format!("{s} s"))),
                Cell::from(ns(venue.reply_p50_ns)),
                Cell::from(ns(venue.reply_p99_ns)),
            ]);
        }
        Row::new(cells)
    });
    let widths = widths.into_iter().map(Constraint::Length);
    let table = Table::new(rows, widths).header(head(&names, show)).block(block("venues"));
    frame.render_widget(table, area);
}

fn pairs(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show, wide: bool) {
    let shown = view.pairs.iter().filter(|pair| show.keeps(&pair.pair));
    let rows = shown.map(|pair| {
        let edge =
            pair.edge_dbp.map_or("-".to_owned(), |edge| format!("{:.1} bp", edge as f64 / 10.0));
        let mut cells = vec![Cell::from(pair.pair.clone()), right(edge)];
        if wide {
            cells.push(right(age(pair.age_us)));
        }
        for (venue, bid, ask, state) in &pair.at {
            let short = if wide { venue.as_str() } else { &venue[..venue.len().min(3)] };
            let text = match state.as_str() {
                "live" => format!("{short} {bid} {ask}"),
                state => format!("{short} {state}"),
            };
            cells.push(Cell::from(Span::styled(
                text,
                match state.as_str() {
                    "live" => Style::default(),
                    state => show.word(state),
                },
            )));
        }
        Row::new(cells)
    });
    let (widths, title): (Vec<u16>, &str) = match wide {
        true => (
            vec![10, 10, 9, 40, 40, 40],
            "pairs: best edge before fees, oldest change, bid and ask by venue",
        ),
        false => (vec![8, 8, 21, 21, 18], "pairs: best edge before fees, bid and ask"),
    };
    let widths = widths.into_iter().map(Constraint::Length);
    frame.render_widget(Table::new(rows, widths).block(block(title)), area);
}

fn order_rows<'a>(
    orders: &'a [OrderLine],
    show: &'a Show,
) -> impl Iterator<Item = Row<'static>> + 'a {
    let kept = orders
        .iter()
        .filter(|order| show.keeps(&format!("{} {} {}", order.id, order.what, order.state)));
    kept.map(|order| {
        Row::new(vec![
            Cell::from(order.id.clone()),
            Cell::from(order.what.clone()),
            right(order.qty.clone()),
            right(order.px.clone()),
            match order.state.as_str() {
                "unknown" => show.cell("UNKNOWN"),
                state => show.cell(state),
            },
            right(age(Some(order.age_us))),
        ])
    })
}

fn open_orders(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    if view.orders.is_empty() {
        let text = Paragraph::new("none is open").block(block("orders"));
        frame.render_widget(text, area);
        return;
    }
    orders(frame, area, "orders that are open", &view.orders, show);
}

fn orders(frame: &mut Frame<'_>, area: Rect, title: &str, orders: &[OrderLine], show: &Show) {
    let widths = if area.width < 100 { [17, 22, 11, 9, 8, 8] } else { [18, 24, 13, 13, 10, 9] };
    let widths = widths.map(Constraint::Length);
    let names = ["order", "what", "quantity", "limit", "state", "age"];
    let mut table = Table::new(order_rows(orders, show), widths).block(block(title));
    if 4 < area.height {
        table = table.header(head(&names, show));
    }
    frame.render_widget(table, area);
}

fn alerts(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let mut lines: Vec<Line<'static>> = view
        .alerts
        .iter()
        .map(|(severity, text)| {
            let severity = Span::styled(format!("{severity:<7}"), show.word(severity));
            Line::from(vec![severity, Span::raw(text.clone())])
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::from("nothing is wrong"));
    }
    frame.render_widget(Paragraph::new(lines).block(block("alerts")), area);
}

fn events(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let lines: Vec<Line<'static>> = view
        .events
        .iter()
        .filter(|(_, text)| show.keeps(text))
        .map(|(at, text)| Line::from(format!("{} {text}", time(*at))))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block("events, newest first")), area);
}

fn limits(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let lines: Vec<Line<'static>> = view
        .limits
        .iter()
        .map(|limit| {
            let share =
                limit.ppm.map_or("unknown".to_owned(), |ppm| format!("{:.1} %", ppm as f64 / 1e4));
            let style = match limit.ppm {
                Some(900_000..) | None => show.bold(Color::Red),
                Some(700_000..) => show.style(Color::Yellow),
                Some(_) => Style::default(),
            };
            let text = format!("{:<18}[{}] {share:>8}", limit.name, bar(limit.ppm, 20));
            Line::from(Span::styled(text, style))
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block("limits used")), area);
}

fn balances(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let kept =
        view.balances.iter().filter(|(venue, asset, _)| show.keeps(&format!("{venue} {asset}")));
    let rows = kept.map(|(venue, asset, amount)| {
        Row::new(vec![Cell::from(venue.clone()), Cell::from(asset.clone()), right(amount.clone())])
    });
    let widths = [10, 6, 22].map(Constraint::Length);
    frame.render_widget(Table::new(rows, widths).block(block("balances by our ledger")), area);
}

fn denied(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let rows = view.denied.iter().filter(|(code, _)| show.keeps(code)).map(|(code, times)| {
        Row::new(vec![Cell::from(code.replace('_', " ")), right(times.to_string())])
    });
    let widths = [28, 12].map(Constraint::Length);
    frame.render_widget(Table::new(rows, widths).block(block("denied candidates")), area);
}

fn processes(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let mut rows: Vec<Row<'static>> = view
        .processes
        .iter()
        .map(|(name, life, generation)| {
            let turn = view.stages.iter().find(|stage| {
                stage.process == *name
                    && (stage.stage.contains("turn") || stage.stage.contains("detect"))
            });
            let turn = turn
                .map_or("-".to_owned(), |stage| span(i64::try_from(stage.p99).unwrap_or(i64::MAX)));
            Row::new(vec![
                Cell::from(name.clone()),
                show.cell(life),
                right(format!("#{generation}")),
                right(turn),
            ])
        })
        .collect();
    let ring = view.stages.iter().find(|stage| stage.stage == "engine_ring_ns");
    if let Some(ring) = ring {
        let ns = |ns: u64| span(i64::try_from(ns).unwrap_or(i64::MAX));
        rows.push(Row::new(vec![
            Cell::from("market rings"),
            Cell::from(format!("laps {}", view.overruns)),
            right(ns(ring.p99)),
            right(ns(ring.max)),
        ]));
    }
    let widths = [18, 8, 12, 12].map(Constraint::Length);
    let title = "processes: start, turn p99; rings: p99, max";
    frame.render_widget(Table::new(rows, widths).block(block(title)), area);
}

fn latency(frame: &mut Frame<'_>, area: Rect, view: &View, show: &Show) {
    let ns = |ns: u64| right(span(i64::try_from(ns).unwrap_or(i64::MAX)));
    let kept = view.stages.iter().filter(|s| show.keeps(&format!("{} {}", s.process, s.stage)));
    let rows = kept.map(|stage| {
        Row::new(vec![
            Cell::from(stage.process.clone()),
            Cell::from(stage.stage.clone()),
            ns(stage.p50),
            ns(stage.p99),
            ns(stage.p999),
            ns(stage.max),
            right(stage.count.to_string()),
        ])
    });
    let narrow = area.width < 100;
    let widths = if narrow { [16, 25, 8, 8, 8, 8, 7] } else { [17, 28, 9, 9, 9, 9, 10] };
    let widths = widths.map(Constraint::Length);
    let names = ["process", "stage", "p50", "p99", "p99.9", "max", "count"];
    let title = "latency since each process started";
    let table = Table::new(rows, widths).header(head(&names, show)).block(block(title));
    frame.render_widget(table.column_spacing(if narrow { 0 } else { 2 }), area);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let text = "\
p      pause: no new rounds; what is left over is still hedged. No question asked.
K      KILL: cancel everything at every venue, and prove it. No question asked.
       Both outlive a restart; `tandem arm` ends them, on this host, with a reason.
/      show only what has a text in it; Enter keeps it, Esc shows all again
l      latency of every stage
o      orders, newest first
?      this
q      quit; the run goes on

Everything is read from shared memory and the journal. Amounts are exact; times are UTC.
More: `tandem why ROUND`, `tandem orders`, `tandem latency`, and the dashboard of [web].";
    frame.render_widget(Paragraph::new(text).block(block("keys")), area);
}
