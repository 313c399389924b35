//! Decimal text and integers: one grid a price or quantity, and the venues' time formats.
//!
//! Invariant: a value is a whole number of grid steps; text is made from and read into that number
//! exactly. Nothing on the wire ever went through a float.

use std::fmt::Write as _;

/// Step of a price or quantity: `mantissa × 10^-decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Step in units of `10^-decimals`.
    pub mantissa: i64,
    /// Digits after the point that the step needs.
    pub decimals: u8,
}

impl Grid {
    /// Reads a positive step such as `0.01`, `0.5` or `10`.
    #[must_use]
    pub fn parse_step(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let part = part.trim_end_matches('0');
        let decimals = u8::try_from(part.len()).ok().filter(|d| *d <= 12)?;
        let mantissa: i64 = format!("{whole}{part}").parse().ok()?;
        (mantissa > 0).then_some(Self { mantissa, decimals })
    }

    /// Returns the same step with no digit that it does not need.
    #[must_use]
    pub fn reduced(mut self) -> Self {
        while self.decimals > 0 && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.decimals -= 1;
        }
        self
    }

    /// Returns `steps` as a float, for the model and for figures nobody trades on.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "model arithmetic, not wire arithmetic")]
    pub fn as_f64(self, steps: i64) -> f64 {
        steps as f64 * self.step()
    }

    /// Returns the step as a float, for the model.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "model arithmetic, not wire arithmetic")]
    pub fn step(self) -> f64 {
        self.mantissa as f64 / 10f64.powi(i32::from(self.decimals))
    }

    /// Appends `steps` with exactly `decimals` digits after the point (at least the grid's own).
    pub fn write_fixed(self, steps: i64, decimals: u8, out: &mut String) {
        let decimals = usize::from(decimals.max(self.decimals));
        let scaled = i128::from(steps) * i128::from(self.mantissa);
        let scaled =
            scaled * 10i128.pow(u32::try_from(decimals).unwrap_or(0) - u32::from(self.decimals));
        if scaled < 0 {
            out.push('-');
        }
        let magnitude = scaled.unsigned_abs();
        let unit = 10u128.pow(u32::try_from(decimals).unwrap_or(0));
        let _ = write!(out, "{}", magnitude / unit);
        if decimals > 0 {
            let _ = write!(out, ".{:0decimals$}", magnitude % unit);
        }
    }

    /// Returns `steps` with exactly `decimals` digits after the point.
    #[must_use]
    pub fn fixed(self, steps: i64, decimals: u8) -> String {
        let mut out = String::with_capacity(24);
        self.write_fixed(steps, decimals, &mut out);
        out
    }

    /// Appends `steps` without trailing zeros, and without a point if none is left.
    pub fn write_trimmed(self, steps: i64, out: &mut String) {
        let start = out.len();
        self.write_fixed(steps, self.decimals, out);
        if out[start..].contains('.') {
            let kept = out.trim_end_matches('0').trim_end_matches('.').len();
            out.truncate(kept);
        }
    }

    /// Returns `steps` without trailing zeros.
    #[must_use]
    pub fn trimmed(self, steps: i64) -> String {
        let mut out = String::with_capacity(24);
        self.write_trimmed(steps, &mut out);
        out
    }

    /// Appends the digits the Kraken checksum is taken over: fixed decimals, no point, no leading
    /// zeros.
    pub fn write_checksum_digits(self, steps: i64, decimals: u8, out: &mut Vec<u8>) {
        let text = self.fixed(steps, decimals);
        let digits = text.bytes().filter(|b| *b != b'.');
        out.extend(digits.skip_while(|b| *b == b'0'));
    }

    /// Reads plain decimal text (no sign, no exponent); `None` if it is not on the grid.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<i64> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || whole.len() > 18 {
            return None;
        }
        let part = part.trim_end_matches('0');
        let decimals = usize::from(self.decimals);
        if part.len() > decimals {
            return None;
        }
        let scaled: i128 = format!("{whole}{part:0<decimals$}").parse().ok()?;
        let mantissa = i128::from(self.mantissa);
        (scaled % mantissa == 0).then(|| i64::try_from(scaled / mantissa).ok()).flatten()
    }

    /// Returns the step as Kraken's instrument channel prints it: `0.1`, but `1e-08`.
    #[must_use]
    pub fn exponent_text(self) -> String {
        if self.mantissa == 1 && self.decimals >= 5 {
            format!("1e-{:02}", self.decimals)
        } else {
            self.trimmed(1)
        }
    }
}

/// Civil date and time of a UNIX second.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// 0 is Sunday.
    weekday: i64,
}

/// Howard Hinnant's `civil_from_days`, with the day's time.
fn civil(unix_s: i64) -> Civil {
    let days = unix_s.div_euclid(86_400);
    let rest = unix_s.rem_euclid(86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    Civil {
        year: yoe + era * 400 + i64::from(month <= 2),
        month,
        day: doy - (153 * mp + 2) / 5 + 1,
        hour: rest / 3_600,
        minute: rest / 60 % 60,
        second: rest % 60,
        weekday: (days + 4).rem_euclid(7),
    }
}

/// Returns the day so many days after a time: year, month, day.
pub(crate) fn day_after(at: std::time::SystemTime, days: u32) -> (i32, u8, u8) {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let unix_s = i64::try_from(since.as_secs()).unwrap_or(0) + i64::from(days) * 86_400;
    let day = civil(unix_s);
    let small = |part: i64| u8::try_from(part).unwrap_or(1);
    (i32::try_from(day.year).unwrap_or(9_999), small(day.month), small(day.day))
}

fn split_ns(unix_ns: u64) -> (Civil, u32) {
    let seconds = i64::try_from(unix_ns / 1_000_000_000).unwrap_or(0);
    (civil(seconds), u32::try_from(unix_ns % 1_000_000_000).unwrap_or(0))
}

/// Returns RFC 3339 with microseconds, as all three venues print it.
#[must_use]
pub fn rfc3339_us(unix_ns: u64) -> String {
    let (c, ns) = split_ns(unix_ns);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        c.year,
        c.month,
        c.day,
        c.hour,
        c.minute,
        c.second,
        ns / 1_000
    )
}

/// Returns RFC 3339 with nanoseconds and without trailing zeros: Coinbase's frame `timestamp`.
#[must_use]
pub fn rfc3339_ns(unix_ns: u64) -> String {
    let (c, ns) = split_ns(unix_ns);
    let mut out = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}",
        c.year, c.month, c.day, c.hour, c.minute, c.second, ns
    );
    let kept = out.trim_end_matches('0').trim_end_matches('.').len();
    out.truncate(kept);
    out.push('Z');
    out
}

/// Returns RFC 3339 with whole seconds.
#[must_use]
pub fn rfc3339_s(unix_ns: u64) -> String {
    let (c, _) = split_ns(unix_ns);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// Reads RFC 3339 with `Z` or a numeric offset, up to nanoseconds.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let numbers = |text: &str, by: char| -> Option<Vec<i64>> {
        text.split(by).map(|n| n.parse().ok()).collect()
    };
    let (whole, part) = clock.split_once('.').unwrap_or((clock, "0"));
    let (date, whole) = (numbers(date, '-')?, numbers(whole, ':')?);
    let (&[year, month, day], &[hour, minute, second]) = (&date[..], &whole[..]) else {
        return None;
    };
    if part.len() > 9 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ns: i64 = format!("{part:0<9}").parse().ok()?;
    let offset_s = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let parts = numbers(&zone[1..], ':')?;
            let &[hours, minutes] = &parts[..] else { return None };
            sign * (hours * 3_600 + minutes * 60)
        }
    };
    // Howard Hinnant's `days_from_civil`.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset_s;
    u64::try_from(seconds.checked_mul(1_000_000_000)?.checked_add(ns)?).ok()
}

/// Returns a Go `time.Time` print with its monotonic reading: Coinbase's heartbeat `current_time`.
#[must_use]
pub fn go_time(unix_ns: u64, uptime_ns: u64) -> String {
    let (c, ns) = split_ns(unix_ns);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} +0000 UTC m=+{}.{:09}",
        c.year,
        c.month,
        c.day,
        c.hour,
        c.minute,
        c.second,
        ns,
        uptime_ns / 1_000_000_000,
        uptime_ns % 1_000_000_000
    )
}

/// Returns RFC 1123 with a two-digit year: Kraken's `Time`.
#[must_use]
pub fn rfc1123_short(unix_ns: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (c, _) = split_ns(unix_ns);
    let day = usize::try_from(c.weekday).ok().and_then(|d| DAYS.get(d)).unwrap_or(&"Sun");
    let month = usize::try_from(c.month - 1).ok().and_then(|m| MONTHS.get(m)).unwrap_or(&"Jan");
    format!(
        "{day}, {:02} {month} {:02} {:02}:{:02}:{:02} +0000",
        c.day,
        c.year % 100,
        c.hour,
        c.minute,
        c.second
    )
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_text_round_trips_exactly() {
        let tick = Grid::parse_step("0.01").unwrap();
        assert_eq!(tick, Grid { mantissa: 1, decimals: 2 });
        assert_eq!(tick.fixed(6_500_001, 8), "65000.01000000");
        assert_eq!(tick.trimmed(6_500_000), "65000");
        assert_eq!(tick.trimmed(0), "0");
        assert_eq!(tick.parse("65000.010"), Some(6_500_001));
        assert_eq!(tick.parse("65000.011"), None, "off the grid");
        for bad in ["", ".5", "-1", "1e3", "NaN", "1..2", "1234567890123456789012"] {
            assert_eq!(tick.parse(bad), None, "{bad}");
        }
        let half = Grid::parse_step("0.5").unwrap();
        assert_eq!(half.fixed(3, 1), "1.5");
        assert_eq!(half.parse("1.25"), None);
        assert_eq!(Grid::parse_step("10").unwrap().trimmed(7), "70");
        assert_eq!(Grid::parse_step("0"), None);
        assert_eq!(Grid::parse_step("0.00000001").unwrap().exponent_text(), "1e-08");
        assert_eq!(Grid::parse_step("0.1").unwrap().exponent_text(), "0.1");
    }

    #[test]
    fn times_print_as_the_venues_do() {
        let ns = 1_762_820_224_000_000_000 + 123_456_000;
        assert_eq!(rfc3339_us(ns), "2025-11-11T00:17:04.123456Z");
        assert_eq!(parse_rfc3339("2025-11-11T00:17:04.123456Z"), Some(ns));
        assert_eq!(parse_rfc3339("2025-11-11T02:17:04.123456+02:00"), Some(ns));
        assert_eq!(parse_rfc3339("2025-11-11T00:17:04"), None);
        assert_eq!(rfc3339_ns(ns + 700), "2025-11-11T00:17:04.1234567Z");
        assert_eq!(rfc1123_short(ns), "Tue, 11 Nov 25 00:17:04 +0000");
        assert_eq!(
            go_time(ns, 1_500_000_000),
            "2025-11-11 00:17:04.123456000 +0000 UTC m=+1.500000000"
        );
    }
}
