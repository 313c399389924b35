//! What is shown: one row a comparison, with its ratio and its budget, as a table or as JSON.
//!
//! Invariant: no figure of ours stands without one of somebody else's from the same rounds.

use serde::Serialize;

use crate::harness::{Comparison, Found, counter_step_ns};

/// What design section 12 asks for.
#[derive(Clone, Copy)]
pub enum Budget {
    /// Ours is at most so many times the other's.
    Ratio(f64),
    /// The median over blocks of one operation, in nanoseconds.
    Ns(f64),
    /// The median of single operations, in nanoseconds.
    P50(f64),
    /// 99.9 % of single operations, in nanoseconds.
    P999(f64),
    /// Operations a second.
    PerSecond(f64),
}

impl Budget {
    /// Returns the budget in words and whether it is met.
    fn judge(self, ours: &Found, ratio: Option<f64>) -> (String, bool) {
        let (text, value, bound) = match self {
            Budget::Ratio(most) => (format!("ratio <= {most}"), ratio, most),
            Budget::Ns(most) => (format!("<= {most} ns"), Some(ours.ns), most),
            Budget::P50(most) => {
                (format!("p50 <= {most} ns"), Some(ours.hist.quantile_ns(0.5)), most)
            }
            Budget::P999(most) => {
                (format!("p99.9 <= {most} ns"), Some(ours.hist.quantile_ns(0.999)), most)
            }
            Budget::PerSecond(least) => {
                let text = format!(">= {:.0} M/s", least / 1e6);
                (text, Some(ours.ns), 1e9 / least)
            }
        };
        (text, value.is_some_and(|value| value <= bound))
    }
}

/// One comparison of ours with one other.
#[derive(Serialize)]
struct Row {
    what: String,
    ours_ns: f64,
    beside: String,
    beside_ns: f64,
    ratio: Option<f64>,
    budget: Option<String>,
    met: Option<bool>,
}

/// Percentiles of single operations.
#[derive(Serialize)]
struct Single {
    name: String,
    count: u64,
    p50_ns: f64,
    p99_ns: f64,
    p999_ns: f64,
    max_ns: f64,
}

/// One table.
#[derive(Serialize)]
pub struct Table {
    group: &'static str,
    title: String,
    regime: &'static str,
    rounds_kept: usize,
    rounds: usize,
    noisy: bool,
    rounds_text: String,
    rows: Vec<Row>,
    singles: Vec<Single>,
    notes: Vec<String>,
}

impl Table {
    /// Starts the table of a comparison.
    pub fn new(group: &'static str, title: impl Into<String>, comparison: &Comparison) -> Table {
        let mut title = title.into();
        if !comparison.regime.is_empty() {
            title = format!("{title} [{}]", comparison.regime);
        }
        Table {
            group,
            title,
            regime: comparison.regime,
            rounds_kept: comparison.kept,
            rounds: comparison.rounds,
            noisy: comparison.noisy,
            rounds_text: comparison.says(),
            rows: Vec::new(),
            singles: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row for `ours` beside each of `others`; the budget belongs to the first.
    pub fn beside(
        &mut self,
        comparison: &Comparison,
        ours: &str,
        others: &[&str],
        mut budget: Option<Budget>,
    ) {
        for other in others {
            let (Some(found), Some(theirs)) = (comparison.get(ours), comparison.get(other)) else {
                panic!("{ours} and {other} are contenders");
            };
            let ratio = found.ratio_to(theirs);
            let judged = budget.take().map(|budget| budget.judge(found, ratio));
            self.rows.push(Row {
                what: ours.to_owned(),
                ours_ns: found.ns,
                beside: (*other).to_owned(),
                beside_ns: theirs.ns,
                ratio,
                met: judged.as_ref().map(|(_, met)| *met),
                budget: judged.map(|(text, _)| text),
            });
        }
    }

    /// Adds the percentiles of everyone whose operations were timed singly.
    pub fn singles(&mut self, comparison: &Comparison) {
        for found in comparison.found.iter().filter(|found| 0 < found.hist.count()) {
            self.singles.push(Single {
                name: found.name.clone(),
                count: found.hist.count(),
                p50_ns: found.hist.quantile_ns(0.5),
                p99_ns: found.hist.quantile_ns(0.99),
                p999_ns: found.hist.quantile_ns(0.999),
                max_ns: found.hist.max_ns(),
            });
        }
    }

    /// Adds a line of text.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn print(&self) {
        println!("\n{}: {}   ({})", self.group, self.title, self.rounds_text);
        println!(
            "  {:<34} {:>9}  {:<34} {:>9} {:>7}  {:<16} met",
            "what", "ours ns", "beside", "its ns", "ratio", "budget"
        );
        for row in &self.rows {
            let line = format!(
                "  {:<34} {:>9}  {:<34} {:>9} {:>7}  {:<16} {}",
                row.what,
                short(row.ours_ns),
                row.beside,
                short(row.beside_ns),
                row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                row.budget.as_deref().unwrap_or(""),
                match row.met {
                    Some(true) => "yes",
                    Some(false) => "NO",
                    None => "",
                }
            );
            println!("{}", line.trim_end());
        }
        if !self.singles.is_empty() {
            println!(
                "  {:<34} {:>9} {:>9} {:>9} {:>11} {:>11}",
                "single operations", "p50", "p99", "p99.9", "max", "n"
            );
        }
        for single in &self.singles {
            println!(
                "  {:<34} {:>9} {:>9} {:>9} {:>11} {:>11}",
                single.name,
                short(single.p50_ns),
                short(single.p99_ns),
                short(single.p999_ns),
                short(single.max_ns),
                single.count
            );
        }
        for note in &self.notes {
            println!("  {note}");
        }
    }
}

/// Three or so digits.
fn short(ns: f64) -> String {
    match ns.abs() {
        v if v < 10.0 => format!("{ns:.2}"),
        v if v < 1_000.0 => format!("{ns:.1}"),
        _ => format!("{ns:.0}"),
    }
}

/// What the figures were made on and of.
#[derive(Serialize)]
pub struct Machine {
    processor: String,
    cpus: usize,
    kernel: String,
    compiler: &'static str,
    profile: &'static str,
    commit: &'static str,
    counter_step_ns: f64,
    two_counter_reads_ns: f64,
    load_before: String,
    load_after: String,
    steal_ticks: Option<u64>,
}

/// Everything of one run.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    tables: Vec<Table>,
    #[serde(skip)]
    steal_before: Option<u64>,
    #[serde(skip)]
    show: bool,
}

impl Report {
    /// Looks at the machine. Tables are printed as they come where `show` is set.
    pub fn new(show: bool) -> Report {
        let (counter_step_ns, two_counter_reads_ns) = counter_step_ns();
        let machine = Machine {
            processor: processor(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            compiler: env!("TANDEM_RUSTC"),
            profile: env!("TANDEM_PROFILE"),
            commit: env!("TANDEM_COMMIT"),
            counter_step_ns,
            two_counter_reads_ns,
            load_before: load(),
            load_after: String::new(),
            steal_ticks: None,
        };
        if show {
            println!("processor  {} ({} cpus)", machine.processor, machine.cpus);
            println!("kernel     {}", machine.kernel);
            println!("compiler   {}, {}", machine.compiler, machine.profile);
            println!("commit     {}", machine.commit);
            println!("load       {}", machine.load_before);
            println!(
                "counter    steps of {:.1} ns; two reads in a row cost {:.1} ns",
                machine.counter_step_ns, machine.two_counter_reads_ns
            );
        }
        Report { machine, tables: Vec::new(), steal_before: steal(), show }
    }

    /// Takes a table.
    pub fn add(&mut self, table: Table) {
        if self.show {
            table.print();
        }
        self.tables.push(table);
    }

    /// Ends the run: what the machine did meanwhile, and which budgets were missed.
    pub fn finish(mut self) -> Result<(), serde_json::Error> {
        self.machine.load_after = load();
        self.machine.steal_ticks =
            steal().zip(self.steal_before).map(|(after, before)| after.saturating_sub(before));
        if !self.show {
            println!("{}", serde_json::to_string_pretty(&self)?);
            return Ok(());
        }
        let steal =
            self.machine.steal_ticks.map_or("unknown".to_owned(), |ticks| ticks.to_string());
        println!("\nload at the end {}, stolen ticks {steal}", self.machine.load_after);
        let judged: Vec<_> = self
            .tables
            .iter()
            .flat_map(|table| table.rows.iter().map(move |row| (table, row)))
            .filter_map(|(table, row)| Some((table, row, row.met?)))
            .collect();
        let met = judged.iter().filter(|(_, _, met)| *met).count();
        println!("budgets met {met} of {}", judged.len());
        for (table, row, _) in judged.iter().filter(|(_, _, met)| !met) {
            println!("  missed: {} / {} / {}", table.group, table.title, row.what);
        }
        Ok(())
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |s| s.trim().to_owned())
}

fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let model = text.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
}

/// Ticks that the host gave to others, since boot.
fn steal() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().next()?.split_whitespace().nth(8)?.parse().ok()
}
