//! The page as it is written: sections, numbers, tables, plots with their table behind them.
//!
//! Invariant: a number gets onto the page through [`Doc::one`] or [`Doc::record`] alone, and its element names
//! the figure; everything that came from a file is escaped. A plot is drawn twice, for a wide and for a narrow
//! reader, and style shows one of them.
//!
//! Not here: what is drawn (`draw`), what is said (`top`, `money`, `orders`).

use std::fmt::Write;

use serde_json::Value;

use super::figures::{ColumnOut, Currency, Figure, Rows, Unit};
use crate::reports::page::escaped;

/// Width of a plot for a wide reader, in units of the drawing.
pub const WIDE: f64 = 860.0;
/// Width for a narrow one: a telephone's screen without its margins.
pub const NARROW: f64 = 340.0;

/// A word of a plot: text, or a number that is traced.
#[derive(Clone, Debug)]
pub struct Word {
    /// What is read.
    pub text: String,
    /// Figure, row, column.
    source: Option<(String, usize, usize)>,
    /// It is whole or not there.
    is_number: bool,
}

/// Words beside each other.
#[derive(Clone, Debug, Default)]
pub struct Label(Vec<Word>);

impl Label {
    /// Returns words that are no number.
    #[must_use]
    pub fn text(text: &str) -> Label {
        Label(vec![Word { text: text.to_owned(), source: None, is_number: false }])
    }

    /// Returns both, one after the other.
    #[must_use]
    pub fn then(mut self, next: Label) -> Label {
        self.0.extend(next.0);
        self
    }

    /// Returns how many characters it has.
    #[must_use]
    pub fn chars(&self) -> usize {
        self.0.iter().map(|word| word.text.chars().count()).sum()
    }

    /// Returns it as the inside of an SVG text, cut where it has more than `most` characters; a number that has no
    /// room is left out: half of one would be another.
    #[must_use]
    pub fn svg(&self, most: usize) -> String {
        self.marked("tspan", most)
    }

    /// Returns its first word as what is told of a mark that is pointed at.
    #[must_use]
    pub fn title(&self) -> String {
        match self.0.first() {
            Some(Word { text, source: Some((figure, row, column)), .. }) => format!(
                "<title data-figure=\"{}\" data-row=\"{row}\" data-column=\"{column}\">{}</title>",
                escaped(figure),
                escaped(text)
            ),
            Some(word) => format!("<title>{}</title>", escaped(&word.text)),
            None => String::new(),
        }
    }

    /// Returns it for the text of the page.
    #[must_use]
    pub fn html(&self) -> String {
        self.marked("span", usize::MAX)
    }

    fn marked(&self, element: &str, most: usize) -> String {
        let mut out = String::new();
        let mut left = if most < self.chars() { most.saturating_sub(1) } else { usize::MAX };
        for word in &self.0 {
            let shown: String = word.text.chars().take(left).collect();
            let is_cut = shown.len() < word.text.len();
            if is_cut && word.is_number {
                break;
            }
            let shown = escaped(&shown);
            let _ = match &word.source {
                Some((figure, row, column)) if !is_cut => write!(
                    out,
                    "<{element} data-figure=\"{}\" data-row=\"{row}\" data-column=\"{column}\">{shown}</{element}>",
                    escaped(figure)
                ),
                Some((figure, row, column)) => write!(
                    out,
                    "<{element} data-figure=\"{}\" data-row=\"{row}\" data-column=\"{column}\" data-cut=\"yes\">{shown}\u{2026}</{element}>",
                    escaped(figure)
                ),
                None if is_cut => write!(out, "{shown}\u{2026}"),
                None => write!(out, "{shown}"),
            };
            left = left.saturating_sub(word.text.chars().count());
            if is_cut {
                break;
            }
        }
        out
    }
}

/// A table that was recorded.
#[derive(Clone, Debug)]
pub struct Table {
    id: String,
    title: String,
    heads: Vec<(String, bool)>,
    units: Vec<Unit>,
    cells: Vec<Vec<String>>,
    values: Vec<Vec<Value>>,
}

impl Table {
    /// Returns how many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Returns whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Returns a cell as a traced word; nothing to say where there is no such cell.
    #[must_use]
    pub fn label(&self, row: usize, column: usize) -> Label {
        let text = self.cells.get(row).and_then(|row| row.get(column)).cloned();
        let Some(text) = text else { return Label::default() };
        let is_number = self.units.get(column).is_some_and(|unit| unit.is_number());
        Label(vec![Word { text, source: Some((self.id.clone(), row, column)), is_number }])
    }

    /// Returns a cell's number.
    #[must_use]
    pub fn number(&self, row: usize, column: usize) -> Option<i64> {
        self.values.get(row)?.get(column)?.as_i64()
    }
}

/// The page in the making.
#[derive(Debug)]
pub struct Doc {
    /// The body so far.
    pub out: String,
    /// The figures so far.
    pub figures: Vec<Figure>,
    /// What amounts count in.
    pub currency: Currency,
    plots: usize,
}

impl Doc {
    /// Begins.
    #[must_use]
    pub fn new(currency: Currency) -> Doc {
        Doc { out: String::new(), figures: Vec::new(), currency, plots: 0 }
    }

    /// Records a number and returns it as it is shown in a sentence.
    pub fn one(
        &mut self,
        id: &str,
        title: &str,
        unit: Unit,
        query: &str,
        value: impl Into<Value>,
    ) -> String {
        let value = value.into();
        let shown = unit.alone(&value, &self.currency);
        let class = match (unit.is_gain(), value.as_i64()) {
            (true, Some(number)) if number < 0 => " class=\"loss\"",
            (true, Some(number)) if 0 < number => " class=\"gain\"",
            _ => "",
        };
        let html =
            format!("<span data-figure=\"{}\"{class}>{}</span>", escaped(id), escaped(&shown));
        if self.figures.iter().all(|figure| figure.id != id) {
            self.figures.push(Figure {
                id: id.to_owned(),
                title: title.to_owned(),
                unit: Some(unit.name(&self.currency)),
                query: query.to_owned(),
                value: Some(value),
                shown: Some(shown),
                columns: None,
                rows: None,
                rows_shown: None,
            });
        }
        html
    }

    /// Records a table.
    pub fn record(&mut self, rows: Rows) -> Table {
        let Rows { id, title, query, columns, rows } = rows;
        let currency = &self.currency;
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                row.iter().zip(&columns).map(|(cell, of)| of.unit.cell(cell, currency)).collect()
            })
            .collect();
        let heads = columns
            .iter()
            .map(|c| (format!("{}{}", c.title, c.unit.head(currency)), c.unit.is_number()))
            .collect();
        let out = |column: &super::figures::Column| ColumnOut {
            title: column.title.to_owned(),
            unit: column.unit.name(currency),
            query: column.query.to_owned(),
        };
        self.figures.push(Figure {
            id: id.clone(),
            title: title.clone(),
            unit: None,
            query,
            value: None,
            shown: None,
            columns: Some(columns.iter().map(out).collect()),
            rows: Some(rows.clone()),
            rows_shown: Some(cells.clone()),
        });
        let units = columns.iter().map(|column| column.unit).collect();
        Table { id, title, heads, units, cells, values: rows }
    }

    /// Begins a section.
    pub fn section(&mut self, id: &str, title: &str) {
        let _ = writeln!(
            self.out,
            "<section id=\"{}\" aria-labelledby=\"{0}-title\">\n<h2 id=\"{0}-title\">{}</h2>",
            escaped(id),
            escaped(title)
        );
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.out.push_str("</section>\n");
    }

    /// Writes a paragraph of HTML: text of ours and numbers of [`Doc::one`].
    pub fn say(&mut self, html: &str) {
        let _ = writeln!(self.out, "<p>{html}</p>");
    }

    /// Writes what there is to say where there is nothing to show.
    pub fn nothing(&mut self, title: &str, html: &str) {
        let _ = writeln!(
            self.out,
            "<div class=\"plot\"><h3>{title}</h3><p class=\"none\">{html}</p></div>"
        );
    }

    /// Writes a table.
    pub fn table(&mut self, table: &Table) {
        let caption = escaped(&table.title);
        let _ = write!(
            self.out,
            "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\n\
             <table data-figure=\"{}\">\n<caption>{caption}</caption>\n<thead><tr>",
            escaped(&table.id)
        );
        let class = |is_number: bool| if is_number { " class=\"n\"" } else { "" };
        for (head, is_number) in &table.heads {
            let _ =
                write!(self.out, "<th scope=\"col\"{}>{}</th>", class(*is_number), escaped(head));
        }
        self.out.push_str("</tr></thead>\n<tbody>\n");
        for (row, values) in table.cells.iter().zip(&table.values) {
            self.out.push_str("<tr>");
            let columns = row.iter().zip(values).zip(&table.units);
            for (at, ((cell, value), unit)) in columns.enumerate() {
                let element = if at == 0 { "th" } else { "td" };
                let scope = if at == 0 { " scope=\"row\"" } else { "" };
                let sign = match value.as_i64() {
                    Some(number) if unit.is_gain() && number < 0 => " loss",
                    Some(number) if unit.is_gain() && 0 < number => " gain",
                    _ => "",
                };
                let class = match (unit.is_number(), sign) {
                    (true, sign) => format!(" class=\"n{sign}\""),
                    (false, _) => String::new(),
                };
                let _ = write!(self.out, "<{element}{scope}{class}>{}</{element}>", escaped(cell));
            }
            self.out.push_str("</tr>\n");
        }
        self.out.push_str("</tbody>\n</table>\n</div>\n");
    }

    /// Writes tables that are shown when asked for.
    pub fn details(&mut self, summary: &str, tables: &[&Table]) {
        if !tables.is_empty() {
            let _ = writeln!(self.out, "<details><summary>{}</summary>", escaped(summary));
            tables.iter().for_each(|table| self.table(table));
            self.out.push_str("</details>\n");
        }
    }

    /// Writes a plot: a heading that says what is seen (HTML), a line on how to read it (HTML), a description for
    /// those who do not see it, what draws it for a width, and the tables behind it.
    pub fn plot(
        &mut self,
        heading: &str,
        reading: &str,
        description: &str,
        draw: impl Fn(f64) -> String,
        tables: &[&Table],
    ) {
        self.plots += 1;
        let _ = write!(self.out, "<figure class=\"plot\"><figcaption><h3>{heading}</h3>");
        if !reading.is_empty() {
            let _ = write!(self.out, "<p>{reading}</p>");
        }
        self.out.push_str("</figcaption>\n");
        for (class, width) in [("wide", WIDE), ("narrow", NARROW)] {
            let drawn = draw(width);
            let (height, body) = drawn.split_once('\n').unwrap_or(("0", ""));
            let name = format!("plot-{}-{class}", self.plots);
            let _ = writeln!(
                self.out,
                "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{name}\">\
                 <desc id=\"{name}\">{}</desc>{body}</svg>",
                escaped(description)
            );
        }
        self.details("The numbers", tables);
        self.out.push_str("</figure>\n");
    }
}
