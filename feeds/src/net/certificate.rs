//! When a certificate ends, read out of its DER.
//!
//! Invariant: total: any bytes give a time or nothing, in one pass, without allocation. Nothing here decides
//! whether a certificate is believed; that was done before.
//!
//! Not here: the judgement of certificates (`tls`, which leaves it to rustls), what is said of the time
//! (`tandem-drain`'s alerts).

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Takes one element off the front: its tag, its contents, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        // Four bytes of length are more than any certificate has.
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let (bytes, rest) = rest.split_at_checked(count)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// The contents of an element that must have a tag.
fn expect(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(der).and_then(|(tag, contents, rest)| (tag == wanted).then_some((contents, rest)))
}

/// Returns when a certificate ends, UNIX seconds (RFC 5280, section 4.1.2.5: the time is UTC, to the second).
#[must_use]
pub fn ends_s(der: &[u8]) -> Option<i64> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, not_after) = element(validity)?;
    let (tag, text, _) = element(not_after)?;
    let (year, text) = match tag {
        UTC_TIME => {
            let (year, text) = text.split_at_checked(2)?;
            let year = crate::stamp::number(year)?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, text)
        }
        GENERALIZED_TIME => {
            let (year, text) = text.split_at_checked(4)?;
            (crate::stamp::number(year)?, text)
        }
        _ => return None,
    };
    let [m1, m2, d1, d2, h1, h2, i1, i2, s1, s2, b'Z'] = text else { return None };
    let two = |a: &u8, b: &u8| crate::stamp::number(&[*a, *b]);
    let days = crate::stamp::days_from_civil(year, two(m1, m2)?, two(d1, d2)?);
    Some(days * 86_400 + two(h1, h2)? * 3_600 + two(i1, i2)? * 60 + two(s1, s2)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A certificate's beginning with this end of its validity.
    fn certificate(tag: u8, not_after: &[u8]) -> Vec<u8> {
        let of = |tag: u8, contents: &[u8]| {
            let mut out = vec![tag, 0x82, (contents.len() >> 8) as u8, contents.len() as u8];
            out.extend(contents);
            out
        };
        let not_before = of(UTC_TIME, b"250101000000Z");
        let validity = of(SEQUENCE, &[not_before, of(tag, not_after)].concat());
        let head = [of(VERSION, &[2, 1, 2]), of(2, &[7]), of(SEQUENCE, &[]), of(SEQUENCE, &[])];
        of(SEQUENCE, &of(SEQUENCE, &[head.concat(), validity].concat()))
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let cases: &[(u8, &[u8], Option<i64>)] = &[
            (UTC_TIME, b"260809023105Z", Some(1_786_242_665)),
            (UTC_TIME, b"700101000000Z", Some(0)),
            (GENERALIZED_TIME, b"20260809023105Z", Some(1_786_242_665)),
            (GENERALIZED_TIME, b"20260809023105+0100", None),
            (UTC_TIME, b"2608090231Z", None),
            (UTC_TIME, b"26080x023105Z", None),
            (2, b"260809023105Z", None),
        ];
        for (tag, text, expected) in cases {
            assert_eq!(ends_s(&certificate(*tag, text)), *expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ends_s(&bytes);
        }

        #[test]
        fn a_damaged_one_is_survived(at in 0usize..80, byte in any::<u8>(), cut in 0usize..90) {
            let mut der = certificate(UTC_TIME, b"260809023105Z");
            if let Some(found) = der.get_mut(at) {
                *found = byte;
            }
            der.truncate(cut);
            let _ = ends_s(&der);
        }
    }
}
