//! What a sweep runs: every combination of the values of a grid, for every day and every seed.
//!
//! Invariant: the number of a run gives its configuration, its day and its seed, and nothing else has a say. Axes
//! are in the order of their keys, days and seeds in the order of the file; the seed turns fastest, then the day,
//! then the last axis. A key that the backtest does not know is an error that names the nearest, and every value
//! has been read as a configuration before the first run begins.
//!
//! Not here: what the keys mean (`tandem_backtest::config`), what is read (`data`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tandem_backtest::config::{Config, VenueModel};
use tandem_core::record::Venue;

use crate::config::{nearest, with_nearest_key};
use crate::reports::period::{Period, read_day};

/// Most runs of one sweep.
pub const RUNS_MAX: u64 = 1_000_000;
/// Most bytes of a grid or of a backtest's configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Keys of `[engine]` that a backtest may set otherwise than the recorded run: those of its detection.
const ENGINE_KEYS: [&str; 11] = [
    "basis_ppm",
    "cycles_max",
    "denial_ms",
    "edge_max_halt_s",
    "edge_max_ppm",
    "edge_min_ppm",
    "flicker_ms",
    "legs_max",
    "numeraires",
    "update_ms",
    "window_levels",
];

/// Why there is no grid.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It does not say what it must.
    #[error("{path}: {detail}")]
    Text {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to write.
        detail: String,
    },
}

/// One key with its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// The key, with dots: `competition.share_ppm`.
    pub key: String,
    /// Its values, in the order of the file.
    pub values: Vec<Value>,
}

/// A grid: the product of everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// By key.
    pub axes: Vec<Axis>,
    /// Days of which each is a run of its own; empty: all the data in every run.
    pub days: Vec<String>,
    /// Whether the days are those that the data has.
    pub by_day: bool,
    /// Seeds, at least one.
    pub seeds: Vec<u64>,
}

/// One run, before it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its number, from 0.
    pub index: u64,
    /// The day that it is about; nothing: all the data.
    pub day: Option<String>,
    /// The period of that day.
    pub period: Period,
    /// A value of each axis.
    pub values: Vec<Value>,
    /// What it assumes, with its seed.
    pub config: Config,
}

/// Reads the configuration that every run begins with; without a file, the defaults.
pub fn read_base(path: Option<&Path>) -> Result<Config, GridError> {
    let Some(path) = path else { return Ok(Config::default()) };
    toml::from_str(&read(path)?).map_err(|error| GridError::Text {
        path: path.to_owned(),
        detail: with_nearest_key(&error.to_string()),
    })
}

fn read(path: &Path) -> Result<String, GridError> {
    let io = |error| GridError::Io { path: path.to_owned(), error };
    if FILE_BYTES_MAX < std::fs::metadata(path).map_err(io)?.len() {
        let detail = format!("is longer than {FILE_BYTES_MAX} bytes: no configuration is");
        return Err(GridError::Text { path: path.to_owned(), detail });
    }
    std::fs::read_to_string(path).map_err(io)
}

impl Grid {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Grid, GridError> {
        Grid::parse(&read(path)?)
            .map_err(|detail| GridError::Text { path: path.to_owned(), detail })
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Grid, String> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let known = ["by_day", "days", "grid", "seeds"];
        if let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(unknown_key(unknown, unknown, &known));
        }
        let mut axes = Vec::new();
        match table.get("grid") {
            None => {}
            Some(toml::Value::Table(grid)) => flatten("", grid, &mut axes)?,
            Some(_) => return Err("grid: write a table, `[grid]`".to_owned()),
        }
        axes.sort_by(|a: &Axis, b| a.key.cmp(&b.key));
        let keys: Vec<&str> = axes.iter().map(|axis| axis.key.as_str()).collect();
        for (idx, key) in keys.iter().enumerate() {
            let is_below = |other: &&&str| {
                key.strip_prefix(**other).is_some_and(|r| r.is_empty() || r.starts_with('.'))
            };
            if let Some(other) = keys[..idx].iter().find(is_below) {
                return Err(format!("grid: `{other}` and `{key}` set the same key; keep one"));
            }
        }
        let by_day = match table.get("by_day") {
            None => false,
            Some(toml::Value::Boolean(by_day)) => *by_day,
            Some(other) => return Err(format!("by_day = {other}: write true or false")),
        };
        let days = days(table.get("days"))?;
        if by_day && !days.is_empty() {
            return Err("by_day takes all days of the data: leave it out, or `days`".to_owned());
        }
        Ok(Grid { axes, days, by_day, seeds: seeds(table.get("seeds"))? })
    }

    /// Returns how many runs it has; an error where these are too many.
    pub fn runs(&self) -> Result<u64, String> {
        let sizes = self.axes.iter().map(|axis| axis.values.len());
        let all = sizes.chain([self.days.len().max(1), self.seeds.len()]);
        let product = all.map(|size| size as u64).try_fold(1u64, u64::checked_mul);
        product.filter(|runs| *runs <= RUNS_MAX).ok_or_else(|| {
            format!("the grid has more than {RUNS_MAX} runs: take values out, or sweep in parts")
        })
    }

    /// Reads every value as a configuration, so that no run fails for its form.
    pub fn check(&self, base: &Config) -> Result<(), String> {
        self.runs()?;
        for axis in &self.axes {
            check_key(&axis.key)?;
            for value in &axis.values {
                let one = [(axis.key.as_str(), value)];
                configure(base, base.seed, &one)?;
            }
        }
        Ok(())
    }

    /// Returns a run by its number; nothing where there is none.
    pub fn job(&self, base: &Config, index: u64) -> Result<Option<Job>, String> {
        if self.runs()? <= index {
            return Ok(None);
        }
        let mut rest = index;
        let mut turn = |size: usize| {
            let size = size as u64;
            let at = (rest % size) as usize;
            rest /= size;
            at
        };
        let seed = self.seeds[turn(self.seeds.len())];
        let day = match self.days.len() {
            0 => None,
            days => Some(self.days[turn(days)].clone()),
        };
        let mut values: Vec<Value> = Vec::with_capacity(self.axes.len());
        for axis in self.axes.iter().rev() {
            values.push(axis.values[turn(axis.values.len())].clone());
        }
        values.reverse();
        let keys = self.axes.iter().map(|axis| axis.key.as_str());
        let set: Vec<(&str, &Value)> = keys.zip(&values).collect();
        let config = configure(base, seed, &set)?;
        let period = match &day {
            None => Period::ALL,
            Some(day) => Period::day(read_day(day)?),
        };
        Ok(Some(Job { index, day, period, values, config }))
    }
}

fn unknown_key(key: &str, part: &str, known: &[&str]) -> String {
    match nearest(part, known.iter().copied()) {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`"),
    }
}

/// Axes of a table, also of tables in it: `[grid.competition] share_ppm = […]` is the same key.
fn flatten(before: &str, table: &toml::Table, axes: &mut Vec<Axis>) -> Result<(), String> {
    for (name, value) in table {
        let key = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, axes)?,
            toml::Value::Array(list) => {
                if list.is_empty() {
                    return Err(format!("grid: `{key}` has no value; name one, or take it out"));
                }
                let values = list.iter().map(|value| json(&key, value));
                let values: Vec<Value> = values.collect::<Result<_, String>>()?;
                if let Some(twice) = repeated(values.iter().map(Value::to_string)) {
                    return Err(format!("grid: `{key}` has {twice} twice"));
                }
                axes.push(Axis { key, values });
            }
            other => {
                return Err(format!("grid: `{key}` = {other}: write a list of values, [{other}]"));
            }
        }
    }
    Ok(())
}

fn repeated(texts: impl Iterator<Item = String>) -> Option<String> {
    let mut seen = BTreeSet::new();
    texts.into_iter().find(|text| !seen.insert(text.clone()))
}

/// A value as JSON; amounts are text and everything else counts whole, so nothing here is a float.
fn json(key: &str, value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Boolean(yes) => Value::Bool(*yes),
        toml::Value::Array(list) => {
            Value::Array(list.iter().map(|value| json(key, value)).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => {
            let pair = |(name, value): (&String, &toml::Value)| {
                json(key, value).map(|value| (name.clone(), value))
            };
            Value::Object(table.iter().map(pair).collect::<Result<Map<_, _>, _>>()?)
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => {
            return Err(format!(
                "grid: `{key}` = {value}: write whole numbers, or amounts as text"
            ));
        }
    })
}

fn days(value: Option<&toml::Value>) -> Result<Vec<String>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let wrong = || format!("days = {value}: write a list of days, [\"2026-11-30\", …]");
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
    let mut days = Vec::with_capacity(list.len());
    for day in list {
        let day = day.as_str().ok_or_else(wrong)?;
        read_day(day).map_err(|wrong| format!("days: {wrong}"))?;
        days.push(day.to_owned());
    }
    match repeated(days.iter().cloned()) {
        Some(twice) => Err(format!("days: {twice} is there twice")),
        None => Ok(days),
    }
}

fn seeds(value: Option<&toml::Value>) -> Result<Vec<u64>, String> {
    let Some(value) = value else { return Ok(vec![1]) };
    let wrong = || {
        format!("seeds = {value}: write [1, 2, 3], or {{ from = 1, count = 100 }}; none below 0")
    };
    let whole = |value: &toml::Value| value.as_integer().and_then(|n| u64::try_from(n).ok());
    let seeds: Vec<u64> = match value {
        toml::Value::Array(list) => list.iter().map(whole).collect::<Option<_>>(),
        toml::Value::Table(range) if range.len() == 2 => {
            let from = range.get("from").and_then(whole);
            let count = range.get("count").and_then(whole).filter(|count| *count <= RUNS_MAX);
            let list = |(from, count): (u64, u64)| {
                let last = from.checked_add(count).filter(|end| *end <= i64::MAX as u64)?;
                Some((from..last).collect())
            };
            from.zip(count).and_then(list)
        }
        _ => None,
    }
    .filter(|seeds: &Vec<u64>| !seeds.is_empty())
    .ok_or_else(wrong)?;
    match repeated(seeds.iter().map(u64::to_string)) {
        Some(twice) => Err(format!("seeds: {twice} is there twice")),
        None => Ok(seeds),
    }
}

/// What the types of the configuration leave open: names of venues, and keys of `[engine]`.
fn check_key(key: &str) -> Result<(), String> {
    if key == "seed" {
        return Err("grid: `seed` is no axis: write `seeds = […]` beside [grid]".to_owned());
    }
    let parts: Vec<&str> = key.split('.').collect();
    let (known, part): (Vec<&str>, &str) = match parts[..] {
        ["venue" | "opening", venue, ..] => (Venue::ALL.map(Venue::name).to_vec(), venue),
        ["engine", part, ..] => (ENGINE_KEYS.to_vec(), part),
        ["venue" | "opening" | "engine"] => {
            return Err(format!("grid: `{key}` is a section: name a key in it, `{key}.KEY`"));
        }
        _ => return Ok(()),
    };
    match known.contains(&part) {
        true => Ok(()),
        false => Err(format!("grid: {}", unknown_key(key, part, &known))),
    }
}

/// Returns the base with a seed and some keys set.
fn configure(base: &Config, seed: u64, set: &[(&str, &Value)]) -> Result<Config, String> {
    let mut config = serde_json::to_value(base).map_err(|error| error.to_string())?;
    for (key, value) in set {
        put(&mut config, key, (*value).clone())?;
    }
    let read = serde_json::from_value::<Config>(config).map_err(|error| {
        let keys = set.iter().map(|(key, value)| format!("`{key}` = {value}"));
        let keys = keys.collect::<Vec<_>>().join(", ");
        format!("grid: {keys}: {}", with_nearest_key(&error.to_string()))
    })?;
    Ok(Config { seed, ..read })
}

/// Sets one key; sections on the way to it are made where they are not.
fn put(config: &mut Value, key: &str, value: Value) -> Result<(), String> {
    let parts: Vec<&str> = key.split('.').collect();
    let mut at = config;
    for (depth, part) in parts.iter().enumerate() {
        let is_venue = depth == 1 && parts[0] == "venue";
        // A section that is not there yet.
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        at = match at {
            Value::Object(map) => {
                let defaults = || match is_venue {
                    true => serde_json::to_value(VenueModel::default()).unwrap_or_default(),
                    false => Value::Object(Map::new()),
                };
                map.entry((*part).to_owned()).or_insert_with(defaults)
            }
            Value::Array(list) => {
                let count = list.len();
                let entry = part.parse::<usize>().ok().and_then(|idx| list.get_mut(idx));
                entry.ok_or_else(|| {
                    format!("grid: `{key}`: `{part}` is no entry: there are {count}, from 0")
                })?
            }
            other => {
                let above = parts[..depth].join(".");
                return Err(format!(
                    "grid: `{key}`: `{above}` is {other} and no section; write `{above} = […]`"
                ));
            }
        };
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tandem_backtest::config::Latency;

    use super::*;

    const GRID: &str = r#"
        seeds = { from = 5, count = 3 }
        days = ["2026-11-30", "2026-12-01"]
        [grid]
        "venue.binance.entry" = [{ model = "constant", us = 1000 }, { model = "constant", us = 2000 }]
        "engine.edge_min_ppm" = [100, 200]
        [grid.competition]
        share_ppm = [0, 500000, 900000]
    "#;

    fn all(grid: &Grid) -> Vec<Job> {
        let base = Config::default();
        let job = |index| grid.job(&base, index).expect("a configuration").expect("a run");
        (0..grid.runs().expect("few")).map(job).collect()
    }

    #[test]
    fn a_number_gives_a_run() {
        let grid = Grid::parse(GRID).expect("a grid");
        grid.check(&Config::default()).expect("sound");
        let jobs = all(&grid);
        assert_eq!(jobs.len(), 3 * 2 * 2 * 2 * 3);
        let keys: Vec<&str> = grid.axes.iter().map(|axis| axis.key.as_str()).collect();
        assert_eq!(keys, ["competition.share_ppm", "engine.edge_min_ppm", "venue.binance.entry"]);
        // The seed turns fastest, then the day, then the last axis.
        let day = |n: usize| jobs[n].day.clone().unwrap_or_default();
        assert_eq!([0, 1, 2, 3].map(|n| jobs[n].config.seed), [5, 6, 7, 5]);
        assert_eq!([day(0), day(2), day(3)], ["2026-11-30", "2026-11-30", "2026-12-01"]);
        let entry = |n: usize| jobs[n].config.venue["binance"].entry.clone();
        assert_eq!([entry(5), entry(6)], [1000, 2000].map(|us| Latency::Constant { us }));
        let share = |n: usize| jobs[n].config.competition.share_ppm;
        assert_eq!([share(0), share(24), share(71)], [0, 500_000, 900_000]);
        assert_eq!(jobs[71].config.engine["edge_min_ppm"], 200);
        assert_eq!(jobs[71].values[..2], [Value::from(900_000), Value::from(200)]);
        // What is not named of a venue is the default, not nothing.
        let venue = VenueModel { entry: entry(0), ..VenueModel::default() };
        assert_eq!(jobs[0].config.venue["binance"], venue);
        assert_eq!(grid.job(&Config::default(), 72), Ok(None));
        assert_eq!(jobs[0].period.to_ns - jobs[0].period.from_ns, 86_400_000_000_000);
        // No two runs are the same.
        let texts = jobs.iter().map(|job| format!("{:?}{}", job.config, day(job.index as usize)));
        assert_eq!(repeated(texts), None);
    }

    #[test]
    fn nothing_named_is_one_run() {
        let grid = Grid::parse("").expect("a grid");
        let jobs = all(&grid);
        assert_eq!((jobs.len(), &jobs[0].config), (1, &Config::default()));
        assert_eq!((jobs[0].period, &jobs[0].day), (Period::ALL, &None));
    }

    #[test]
    fn keys_reach_sections_lists_and_nothing_yet() {
        let base: Config = toml::from_str(
            "[[transfer]]\nasset = \"BTC\"\nfrom = \"kraken\"\nto = \"binance\"\nbelow = \"1\"\n\
             amount = \"2\"\nfee = \"0\"\ndelay_s = 60\nday_max = \"4\"",
        )
        .expect("a configuration");
        let grid = Grid::parse(
            "[grid]\n\"transfer.0.delay_s\" = [600]\n\"opening.kraken.USD\" = [\"5\"]\n\
             \"venue.kraken.entry.us\" = [7]\n\"venue.kraken.outage.every_s\" = [9]\n\
             \"venue.kraken.outage.lasts_ms\" = [8]",
        )
        .expect("a grid");
        let job = grid.job(&base, 0).expect("a configuration").expect("a run");
        assert_eq!(job.config.transfer[0].delay_s, 600);
        assert_eq!(job.config.opening["kraken"]["USD"], "5");
        let venue = &job.config.venue["kraken"];
        assert_eq!(venue.entry, Latency::Constant { us: 7 });
        assert_eq!(venue.outage.map(|outage| (outage.every_s, outage.lasts_ms)), Some((9, 8)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("sedes = [1]", "unknown key `sedes`; did you mean `seeds`?"),
            ("[grid]\n\"competition.shar_ppm\" = [1]", "did you mean `share_ppm`?"),
            ("[grid]\n\"competitoin.share_ppm\" = [1]", "did you mean `competition`?"),
            ("[grid]\n\"venue.krakne.reject_ppm\" = [1]", "did you mean `kraken`?"),
            ("[grid]\n\"venue.kraken.rejct_ppm\" = [1]", "did you mean `reject_ppm`?"),
            ("[grid]\n\"engine.edge_mim_ppm\" = [1]", "did you mean `edge_min_ppm`?"),
            ("[grid]\n\"venue.kraken.entry\" = [{ model = \"constant\", ms = 1 }]", "`us`?"),
            ("[grid]\n\"venue.kraken.entry\" = [{ model = \"konstant\", us = 1 }]", "konstant"),
            ("[grid]\nlatency_ppm = 5", "write a list of values, [5]"),
            ("[grid]\nlatency_ppm = []", "has no value"),
            ("[grid]\nlatency_ppm = [5, 5]", "has 5 twice"),
            ("[grid]\nlatency_ppm = [0.5]", "write whole numbers"),
            ("[grid]\nlatency_ppm = [-5]", "invalid value"),
            ("[grid]\nlatency_ppm = [\"5\"]", "invalid type"),
            ("[grid]\nseed = [1]", "write `seeds = […]`"),
            ("[grid]\nvenue = [1]", "is a section"),
            ("[grid]\n\"limits.order_max\" = [1]", "no section"),
            ("[grid]\n\"transfer.0.delay_s\" = [1]", "is no entry"),
            (
                "[grid]\nvenue.kraken.outage = [{ every_s = 1, lasts_ms = 2 }]\n\
              \"venue.kraken\".outage.every_s = [1]",
                "keep one",
            ),
            ("[grid]\ncompetition = [{ ramp_us = 1 }]\n\"competition.ramp_us\" = [1]", "keep one"),
            ("grid = 5", "write a table"),
            ("seeds = []", "write [1, 2, 3]"),
            ("seeds = [-1]", "none below 0"),
            ("seeds = [1, 1]", "1 is there twice"),
            ("seeds = { from = 1, count = 0 }", "write [1, 2, 3]"),
            ("seeds = { from = 1, to = 5 }", "write [1, 2, 3]"),
            ("seeds = { from = 9223372036854775807, count = 2 }", "write [1, 2, 3]"),
            ("seeds = { from = 1, count = 1000001 }", "write [1, 2, 3]"),
            ("seeds = { from = 1, count = 1000000 }\n[grid]\nlatency_ppm = [1, 2]", "in parts"),
            ("days = [\"2026-11-31\"]", "is no day"),
            ("days = [\"2026-11-30\", \"2026-11-30\"]", "twice"),
            ("days = []", "write a list of days"),
            ("by_day = 1", "write true or false"),
            ("by_day = true\ndays = [\"2026-11-30\"]", "leave it out"),
            ("seeds = ", "TOML parse error"),
        ] {
            let base = Config::default();
            let told = Grid::parse(text).and_then(|grid| grid.check(&base)).expect_err(text);
            assert!(told.contains(wanted), "{text}: {told}");
        }
    }

    #[test]
    fn engine_keys_are_those_of_detection() {
        let detection = crate::generate::setup().detection;
        let json = serde_json::to_value(detection).expect("JSON");
        let mut keys: Vec<&str> =
            json.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.retain(|key| *key != "venues");
        keys.sort_unstable();
        assert_eq!(keys, ENGINE_KEYS);
    }
}
