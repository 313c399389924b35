//! What becomes of fills that were told: a venue takes one back, or corrects it (OE-20).
//!
//! Coinbase says so in its list of fills. Binance and Kraken say nothing anywhere: there a fill that was
//! told and is old enough to be listed is gone from the list of trades, or stands there with other numbers.
//!
//! Invariants:
//! - What a venue says itself counts at once, and once. What only a list shows counts when two whole lists
//!   in a row show the same: every page of them there, every row of them read.
//! - A list proves nothing about a fill that is too young for it, or older than its beginning; and a list
//!   that lacks more than a venue takes back at once is believed in nothing: the venue is halted and
//!   nothing is told.
//! - The engine is told by the trade id that the fill was told with. Whether it knows that fill is for it to
//!   find: what this process does not know, an earlier one may have told.
//!
//! Not here: what is booked (`tandem-core`), how lists are read (`binance`, `coinbase`, `kraken`).

use std::collections::{HashMap, HashSet};

use tandem_core::level::{Cause, Level, Scope};
use tandem_core::order::{FillTerms, Report};

use crate::desk::{Desk, Fill};
use crate::mute::muted;
use crate::orders::{End, Told, same};

/// A list's beginning is told in whole seconds by some: what is nearer to it proves nothing.
const EDGE_NS: i64 = 2_000_000_000;
/// Orders whose fills may be gone at once and the list still be believed: both legs of two rounds.
const ORDERS_MAX: usize = 4;
/// Trades of one list, and words that were heard, at most.
const ROOM: usize = 65_536;

/// What a row of a list says of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// It was made.
    Fill,
    /// It was taken back.
    Reversal,
    /// It is this, and not what was told.
    Correction,
}

/// The list that is being read, and what was heard before.
#[derive(Debug, Default)]
pub struct Busts {
    is_reading: bool,
    is_whole: bool,
    since_ns: i64,
    began_ns: i64,
    /// By the venue's id of the order and the trade's name.
    listed: HashMap<(u128, u64), FillTerms>,
    /// Words of the list that is being read: taken at its end, because the fill may be on a later page.
    words: Vec<(u128, usize, Fill)>,
    /// Words of the venue that were taken: name, word, price, quantity.
    heard: HashSet<(u64, Word, i64, i64)>,
    /// When the next list is wanted at the latest; 0 where the next turn will do.
    wanted_ns: i64,
}

impl Busts {
    /// Notes a row of a list.
    pub(crate) fn list(&mut self, venue_id: u128, fill: &Fill) {
        if !self.is_reading || fill.word != Word::Fill {
            return;
        }
        self.is_whole &= self.listed.len() < ROOM;
        if self.is_whole {
            self.listed.insert((venue_id, fill.name()), fill.terms());
        }
    }

    /// Keeps a word on a fill until the list has ended; returns whether it did.
    pub(crate) fn keep(&mut self, venue_id: u128, position: usize, fill: Fill) -> bool {
        let keeps = self.is_reading && fill.word != Word::Fill && self.words.len() < ROOM;
        if keeps {
            self.words.push((venue_id, position, fill));
        }
        keeps
    }

    /// The list under way will not be read to its end; the next one has its words too.
    pub(crate) fn abandon(&mut self) {
        self.is_reading = false;
        self.words.clear();
    }

    /// Returns whether a list of trades is wanted out of turn.
    #[must_use]
    pub const fn is_wanted(&self, now_ns: i64) -> bool {
        self.wanted_ns != 0 && self.wanted_ns <= now_ns
    }

    /// A list that is wanted could not be asked for: not before this time.
    pub const fn put_off(&mut self, until_ns: i64) {
        if self.wanted_ns != 0 && self.wanted_ns < until_ns {
            self.wanted_ns = until_ns;
        }
    }

    const fn want(&mut self, at_ns: i64) {
        if self.wanted_ns == 0 || at_ns < self.wanted_ns {
            self.wanted_ns = at_ns;
        }
    }
}

impl Desk {
    /// Begins to read the list of trades since a time.
    pub fn read_begin(&mut self, since_ns: i64, now_ns: i64) {
        let busts = &mut self.busts;
        (busts.is_reading, busts.is_whole) = (true, true);
        (busts.since_ns, busts.began_ns) = (since_ns, now_ns);
        busts.wanted_ns = 0;
        busts.listed.clear();
        busts.words.clear();
    }

    /// The list that is being read is not all there is.
    pub fn read_is_partial(&mut self) {
        self.busts.is_whole = false;
    }

    /// The venue says how many rows the list has, 0 where it does not; these were read.
    pub fn read_is_of(&mut self, all: u64, read: u64) {
        self.busts.is_whole &= all <= read;
    }

    /// A row of a list of trades could not be read: the list proves nothing.
    pub fn unreadable_trade(&mut self) {
        self.stats.malformed += 1;
        self.busts.is_whole = false;
    }

    /// A balance moved and no fill says why: trades are looked at soon.
    pub fn suspect(&mut self, now_ns: i64) {
        let after_ns = self.busts.began_ns + self.config.bust_confirm_ns;
        self.busts.want(now_ns.max(after_ns));
    }

    /// The venue says itself that a fill of this order is taken back, or is something else.
    pub(crate) fn said(&mut self, slot: usize, word: &Fill) {
        let again = muted("BUST_REPEAT");
        let (name, terms) = (word.name(), word.terms());
        if !self.hear((name, word.word, terms.px.0, terms.qty.0)) && !again {
            self.stats.duplicates += 1;
            return;
        }
        let instead = (word.word == Word::Correction).then_some(terms);
        if self.is_missing(slot, word) {
            // It was taken back before anybody told it, and the venue's total has it: told first, or the order
            // waits for it for ever and what it left naked with it.
            self.fill(slot, Fill { word: Word::Fill, ..*word });
        }
        let fills = &mut self.orders.get_mut(slot).fills;
        let by_alias = |told: &&mut Told| word.alias != 0 && told.alias == word.alias;
        let known = match fills.iter().position(|told| told.trade_id == name) {
            Some(at) => fills.get_mut(at),
            None => fills.iter_mut().find(by_alias),
        };
        let Some(told) = known else {
            // Not told by this process: the engine knows whether it was by an earlier one.
            fills.push(Told {
                trade_id: name,
                alias: word.alias,
                first: terms,
                now: instead,
                at_ns: word.at_ns,
                told_ns: 0,
                is_said: true,
                doubt: None,
            });
            self.tell(slot, Report::Bust { trade_id: name, instead });
            return;
        };
        if instead.is_none() && !told.is(terms) {
            // A part of it, or something else: what is left of the fill is not said.
            return self.halt();
        }
        told.is_said = true;
        if is_same(told.now, instead) && !again {
            return;
        }
        told.now = instead;
        let trade_id = told.trade_id;
        self.halt();
        self.tell(slot, Report::Bust { trade_id, instead });
    }

    /// Whether a fill that is taken back was never told, and the order's total says that it was made.
    fn is_missing(&self, slot: usize, word: &Fill) -> bool {
        let entry = self.orders.get(slot);
        let done = if let Some(End::Done(_, qty)) = entry.end { qty.0 } else { 0 };
        let missing = entry.totals.0.max(done) - entry.filled;
        let is_known = entry.fills.iter().any(|told| {
            told.trade_id == word.name() || word.alias != 0 && told.alias == word.alias
        });
        word.word == Word::Reversal && !is_known && word.qty.0 <= missing
    }

    /// A fill was taken back that cannot be read, or that is of no order of ours: the account is not what
    /// we think, and nothing can be told of it.
    pub(crate) fn strange_bust(&mut self, name: u64) {
        if self.hear((name, Word::Reversal, 0, 0)) {
            self.halt();
        }
    }

    /// Returns whether this was not heard before.
    fn hear(&mut self, word: (u64, Word, i64, i64)) -> bool {
        if ROOM <= self.busts.heard.len() {
            return !self.busts.heard.contains(&word);
        }
        self.busts.heard.insert(word)
    }

    fn halt(&mut self) {
        self.raises.push((Scope::Venue(self.venue), Level::Halt, Cause::Bust));
    }

    /// The list has ended; `well` where every page of it came.
    pub(crate) fn read_ended(&mut self, well: bool) {
        let is_whole = std::mem::take(&mut self.busts.is_reading) && self.busts.is_whole && well;
        // Also where not all of it came: what the venue says itself counts.
        let mut words = std::mem::take(&mut self.busts.words);
        // What is said last of a fill counts, and the newest page comes first.
        words.sort_by_key(|(.., fill)| fill.at_ns);
        for (venue_id, position, fill) in words {
            self.trade(venue_id, position, fill);
        }
        if !is_whole || muted("BUST_ABSENT") {
            return;
        }
        let mut confirmed: Vec<(usize, usize, Option<FillTerms>)> = Vec::new();
        let mut orders = 0;
        for slot in self.orders.slots() {
            let before = confirmed.len();
            for at in 0..self.orders.get(slot).fills.len() {
                if let Some(listed) = self.compare(slot, at) {
                    confirmed.push((slot, at, listed));
                }
            }
            orders += usize::from(before < confirmed.len());
        }
        if ORDERS_MAX < orders {
            tracing::error!(venue = self.venue.name(), orders, "the list of trades lacks too many");
            return self.halt();
        }
        for (slot, at, listed) in confirmed {
            let told = &mut self.orders.get_mut(slot).fills[at];
            (told.now, told.doubt) = (listed, None);
            let trade_id = told.trade_id;
            tracing::error!(venue = self.venue.name(), trade_id, "a fill is not what it was");
            self.halt();
            self.tell(slot, Report::Bust { trade_id, instead: listed });
        }
    }

    /// Compares a fill with the list; returns what it is now where two lists in a row say so.
    fn compare(&mut self, slot: usize, at: usize) -> Option<Option<FillTerms>> {
        let (age_ns, confirm_ns) = (self.config.bust_age_ns, self.config.bust_confirm_ns);
        let busts = &mut self.busts;
        let entry = self.orders.get_mut(slot);
        let venue_id = entry.venue_id;
        let told = &mut entry.fills[at];
        let is_within = venue_id != 0 && busts.since_ns + EDGE_NS <= told.at_ns;
        if told.is_said || !is_within {
            return None;
        }
        let listed = busts.listed.get(&(venue_id, told.trade_id)).copied();
        if is_same(listed, told.now) {
            told.doubt = None;
            return None;
        }
        let proves_ns = told.at_ns.max(told.told_ns) + age_ns;
        if busts.began_ns < proves_ns {
            busts.want(proves_ns.max(busts.began_ns + confirm_ns));
            return None;
        }
        if told.doubt.is_some_and(|doubt| is_same(doubt, listed)) || muted("BUST_TWICE") {
            return Some(listed);
        }
        told.doubt = Some(listed);
        busts.want(busts.began_ns + confirm_ns);
        None
    }
}

/// Returns whether both are nothing, or move the same.
fn is_same(one: Option<FillTerms>, other: Option<FillTerms>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => same(one, other),
        _ => false,
    }
}
