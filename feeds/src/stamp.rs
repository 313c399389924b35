//! RFC 3339 times as UNIX nanoseconds.
//!
//! Invariant: total; what is not exactly `YYYY-MM-DDThh:mm:ss[.f…]Z` (or `±hh:mm`) gives nothing. A time
//! is never needed to apply a message, so nothing here is an error.

/// Reads an RFC 3339 time with 0 to 9 (or more, cut) fractional digits.
#[must_use]
pub fn unix_ns(text: &[u8]) -> Option<i64> {
    let fixed = text.get(..19)?;
    if [fixed[4], fixed[7], fixed[10], fixed[13], fixed[16]] != *b"--T::" {
        return None;
    }
    let year = number(&fixed[..4])?;
    let (month, day) = (number(&fixed[5..7])?, number(&fixed[8..10])?);
    let (hour, minute, second) =
        (number(&fixed[11..13])?, number(&fixed[14..16])?, number(&fixed[17..19])?);
    let known = (1..=12).contains(&month) && (1..=31).contains(&day);
    // The year range keeps nanoseconds within i64; 60 is a leap second.
    if !known || !(1970..=2200).contains(&year) || 23 < hour || 59 < minute || 60 < second {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0;
    if let [b'.', digits @ ..] = rest {
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return None;
        }
        let kept = count.min(9);
        nanos = number(&digits[..kept])? * 10i64.pow(9 - kept as u32);
        rest = &digits[count..];
    }
    let offset_s = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let seconds = number(&[*h1, *h2])? * 3600 + number(&[*m1, *m2])? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    Some((days * 86_400 + hour * 3600 + minute * 60 + second - offset_s) * 1_000_000_000 + nanos)
}

/// Reads digits as a number; nothing where one is none.
pub(crate) fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// Days since 1970-01-01 of a Gregorian date (Howard Hinnant's public-domain algorithm).
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_as_venues_write_them() {
        let cases: &[(&str, Option<i64>)] = &[
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-08-09T02:31:05.776685Z", Some(1_786_242_665_776_685_000)),
            ("2026-08-09T20:14:22.396429853Z", Some(1_786_306_462_396_429_853)),
            ("2024-02-29T23:59:60Z", Some(1_709_251_200_000_000_000)),
            ("2026-08-09T02:31:05.1Z", Some(1_786_242_665_100_000_000)),
            ("2026-08-09T04:31:05+02:00", Some(1_786_242_665_000_000_000)),
            ("2026-08-09T02:31:05.1234567891Z", Some(1_786_242_665_123_456_789)),
            ("2026-04-07 14:30:10.0 +0000 UTC m=+9.5", None),
            ("2026-13-09T02:31:05Z", None),
            ("2026-08-09T02:31:05", None),
            ("2026-08-09T02:31:05.Z", None),
            ("9999-08-09T02:31:05Z", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(unix_ns(text.as_bytes()), *expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = unix_ns(&bytes);
        }

        #[test]
        fn any_damage_gives_an_answer(at in 0..30usize, byte in any::<u8>()) {
            let mut text = b"2026-08-09T20:14:22.396429853Z".to_vec();
            text[at] = byte;
            let _ = unix_ns(&text);
        }
    }
}
