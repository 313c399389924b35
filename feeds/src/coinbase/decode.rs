//! Coinbase's JSON as values.
//!
//! Invariant: total, and in two steps. [`envelope`] reads what surrounds a frame, so that its sequence
//! number is judged before any event is looked at; [`Envelope::events`] then reads all of them, exactly
//! or not at all. Members come in any order; unknown channels and members pass.
//!
//! Quirks that are handled here and nowhere else: sides are `bid` and `offer`, and anything else is an
//! error, loudly (cryptofeed looks for `ask` and gets an empty side); the channel that is subscribed as
//! `level2` arrives as `l2_data`; the heartbeat's counter is a number or a string.
//!
//! Not here: whether a frame is the next one (`sync`).

use tandem_core::units::Side;

use crate::error::{DecodeError, Fault};
use crate::json::{Scanner, Type};
use crate::publish::Update;
use crate::scratch::Scale;
use crate::stamp;
use crate::symbols::Symbols;

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Books.
    Level2,
    /// Once a second.
    Heartbeats,
    /// What the connection is subscribed to, all of it.
    Subscriptions,
    /// An error, without envelope.
    Error,
    /// Something we have no use for.
    Other,
}

/// A frame up to its events.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// Kind.
    pub channel: Channel,
    /// `sequence_num`; error frames have none.
    pub sequence: Option<u64>,
    /// Venue's time, UNIX ns; 0 where none.
    pub time_ns: i64,
    events: Option<Scanner<'a>>,
    /// Whether the frame's members behind the events are still unread.
    open: bool,
}

/// One event of a book frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub slot: usize,
    /// The whole book, or changes.
    pub snapshot: bool,
    start: usize,
    end: usize,
}

/// What the events of one frame said.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Book events, in order.
    pub parts: Vec<Part>,
    /// Books whose event could not be read though the frame could, and why.
    pub faulty: Vec<(usize, DecodeError)>,
    levels: Vec<Update>,
    /// Slots of products that a `subscriptions` frame names under `level2`.
    pub subscribed: Vec<usize>,
    /// A heartbeat's counter.
    pub heartbeat: Option<u64>,
}

impl Events {
    /// Returns the levels of an event.
    #[must_use]
    pub fn levels(&self, part: &Part) -> &[Update] {
        &self.levels[part.start..part.end]
    }

    /// Returns the levels of an event, to be put in order.
    pub fn levels_mut(&mut self, part: &Part) -> &mut [Update] {
        &mut self.levels[part.start..part.end]
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.faulty.clear();
        self.levels.clear();
        self.subscribed.clear();
        self.heartbeat = None;
    }
}

/// Reads a frame up to its events, or whole where the sequence number comes behind them.
pub fn envelope(payload: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let mut scanner = Scanner::new(payload)?;
    let mut found =
        Envelope { channel: Channel::Other, sequence: None, time_ns: 0, events: None, open: false };
    let mut has_channel = false;
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            b"channel" => {
                has_channel = true;
                found.channel = match &*scanner.text()? {
                    b"l2_data" => Channel::Level2,
                    b"heartbeats" => Channel::Heartbeats,
                    b"subscriptions" => Channel::Subscriptions,
                    _ => Channel::Other,
                };
            }
            b"sequence_num" => found.sequence = Some(scanner.u64()?),
            b"timestamp" => found.time_ns = stamp::unix_ns(&scanner.text()?).unwrap_or(0),
            b"type" if scanner.peek()? == Type::String => {
                if &*scanner.text()? == b"error" {
                    found.channel = Channel::Error;
                }
            }
            b"events" if has_channel && found.sequence.is_some() => {
                found.events = Some(scanner);
                found.open = true;
                return Ok(found);
            }
            b"events" => {
                found.events = Some(scanner.clone());
                scanner.skip()?;
            }
            _ => drop(scanner.skip()?),
        }
    }
    scanner.finish()?;
    Ok(found)
}

impl Envelope<'_> {
    /// Reads the events into `out`.
    pub fn events(
        self,
        symbols: &Symbols,
        scales: &[Scale],
        out: &mut Events,
    ) -> Result<(), Fault> {
        out.clear();
        let Some(mut scanner) = self.events else { return Ok(()) };
        scanner.array()?;
        while scanner.element()? {
            match self.channel {
                Channel::Level2 => book_event_or_fault(&mut scanner, symbols, scales, out)?,
                Channel::Heartbeats => heartbeat(&mut scanner, out)?,
                Channel::Subscriptions => subscriptions(&mut scanner, symbols, out)?,
                Channel::Error | Channel::Other => drop(scanner.skip()?),
            }
        }
        if !self.open {
            return Ok(());
        }
        while let Some(key) = scanner.key()? {
            // The frame was judged by what stood before its events; a second opinion is no frame.
            if matches!(&*key, b"channel" | b"sequence_num" | b"events") {
                return Err(DecodeError::Value("a member twice").into());
            }
            scanner.skip()?;
        }
        Ok(scanner.finish()?)
    }
}

/// One book event; where it says nonsense of a known product, the others of the frame still count.
fn book_event_or_fault(
    scanner: &mut Scanner<'_>,
    symbols: &Symbols,
    scales: &[Scale],
    out: &mut Events,
) -> Result<(), Fault> {
    let start = scanner.clone();
    let (parts, levels) = (out.parts.len(), out.levels.len());
    let Err(fault) = book_event(scanner, symbols, scales, out) else { return Ok(()) };
    let Some(slot) = fault.slot else { return Err(fault) };
    // Only what is whole as JSON is one product's fault alone.
    *scanner = start;
    scanner.skip()?;
    out.parts.truncate(parts);
    out.levels.truncate(levels);
    out.faulty.push((slot, fault.error));
    Ok(())
}

fn book_event(
    scanner: &mut Scanner<'_>,
    symbols: &Symbols,
    scales: &[Scale],
    out: &mut Events,
) -> Result<(), Fault> {
    let start = out.levels.len();
    let mut slot: Option<Option<usize>> = None;
    let mut snapshot = None;
    let mut updates = None;
    let mut read = false;
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            b"type" => {
                snapshot = match &*scanner.text()? {
                    b"snapshot" => Some(true),
                    b"update" => Some(false),
                    _ => {
                        return Err(Fault {
                            error: DecodeError::Value("type"),
                            slot: slot.flatten(),
                        });
                    }
                };
            }
            b"product_id" => {
                let found = symbols.find(&scanner.text()?);
                if slot.is_some_and(|known| known != found) {
                    return Err(DecodeError::Value("product_id").into());
                }
                slot = Some(found);
            }
            b"updates" => {
                read = true;
                out.levels.truncate(start);
                match slot {
                    Some(Some(slot)) => {
                        updates = None;
                        read_updates(scanner, scales[slot], &mut out.levels)
                            .map_err(|error| Fault { error, slot: Some(slot) })?;
                    }
                    _ => {
                        updates = Some(scanner.clone());
                        scanner.skip()?;
                    }
                }
            }
            _ => drop(scanner.skip()?),
        }
    }
    let Some(slot) = slot.ok_or(DecodeError::Missing("product_id"))? else { return Ok(()) };
    let fault = |error| Fault { error, slot: Some(slot) };
    if !read {
        return Err(fault(DecodeError::Missing("updates")));
    }
    let snapshot = snapshot.ok_or(fault(DecodeError::Missing("type")))?;
    if let Some(mut scanner) = updates {
        read_updates(&mut scanner, scales[slot], &mut out.levels).map_err(fault)?;
    }
    out.parts.push(Part { slot, snapshot, start, end: out.levels.len() });
    Ok(())
}

fn read_updates(
    scanner: &mut Scanner<'_>,
    scale: Scale,
    out: &mut Vec<Update>,
) -> Result<(), DecodeError> {
    scanner.array()?;
    while scanner.element()? {
        let (mut side, mut px, mut qty) = (None, None, None);
        scanner.object()?;
        while let Some(key) = scanner.key()? {
            match &*key {
                b"side" => {
                    side = match &*scanner.text()? {
                        b"bid" => Some(Side::Bid),
                        b"offer" => Some(Side::Ask),
                        _ => return Err(DecodeError::Value("side")),
                    };
                }
                b"price_level" => px = Some(scanner.decimal()?),
                b"new_quantity" => qty = Some(scanner.decimal()?),
                _ => drop(scanner.skip()?),
            }
        }
        out.push(scale.update(
            side.ok_or(DecodeError::Missing("side"))?,
            px.ok_or(DecodeError::Missing("price_level"))?,
            qty.ok_or(DecodeError::Missing("new_quantity"))?,
        )?);
    }
    Ok(())
}

fn heartbeat(scanner: &mut Scanner<'_>, out: &mut Events) -> Result<(), Fault> {
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            b"heartbeat_counter" => out.heartbeat = Some(scanner.u64_or_text()?),
            _ => drop(scanner.skip()?),
        }
    }
    Ok(())
}

fn subscriptions(
    scanner: &mut Scanner<'_>,
    symbols: &Symbols,
    out: &mut Events,
) -> Result<(), Fault> {
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        if &*key != b"subscriptions" {
            scanner.skip()?;
            continue;
        }
        scanner.object()?;
        while let Some(channel) = scanner.key()? {
            if !matches!(&*channel, b"level2" | b"l2_data") || scanner.peek()? != Type::Array {
                scanner.skip()?;
                continue;
            }
            scanner.array()?;
            while scanner.element()? {
                if scanner.peek()? != Type::String {
                    scanner.skip()?;
                } else if let Some(slot) = symbols.find(&scanner.text()?) {
                    out.subscribed.push(slot);
                }
            }
        }
    }
    Ok(())
}

/// Reads a REST book (`product_book`) into `levels`, bids and asks.
pub fn decode_book(
    body: &[u8],
    scale: Scale,
    levels: &mut [Vec<Update>; 2],
) -> Result<(), DecodeError> {
    let mut scanner = Scanner::new(body)?;
    let mut seen = [false; 2];
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        if &*key != b"pricebook" {
            scanner.skip()?;
            continue;
        }
        scanner.object()?;
        while let Some(key) = scanner.key()? {
            let side = match &*key {
                b"bids" => Side::Bid,
                b"asks" => Side::Ask,
                _ => {
                    scanner.skip()?;
                    continue;
                }
            };
            let out = &mut levels[side.idx()];
            out.clear();
            seen[side.idx()] = true;
            scanner.array()?;
            while scanner.element()? {
                let (mut px, mut qty) = (None, None);
                scanner.object()?;
                while let Some(key) = scanner.key()? {
                    match &*key {
                        b"price" => px = Some(scanner.decimal()?),
                        b"size" => qty = Some(scanner.decimal()?),
                        _ => drop(scanner.skip()?),
                    }
                }
                let px = px.ok_or(DecodeError::Missing("price"))?;
                out.push(scale.update(side, px, qty.ok_or(DecodeError::Missing("size"))?)?);
            }
        }
    }
    scanner.finish()?;
    if seen == [true, true] { Ok(()) } else { Err(DecodeError::Missing("pricebook")) }
}

#[cfg(test)]
mod tests {
    use tandem_core::units::{Px, Qty};

    use super::*;

    fn read(text: &str) -> Result<(Channel, Option<u64>, Events), Fault> {
        let symbols = Symbols::new(["BTC-USD", "ETH-USD"].into_iter());
        let found = envelope(text.as_bytes())?;
        let (channel, sequence) = (found.channel, found.sequence);
        let mut events = Events::default();
        found.events(&symbols, &[Scale { px: 2, qty: 8 }; 2], &mut events)?;
        Ok((channel, sequence, events))
    }

    const FRAME: &str = r#"{"channel":"l2_data","client_id":"","timestamp":"2026-04-07T14:30:01.456789Z","sequence_num":1,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"1970-01-01T00:00:00Z","price_level":"68900.00","new_quantity":"2.00000000"},{"side":"offer","event_time":"1970-01-01T00:00:00Z","price_level":"68900.01","new_quantity":"0.5"}]}]}"#;

    #[test]
    fn coinbase_trap_offer_not_ask() {
        let (channel, sequence, events) = read(FRAME).unwrap();
        assert_eq!((channel, sequence), (Channel::Level2, Some(1)));
        let part = events.parts[0];
        assert!(part.snapshot && part.slot == 0);
        assert_eq!(
            events.levels(&part),
            [
                Update { side: Side::Bid, px: Px(6_890_000), qty: Qty(200_000_000) },
                Update { side: Side::Ask, px: Px(6_890_001), qty: Qty(50_000_000) },
            ]
        );
        for side in ["ask", "buy", "sell", "Offer", "", "bids"] {
            let events = read(&FRAME.replace("offer", side)).unwrap().2;
            assert_eq!(
                (events.faulty, events.parts),
                (vec![(0, DecodeError::Value("side"))], vec![])
            );
        }
    }

    #[test]
    fn coinbase_trap_channel_name_changes_from_level2_to_l2_data() {
        assert_eq!(read(&FRAME.replace("l2_data", "level2")).unwrap().0, Channel::Other);
    }

    #[test]
    fn any_order_of_members_is_the_same() {
        let turned = r#"{"events":[{"updates":[{"new_quantity":"2","price_level":"68900","side":"bid","x":[{}]},{"new_quantity":"0.5","price_level":"68900.01","side":"offer"}],"product_id":"BTC-USD","type":"snapshot","y":null}],"sequence_num":1,"channel":"l2_data"}"#;
        let (a, b) = (read(FRAME).unwrap(), read(turned).unwrap());
        assert_eq!((a.0, a.1), (b.0, b.1));
        assert_eq!(a.2.levels(&a.2.parts[0]), b.2.levels(&b.2.parts[0]));
    }

    #[test]
    fn several_events_and_foreign_products() {
        let text = r#"{"channel":"l2_data","sequence_num":2,"events":[{"type":"update","product_id":"ETH-USD","updates":[{"side":"bid","price_level":"1","new_quantity":"0"}]},{"type":"update","product_id":"XRP-USD","updates":[{"side":"?"}]},{"type":"update","product_id":"BTC-USD","updates":[]}]}"#;
        let (_, _, events) = read(text).unwrap();
        let slots: Vec<_> = events.parts.iter().map(|p| (p.slot, events.levels(p).len())).collect();
        assert_eq!(slots, [(1, 1), (0, 0)]);
    }

    /// A frame of two products, one of them nonsense: the other counts. Cut short, nobody does.
    #[test]
    fn a_faulty_event_costs_its_product_alone_and_a_cut_frame_all() {
        let good = r#"{"type":"update","product_id":"ETH-USD","updates":[{"side":"bid","price_level":"1","new_quantity":"2"}]}"#;
        let bad = r#"{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","price_level":"1","new_quantity":"2"},{"side":"?","price_level":"x"}]}"#;
        let text = format!(r#"{{"channel":"l2_data","sequence_num":2,"events":[{bad},{good}]}}"#);
        let events = read(&text).unwrap().2;
        assert_eq!(events.faulty, [(0, DecodeError::Value("side"))]);
        assert_eq!(events.parts.len(), 1);
        assert_eq!(events.levels(&events.parts[0]).len(), 1);
        for cut in 1..text.len() {
            assert!(read(&text[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn coinbase_trap_heartbeat_counter_is_number_or_string() {
        for counter in ["42", "\"42\""] {
            let text = format!(
                r#"{{"channel":"heartbeats","client_id":"","timestamp":"2026-04-07T14:30:10Z","sequence_num":17,"events":[{{"current_time":"2026-04-07 14:30:10.000000000 +0000 UTC m=+91717.5","heartbeat_counter":{counter}}}]}}"#
            );
            let (channel, sequence, events) = read(&text).unwrap();
            assert_eq!(
                (channel, sequence, events.heartbeat),
                (Channel::Heartbeats, Some(17), Some(42))
            );
        }
    }

    #[test]
    fn coinbase_trap_unknown_channels_and_errors_pass() {
        let (channel, ..) = read(r#"{"type":"error","message":"authentication failure"}"#).unwrap();
        assert_eq!(channel, Channel::Error);
        let (channel, sequence, _) =
            read(r#"{"channel":"new_thing","sequence_num":3,"events":[{"a":[1]}],"z":1}"#).unwrap();
        assert_eq!((channel, sequence), (Channel::Other, Some(3)));
        let text = r#"{"channel":"subscriptions","sequence_num":0,"events":[{"subscriptions":{"level2":["BTC-USD","Q"],"heartbeats":["heartbeats"]}}]}"#;
        assert_eq!(read(text).unwrap().2.subscribed, [0]);
    }

    /// MD-09.
    #[test]
    fn hostile_frames_are_faults() {
        for px in ["NaN", "1e400", "-1", "", "0", "68900.001", "99999999999999999999", "\\u0031"] {
            let events = read(&FRAME.replace("68900.00\"", &format!("{px}\""))).expect(px).2;
            assert_eq!((events.faulty.len(), events.parts.len()), (1, 0), "{px}");
        }
        let shapes = [
            ("\"side\":\"bid\",", ""),
            ("\"price_level\":\"68900.00\",", ""),
            (",\"new_quantity\":\"0.5\"", ""),
            ("\"68900.00\"", "null"),
            ("\"snapshot\"", "\"other\""),
            ("\"snapshot\"", "7"),
            ("\"type\":\"snapshot\",", ""),
            ("\"product_id\":\"BTC-USD\",", ""),
            ("\"sequence_num\":1", "\"sequence_num\":-1"),
            ("\"sequence_num\":1", "\"sequence_num\":\"1\""),
            ("\"sequence_num\":1", "\"sequence_num\":1.5"),
            ("]}]}", "]}]}x"),
            ("]}]}", "]}"),
            ("]}]}", "]}],\"sequence_num\":9}"),
            ("[{\"type\"", "[1,{\"type\""),
            ("\"events\":[", "\"events\":{"),
        ];
        for (from, to) in shapes {
            assert!(FRAME.contains(from), "{from}");
            let refused = read(&FRAME.replace(from, to))
                .map_or(true, |(.., events)| !events.faulty.is_empty() && events.parts.is_empty());
            assert!(refused, "{from} {to}");
        }
    }

    #[test]
    fn rest_books() {
        let mut levels = Default::default();
        let scale = Scale { px: 2, qty: 8 };
        let body = br#"{"pricebook":{"product_id":"BTC-USD", "bids":[{"price":"68923", "size":"0.17"}],"asks":[],"time":"x"},"last":"1"}"#;
        assert_eq!(decode_book(body, scale, &mut levels), Ok(()));
        assert_eq!(
            levels[0],
            [Update { side: Side::Bid, px: Px(6_892_300), qty: Qty(17_000_000) }]
        );
        for body in [
            "<html>",
            "{}",
            r#"{"error":"x"}"#,
            r#"{"pricebook":{"bids":[]}}"#,
            r#"{"pricebook":{"bids":[{"price":"1"}],"asks":[]}}"#,
        ] {
            assert!(decode_book(body.as_bytes(), scale, &mut levels).is_err(), "{body}");
        }
    }
}
