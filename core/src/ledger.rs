//! Our own books: what every venue owes us, by double entry, and what we gained.
//!
//! Invariant: [`Ledger::post`] is the only way a balance changes. Each posting has an account that it
//! comes from ([`Tag`]), so that for each venue and asset the balance is the sum of its accounts:
//! [`Ledger::check`] asserts it at any time. Sums are `i128`. A fill is booked at the venue's own price,
//! quantity and fee, the fee in its own asset; what the venue says of balances is compared
//! ([`Ledger::audit`]) and never booked.
//!
//! Gains are counted on trading flows alone, marked with the worse side: what inventory gains or loses
//! while nobody trades is no result of ours. The day begins at 00:00 UTC.
//!
//! Not here: what is reserved for orders (`orders`), limits (`controls`).

use alloc::vec;
use alloc::vec::Vec;

use crate::instrument::AssetId;
use crate::order::OrderKey;
use crate::record::{Kind, Record, Venue, flag};
use crate::units::Amount;

const DAY_NS: i64 = 86_400_000_000_000;
/// Samples of the last five minutes.
const SAMPLES: usize = 31;
const SAMPLE_NS: i64 = 10_000_000_000;

/// The account that a posting comes from. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tag {
    /// What was there when the ledger began.
    Opening = 1,
    /// Fills, without fees.
    Trade = 2,
    /// Fees.
    Fee = 3,
    /// Deposits, withdrawals, corrections: an operator's word.
    External = 4,
    /// Carried over from an earlier run.
    Carried = 5,
    /// What rounds left over that is too little to trade: moves no venue's balance (venue 0).
    Dust = 6,
    /// Fills that a venue took back, base, quote and fee: what `Trade` and `Fee` were told stays there.
    Bust = 7,
}

impl Tag {
    /// Every tag, in the order of its number.
    pub const ALL: [Tag; 7] =
        [Tag::Opening, Tag::Trade, Tag::Fee, Tag::External, Tag::Carried, Tag::Dust, Tag::Bust];

    /// Returns the account's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Tag::Opening => "opening",
            Tag::Trade => "trade",
            Tag::Fee => "fee",
            Tag::External => "external",
            Tag::Carried => "carried",
            Tag::Dust => "dust",
            Tag::Bust => "bust",
        }
    }
}

/// A posting as told: `[delta, balance after, tag, order key]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Whose balance; nobody's for dust.
    pub venue: Option<Venue>,
    /// Of which asset.
    pub asset: AssetId,
    /// What was added.
    pub delta: Amount,
    /// What there is now.
    pub after: Amount,
    /// Where it came from.
    pub tag: Tag,
    /// Run of the order behind it; 0 where there is none.
    pub run: u32,
    /// The order behind it.
    pub key: OrderKey,
}

impl Posting {
    /// Returns the record; `cause` is what led to it.
    #[must_use]
    pub fn record(&self, cause: &Record) -> Record {
        let data = [self.delta.0, self.after.0, self.tag as i64, self.key.0];
        let venue = self.venue.map_or(0, |venue| venue as u8);
        Record {
            flags: flag::OUTPUT,
            asset: self.asset.0,
            run: self.run,
            engine_ts_ns: cause.engine_ts_ns,
            ring: cause.ring,
            ring_seq: cause.ring_seq,
            ..Record::new(Kind::Ledger, venue, u16::MAX, data)
        }
    }

    /// Reads the record; nothing where it is another kind or makes no sense.
    #[must_use]
    pub fn read(record: &Record) -> Option<Posting> {
        if record.kind() != Some(Kind::Ledger) {
            return None;
        }
        let [delta, after, tag, key] = record.data;
        Some(Posting {
            venue: Venue::from_tag(record.venue),
            asset: AssetId(record.asset),
            delta: Amount(delta),
            after: Amount(after),
            tag: Tag::ALL.into_iter().find(|known| *known as i64 == tag)?,
            run: record.run,
            key: OrderKey(key),
        })
    }
}

/// Profit and loss as told: `[day, realised, marked, peak]` in the numeraire, which is the record's
/// asset; the update id counts settled rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pnl {
    /// Days since 1970-01-01 UTC.
    pub day: i64,
    /// Of rounds that settled today.
    pub realised: i64,
    /// Of all trading flows of today, marked with the worse side; fees are in.
    pub marked: i64,
    /// The highest `marked` of the day.
    pub peak: i64,
    /// Rounds that settled since the engine's start.
    pub rounds: u64,
}

impl Pnl {
    /// Returns the record.
    #[must_use]
    pub fn record(&self, numeraire: AssetId, cause: &Record) -> Record {
        let data = [self.day, self.realised, self.marked, self.peak];
        Record {
            flags: flag::OUTPUT,
            asset: numeraire.0,
            update_id: self.rounds,
            engine_ts_ns: cause.engine_ts_ns,
            ..Record::new(Kind::Pnl, 0, u16::MAX, data)
        }
    }

    /// Reads the record; nothing where it is another kind.
    #[must_use]
    pub fn read(record: &Record) -> Option<Pnl> {
        let [day, realised, marked, peak] = record.data;
        let pnl = Pnl { day, realised, marked, peak, rounds: record.update_id };
        (record.kind() == Some(Kind::Pnl)).then_some(pnl)
    }
}

/// One venue's balance of one asset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// What the venue owes us by our own books.
    pub balance: i128,
    /// By [`Tag`]: where it came from.
    pub flows: [i128; Tag::ALL.len()],
    /// It has an opening balance.
    pub is_open: bool,
    /// What the venue told last, and when; nothing before that.
    pub told: Option<(Amount, i64)>,
    /// Since when it differs for no known reason; 0 while it does not.
    pub differs_ns: i64,
    /// How many words of the venue in a row have differed.
    pub differing: u32,
    /// What the balance was until when, the last few changes: a word may be as old as these.
    recent: [(i128, i64); RECENT],
    recent_count: usize,
}

impl Account {
    /// Returns whether the balance is the sum of where it came from.
    #[must_use]
    pub fn is_sum(&self) -> bool {
        self.flows.iter().sum::<i128>() == self.balance
    }
}

/// Balances before the latest changes that an account remembers.
const RECENT: usize = 16;
/// A word of a venue may have been read this long before it was heard.
const WORD_AGE_NS: i64 = 3_000_000_000;

/// What comparing a balance gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Equal within the bound, or explained by orders under way.
    Agrees,
    /// It differs, not long enough yet.
    Suspect,
    /// It differed for too long: by this much.
    Drift(i128),
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    asset_count: usize,
    accounts: Vec<Account>,
    dust: Vec<i128>,
    /// Trading flows and fees of the day, by asset, over all venues.
    day_flows: Vec<i128>,
    /// Result of the day's rounds through each instrument.
    instrument_results: Vec<i128>,
    pnl: Pnl,
    samples: [(i64, i64); SAMPLES],
    sample_count: usize,
    /// Time of the last timer.
    now_ns: i64,
}

impl Ledger {
    /// Returns an empty ledger; nothing is allocated afterwards.
    #[must_use]
    pub fn new(asset_count: usize, instrument_count: usize) -> Ledger {
        Ledger {
            asset_count,
            accounts: vec![Account::default(); asset_count * Venue::ALL.len()],
            dust: vec![0; asset_count],
            day_flows: vec![0; asset_count],
            instrument_results: vec![0; instrument_count],
            pnl: Pnl::default(),
            samples: [(0, 0); SAMPLES],
            sample_count: 0,
            now_ns: 0,
        }
    }

    #[inline]
    fn idx(&self, venue: Venue, asset: AssetId) -> usize {
        venue.idx() * self.asset_count + usize::from(asset.0)
    }

    /// Returns how many assets there are.
    #[must_use]
    #[inline]
    pub fn asset_count(&self) -> usize {
        self.asset_count
    }

    /// Returns a venue's account of an asset of the table.
    #[must_use]
    #[inline]
    pub fn account(&self, venue: Venue, asset: AssetId) -> &Account {
        &self.accounts[self.idx(venue, asset)]
    }

    /// Returns a venue's account to note what the venue told.
    pub fn account_mut(&mut self, venue: Venue, asset: AssetId) -> &mut Account {
        let idx = self.idx(venue, asset);
        &mut self.accounts[idx]
    }

    /// Adds `delta` from `tag` to a venue's balance and returns what to tell.
    pub fn post(
        &mut self,
        venue: Venue,
        asset: AssetId,
        delta: i128,
        tag: Tag,
        (run, key): (u32, OrderKey),
    ) -> Posting {
        if matches!(tag, Tag::Trade | Tag::Fee | Tag::Bust) {
            let flow = &mut self.day_flows[usize::from(asset.0)];
            *flow = flow.saturating_add(delta);
        }
        let now_ns = self.now_ns;
        let account = self.account_mut(venue, asset);
        account.recent[account.recent_count % RECENT] = (account.balance, now_ns);
        account.recent_count += 1;
        account.balance = account.balance.saturating_add(delta);
        if account.told.is_some_and(|(told, _)| i128::from(told.0) == account.balance) {
            // The venue was ahead of us: what it told is true now.
            (account.differs_ns, account.differing) = (0, 0);
        }
        account.flows[tag as usize - 1] = account.flows[tag as usize - 1].saturating_add(delta);
        account.is_open |= matches!(tag, Tag::Opening | Tag::Carried);
        let after = clamp(account.balance);
        Posting { venue: Some(venue), asset, delta: clamp(delta), after, tag, run, key }
    }

    /// Adds to what is too little to trade, from or into a round (run 0: none), and returns what to tell.
    pub fn add_dust(
        &mut self,
        asset: AssetId,
        delta: i128,
        (run, key): (u32, OrderKey),
    ) -> Posting {
        let dust = &mut self.dust[usize::from(asset.0)];
        *dust = dust.saturating_add(delta);
        let (delta, after) = (clamp(delta), clamp(*dust));
        Posting { venue: None, asset, delta, after, tag: Tag::Dust, run, key }
    }

    /// Returns what is too little to trade of an asset.
    #[must_use]
    #[inline]
    pub fn dust(&self, asset: AssetId) -> i128 {
        self.dust[usize::from(asset.0)]
    }

    /// Returns whether every balance is the sum of its accounts and fits a record.
    #[must_use]
    pub fn check(&self) -> bool {
        self.accounts
            .iter()
            .all(|account| account.is_sum() && i64::try_from(account.balance).is_ok())
    }

    /// Compares a venue's word with the ledger. `pending` is what orders under way may explain; `is_word`
    /// says that the venue has just spoken. A word says what was when the venue read it: it may be what the
    /// balance was just before, and the venue may be ahead of us, so that only a second word in a row makes
    /// a difference one. Drift is said once; to say it again takes two more words.
    pub fn audit(
        &mut self,
        venue: Venue,
        asset: AssetId,
        (drift_max, drift_ns_max): (Amount, i64),
        (pending, is_word): (i128, bool),
        now_ns: i64,
    ) -> Audit {
        let account = self.account_mut(venue, asset);
        let Some((told, _)) = account.told else { return Audit::Agrees };
        let differs = i128::from(told.0) - account.balance;
        if differs.abs() <= i128::from(drift_max.0) + pending {
            (account.differs_ns, account.differing) = (0, 0);
            return Audit::Agrees;
        }
        let count = account.recent_count.min(RECENT);
        let is_old = account.recent[..count]
            .iter()
            .any(|(was, until_ns)| now_ns - until_ns <= WORD_AGE_NS && i128::from(told.0) == *was);
        if is_word && !is_old {
            account.differing = account.differing.saturating_add(1);
            if account.differs_ns == 0 {
                account.differs_ns = now_ns;
            }
        }
        if account.differing < 2 || now_ns - account.differs_ns <= drift_ns_max {
            return Audit::Suspect;
        }
        (account.differs_ns, account.differing) = (0, 0);
        Audit::Drift(differs)
    }

    /// Returns how many balances are not what their venue last said, explained or not yet.
    #[must_use]
    pub fn differing_count(&self) -> usize {
        self.accounts.iter().filter(|account| account.differs_ns != 0).count()
    }

    /// Returns today's trading flow of an asset.
    #[must_use]
    pub fn day_flow(&self, asset: AssetId) -> i128 {
        self.day_flows[usize::from(asset.0)]
    }

    /// Begins a new day where one began.
    pub fn turn_day(&mut self, now_ns: i64) -> bool {
        self.now_ns = now_ns;
        let day = now_ns.div_euclid(DAY_NS);
        if day <= self.pnl.day {
            return false;
        }
        self.pnl = Pnl { day, rounds: self.pnl.rounds, ..Pnl::default() };
        self.day_flows.fill(0);
        self.instrument_results.fill(0);
        self.sample_count = 0;
        true
    }

    /// Counts a round's result, in the numeraire.
    pub fn realise(&mut self, worth: i128, instruments: &[u16]) {
        self.pnl.rounds += 1;
        self.pnl.realised = self.pnl.realised.saturating_add(clamp(worth).0);
        for instrument in instruments {
            let result = &mut self.instrument_results[usize::from(*instrument)];
            *result = result.saturating_add(worth);
        }
    }

    /// Takes the marks of now: what today's flows are worth.
    pub fn mark(&mut self, worth: i128, now_ns: i64) {
        self.pnl.marked = clamp(worth).0;
        self.pnl.peak = self.pnl.peak.max(self.pnl.marked);
        let last = self.sample_count.checked_sub(1).map(|idx| self.samples[idx % SAMPLES].0);
        if last.is_none_or(|at| SAMPLE_NS <= now_ns - at) {
            self.samples[self.sample_count % SAMPLES] = (now_ns, self.pnl.marked);
            self.sample_count += 1;
        }
    }

    /// Returns the result of the last five minutes: the marks of now against the highest since.
    #[must_use]
    pub fn result_5min(&self, marked: i64, now_ns: i64) -> i64 {
        let since = now_ns - SAMPLE_NS * (SAMPLES as i64 - 1);
        let count = self.sample_count.min(SAMPLES);
        let highest = self.samples[..count].iter().filter(|s| since <= s.0).map(|s| s.1).max();
        marked.saturating_sub(highest.unwrap_or(0).max(marked))
    }

    /// Returns today's result of the rounds through an instrument.
    #[must_use]
    pub fn instrument_result(&self, instrument: u16) -> i128 {
        self.instrument_results[usize::from(instrument)]
    }

    /// Returns the result of the day.
    #[must_use]
    pub fn pnl(&self) -> &Pnl {
        &self.pnl
    }

    /// Carries the result of a day over from an earlier run.
    pub fn carry(&mut self, pnl: &Pnl, numeraire: AssetId) {
        self.pnl = *pnl;
        self.day_flows.fill(0);
        self.day_flows[usize::from(numeraire.0)] = i128::from(pnl.marked);
    }
}

/// Returns what fits a record; what does not is as large as fits, and [`Ledger::check`] says so.
#[must_use]
#[inline]
pub fn clamp(value: i128) -> Amount {
    Amount(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_and_results_read_back() {
        let mut ledger = Ledger::new(2, 1);
        let name = (4, OrderKey::new(2, 1));
        let posting = ledger.post(Venue::Kraken, AssetId(1), -7, Tag::Fee, name);
        let cause = Record { engine_ts_ns: 5, ..Record::default() };
        assert_eq!(Posting::read(&posting.record(&cause)), Some(posting));
        let dust = ledger.add_dust(AssetId(1), 3, (0, OrderKey(0)));
        assert_eq!(Posting::read(&dust.record(&cause)), Some(dust));
        let pnl = Pnl { day: 3, realised: -4, marked: 5, peak: 6, rounds: 7 };
        assert_eq!(Pnl::read(&pnl.record(AssetId(0), &cause)), Some(pnl));
        assert!(ledger.check());
    }

    #[test]
    fn a_balance_that_fits_no_record_is_found() {
        let mut ledger = Ledger::new(1, 0);
        ledger.post(Venue::Kraken, AssetId(0), i64::MAX.into(), Tag::Opening, (0, OrderKey(0)));
        assert!(ledger.check());
        ledger.post(Venue::Kraken, AssetId(0), 1, Tag::External, (0, OrderKey(0)));
        assert!(!ledger.check());
    }

    #[test]
    fn days_begin_at_midnight_and_five_minutes_forget() {
        let mut ledger = Ledger::new(1, 1);
        ledger.turn_day(DAY_NS * 9 + 5);
        ledger.mark(100, DAY_NS * 9 + 5);
        ledger.mark(40, DAY_NS * 9 + 6);
        assert_eq!((ledger.result_5min(40, DAY_NS * 9 + 6), ledger.pnl().peak), (-60, 100));
        assert_eq!(ledger.result_5min(40, DAY_NS * 9 + 6 + SAMPLE_NS * 31), 0);
        assert!(!ledger.turn_day(DAY_NS * 10 - 1) && ledger.turn_day(DAY_NS * 10));
        assert_eq!((ledger.pnl().marked, ledger.pnl().peak), (0, 0));
    }

    /// Row AC-07. A word that is only old, or early, is no drift; one that is wrong is, and is said once.
    #[test]
    fn old_and_early_words_are_no_drift() {
        const S: i64 = 1_000_000_000;
        let (venue, asset, name) = (Venue::Coinbase, AssetId(0), (1, OrderKey(1)));
        let bounds = (Amount(0), 5 * S);
        let mut ledger = Ledger::new(1, 1);
        ledger.post(venue, asset, 100, Tag::Opening, (1, OrderKey(0)));
        let say = |ledger: &mut Ledger, total: i64, now_ns: i64| {
            ledger.turn_day(now_ns);
            ledger.account_mut(venue, asset).told = Some((Amount(total), now_ns));
            ledger.audit(venue, asset, bounds, (0, true), now_ns)
        };
        // Each word is what the balance was a second ago.
        for n in 1..20 {
            ledger.turn_day(n * 10 * S);
            let before = ledger.account(venue, asset).balance as i64;
            ledger.post(venue, asset, -2, Tag::Trade, name);
            assert_eq!(say(&mut ledger, before, n * 10 * S + S), Audit::Suspect);
        }
        // Each word is what we only learn of afterwards.
        for n in 20..40 {
            let after = ledger.account(venue, asset).balance as i64 - 3;
            assert_eq!(say(&mut ledger, after, n * 10 * S), Audit::Suspect);
            ledger.post(venue, asset, -3, Tag::Trade, name);
        }
        // Money is gone.
        let wrong = ledger.account(venue, asset).balance as i64 - 7;
        assert_eq!(say(&mut ledger, wrong, 500 * S), Audit::Suspect);
        assert_eq!(say(&mut ledger, wrong, 510 * S), Audit::Drift(-7));
        // Armed again: two more words.
        assert_eq!(ledger.audit(venue, asset, bounds, (0, false), 511 * S), Audit::Suspect);
        assert_eq!(say(&mut ledger, wrong, 520 * S), Audit::Suspect);
        assert_eq!(say(&mut ledger, wrong, 530 * S), Audit::Drift(-7));
    }
}
