//! Between when and when: what `--since`, `--until`, `--year` and `--day` say.
//!
//! Invariant: times are UTC. A period holds its beginning and not its end, so that two that follow each other
//! share nothing and leave nothing out.
//!
//! Not here: durations of runs (`crate::cli`).

use clap::Args;
use tandem_feeds::stamp::unix_ns;

use crate::time::utc;

/// Nanoseconds of a day.
pub const DAY_NS: i64 = 86_400_000_000_000;

/// The two options that most commands take.
#[derive(Args, Clone, Debug, Default)]
pub struct PeriodArgs {
    /// From then on: 2026-11-30, 2026-11-30T08:00:00Z, or how long ago: 10m, 2h.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Until then, not included: written as --since is.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// A period, UNIX ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// First moment.
    pub from_ns: i64,
    /// First moment after it.
    pub to_ns: i64,
}

impl Period {
    /// Always.
    pub const ALL: Period = Period { from_ns: i64::MIN, to_ns: i64::MAX };

    /// Returns the period that two options say; durations count back from `now_ns`.
    pub fn read(args: &PeriodArgs, now_ns: i64) -> Result<Period, String> {
        let read = |option: &str, text: &Option<String>, default: i64| match text {
            None => Ok(default),
            Some(text) => moment(text, now_ns).map_err(|wrong| format!("--{option} {wrong}")),
        };
        let from_ns = read("since", &args.since, i64::MIN)?;
        let to_ns = read("until", &args.until, i64::MAX)?;
        if to_ns <= from_ns {
            return Err("--until is not after --since: nothing lies between".to_owned());
        }
        Ok(Period { from_ns, to_ns })
    }

    /// Returns a calendar year.
    pub fn year(year: u32) -> Result<Period, String> {
        let begin = |year: u32| unix_ns(format!("{year:04}-01-01T00:00:00Z").as_bytes());
        match (begin(year), begin(year + 1)) {
            (Some(from_ns), Some(to_ns)) => Ok(Period { from_ns, to_ns }),
            _ => Err(format!("--year {year}: write one from 1970 to 2199")),
        }
    }

    /// Returns a day counted from 1970-01-01.
    #[must_use]
    pub const fn day(day: i64) -> Period {
        let from_ns = day.saturating_mul(DAY_NS);
        Period { from_ns, to_ns: from_ns.saturating_add(DAY_NS) }
    }

    /// Returns whether a moment lies in it.
    #[must_use]
    pub const fn holds(&self, at_ns: i64) -> bool {
        self.from_ns <= at_ns && at_ns < self.to_ns
    }
}

/// Returns a day's name.
#[must_use]
pub fn day_name(day: i64) -> String {
    // The epoch itself has no name in `utc`, which shows 0 as nothing.
    utc(day.saturating_mul(DAY_NS).saturating_add(1)).chars().take(10).collect()
}

/// Reads `2026-11-30` as a day counted from 1970-01-01.
pub fn read_day(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no day: write YYYY-MM-DD, in UTC");
    let at = unix_ns(format!("{text}T00:00:00Z").as_bytes()).ok_or_else(wrong)?;
    let day = at.div_euclid(DAY_NS);
    // The 31st of a month that has none would be another month's first.
    if day_name(day) == text { Ok(day) } else { Err(wrong()) }
}

fn moment(text: &str, now_ns: i64) -> Result<i64, String> {
    if let Ok(day) = read_day(text) {
        return Ok(day * DAY_NS);
    }
    if let Some(at) = unix_ns(text.as_bytes()) {
        return Ok(at);
    }
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    match number.parse::<i64>() {
        Ok(number) if seconds != 0 => {
            Ok(now_ns.saturating_sub(number.saturating_mul(seconds).saturating_mul(1_000_000_000)))
        }
        _ => Err(format!(
            "`{text}` is no time: write 2026-11-30, 2026-11-30T08:00:00Z, or how long ago: 10m, 2h, 1d"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now = 1_796_000_000_000_000_000;
        let args = |since: &str, until: &str| PeriodArgs {
            since: Some(since.to_owned()),
            until: Some(until.to_owned()),
        };
        let read = |since: &str, until: &str| Period::read(&args(since, until), now);
        let day = read("2026-11-30", "2026-12-01").expect("a day");
        assert_eq!(Ok(day), read_day("2026-11-30").map(Period::day));
        assert!(day.holds(day.from_ns) && !day.holds(day.to_ns));
        assert_eq!(read("10m", "0s").map(|p| p.to_ns - p.from_ns), Ok(600_000_000_000));
        assert_eq!(
            read("2026-11-30T08:00:00Z", "2026-11-30T08:00:01.5Z").map(|p| p.to_ns - p.from_ns),
            Ok(1_500_000_000)
        );
        for wrong in ["yesterday", "10", "m", "2026-02-31", "2026-13-01", "-5m", "5 m", ""] {
            assert!(read(wrong, "2026-12-01").is_err(), "{wrong}");
        }
        assert!(read("2026-12-01", "2026-12-01").is_err());
        let leap = Period::year(2024).expect("a year");
        assert_eq!((leap.to_ns - leap.from_ns) / DAY_NS, 366);
        assert!(Period::year(3000).is_err());
        assert_eq!((day_name(0), day_name(-1)), ("1970-01-01".to_owned(), "1969-12-31".to_owned()));
    }
}
