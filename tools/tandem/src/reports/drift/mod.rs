//! The drift report: a live (or paper) journal beside the journal of its own backtest, fill by fill.
//!
//! Invariant: rounds are paired by cycle and time, orders by leg and purpose, fills by order and price; every
//! difference has a named reason, a fact that the two journals tell differently, or counts as unexplained. The money of
//! all lines adds up to the difference of the two results.
//!
//! Not here: the simulation (`tandem-backtest`), the truth of a simulated venue (`crate::truth`).

mod compare;
pub mod depth;
pub mod side;

use serde::Serialize;
use tandem_backtest::outcome::Calibration;

pub use self::side::Side;
use super::backtest::words;
use super::page::{Page, Section, TableText};
use crate::trades::TradesError;

/// Two of a cycle that began within this time of each other are of one dislocation, by default, ms.
pub const WINDOW_MS: i64 = 250;

/// Why two journals cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    /// One cannot be read.
    #[error("{which}: {error}")]
    Read {
        /// `--live` or `--replayed`.
        which: &'static str,
        /// Why.
        error: TradesError,
    },
    /// One has no configuration, so nothing in it has a name.
    #[error(
        "{which}: no configuration in it: it is no journal of an engine, or its beginning is missing"
    )]
    NoTable {
        /// `--live` or `--replayed`.
        which: &'static str,
    },
    /// They are not of the same market.
    #[error(
        "the journals are of different instruments ({live} live, {replayed} replayed, first different: {first}): \
         compare a journal with the backtest that was made of it"
    )]
    Instruments {
        /// Number of instruments.
        live: usize,
        /// Number of instruments.
        replayed: usize,
        /// Where they differ first.
        first: String,
    },
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// What was seen.
    Opportunity,
    /// A round.
    Round,
    /// An order of a round that both entered.
    Order,
    /// A fill of an order that both sent.
    Fill,
}

impl What {
    /// Returns the word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            What::Opportunity => "opportunity",
            What::Round => "round",
            What::Order => "order",
            What::Fill => "fill",
        }
    }
}

/// Who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// Both, and it is not the same.
    Both,
    /// Only the live journal.
    Live,
    /// Only the replayed one.
    Replayed,
}

impl Only {
    /// Returns the word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Only::Both => "both",
            Only::Live => "only live",
            Only::Replayed => "only replayed",
        }
    }
}

/// Why it differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The other side was not armed.
    NotArmed,
    /// The other journal does not reach there.
    Outside,
    /// A book was not proven in sync on the other side.
    BookNotLive,
    /// A control had halted an instrument on the other side.
    Halted,
    /// The other side denied it, by this code.
    Denied(String),
    /// Fees of its instruments differ.
    Fees,
    /// Settings of detection differ.
    Settings,
    /// Limits differ.
    Limits,
    /// Own orders hid other depth.
    OwnOrders,
    /// The data was of another age.
    Staleness,
    /// The other side saw it as part of a longer one.
    OneLife,
    /// It follows from no opportunity.
    Orphan,
    /// It is over on one side alone.
    Stage,
    /// What there was did not cover the same size.
    Balances,
    /// What was open left no room for the same size.
    Exposure,
    /// On one side alone it was among the first after arming.
    Ramp,
    /// Balances asked for another edge.
    Skew,
    /// It was decided on other books.
    BookAtDecision,
    /// It was decided at another moment.
    OtherMoment,
    /// The order was another one, for a reason of its round.
    OtherOrder,
    /// Refused on one side.
    Rejected,
    /// Its outcome was unknown on one side.
    Unknown,
    /// The answer took another time, and the book had changed.
    Latency,
    /// The same quantity at other prices: the book on arrival.
    PriceOnArrival,
    /// Another quantity: the depth on arrival.
    DepthOnArrival,
    /// The same fills, another fee.
    FeeCharged,
    /// Hedges differ because the entry did.
    FirstLeg,
    /// The book was another one when the hedge was made.
    HedgeBook,
    /// What was left over was worth something else.
    Valuation,
    /// Nothing that was told says why.
    Unexplained,
}

impl Reason {
    /// Returns the code.
    #[must_use]
    pub fn code(&self) -> String {
        let code = match self {
            Reason::Denied(code) => return format!("denied:{code}"),
            Reason::NotArmed => "not_armed",
            Reason::Outside => "outside",
            Reason::BookNotLive => "book_not_live",
            Reason::Fees => "fees",
            Reason::Settings => "settings",
            Reason::Limits => "limits",
            Reason::OwnOrders => "own_orders",
            Reason::Staleness => "staleness",
            Reason::Halted => "halted",
            Reason::OneLife => "one_life",
            Reason::Orphan => "orphan",
            Reason::Stage => "stage",
            Reason::Balances => "balances",
            Reason::Exposure => "exposure",
            Reason::Ramp => "ramp",
            Reason::Skew => "skew",
            Reason::BookAtDecision => "book_at_decision",
            Reason::OtherMoment => "other_moment",
            Reason::OtherOrder => "other_order",
            Reason::Rejected => "rejected",
            Reason::Unknown => "unknown",
            Reason::Latency => "latency",
            Reason::PriceOnArrival => "price_on_arrival",
            Reason::DepthOnArrival => "depth_on_arrival",
            Reason::FeeCharged => "fee_charged",
            Reason::FirstLeg => "first_leg",
            Reason::HedgeBook => "hedge_book",
            Reason::Valuation => "valuation",
            Reason::Unexplained => "unexplained",
        };
        code.to_owned()
    }

    /// Returns it in words.
    #[must_use]
    pub fn words(&self) -> String {
        let text = match self {
            Reason::Denied(code) => {
                return format!("denied on the other side: {}", words::denial(code));
            }
            Reason::NotArmed => "the other side was not armed",
            Reason::Outside => "the other journal does not reach there",
            Reason::BookNotLive => "a book was not proven in sync on the other side",
            Reason::Fees => "fees differ",
            Reason::Settings => "settings of the engine differ",
            Reason::Limits => "limits differ",
            Reason::OwnOrders => "own orders hid other depth",
            Reason::Staleness => "the data was of another age",
            Reason::Halted => "an instrument was halted by a control on the other side",
            Reason::OneLife => "the other side saw it as part of a longer one",
            Reason::Orphan => "it follows from no opportunity",
            Reason::Stage => "over on one side alone",
            Reason::Balances => "balances did not cover the same size",
            Reason::Exposure => "what was open left no room for the same size",
            Reason::Ramp => "among the first rounds after arming, on one side alone",
            Reason::Skew => "balances asked for another edge",
            Reason::BookAtDecision => "it was decided on other books",
            Reason::OtherMoment => "decided at another moment",
            Reason::OtherOrder => "the order was another one, see its round",
            Reason::Rejected => "refused on one side",
            Reason::Unknown => "outcome unknown on one side",
            Reason::Latency => "latency: the order met another book",
            Reason::PriceOnArrival => "the book on arrival had other prices",
            Reason::DepthOnArrival => "the book on arrival had other quantities",
            Reason::FeeCharged => "another fee was charged",
            Reason::FirstLeg => "hedged otherwise because the entry differed",
            Reason::HedgeBook => "another book when the hedge was made",
            Reason::Valuation => "what was left over was worth something else",
            Reason::Unexplained => "unexplained",
        };
        text.to_owned()
    }
}

/// Differences of one reason.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonLine {
    /// What differs.
    pub what: What,
    /// Who has it.
    pub only: Only,
    /// Code of the reason.
    pub code: String,
    /// The reason in words.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// Live less replayed, of the numeraire.
    pub money: String,
    /// The same in quanta.
    pub money_quanta: i128,
}

/// One difference.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// What differs.
    pub what: What,
    /// Who has it.
    pub only: Only,
    /// When.
    pub at: String,
    /// Where: the round or the legs.
    pub place: String,
    /// Code of the reason.
    pub code: String,
    /// The reason in words.
    pub reason: String,
    /// The evidence.
    pub detail: String,
    /// Live less replayed, of the numeraire.
    pub money: String,
    /// The same in quanta.
    pub money_quanta: i128,
}

/// One of the journals.
#[derive(Clone, Debug, Serialize)]
pub struct SideText {
    /// Records read.
    pub records: u64,
    /// Groups of records that could not be read.
    pub malformed: u64,
    /// Time of the first.
    pub from: String,
    /// Time of the last.
    pub to: String,
    /// Opportunities seen.
    pub opportunities: u64,
    /// Rounds.
    pub rounds: u64,
    /// Orders of rounds.
    pub orders: u64,
    /// Fills of these.
    pub fills: u64,
    /// Worth of all rounds, of the numeraire.
    pub result: String,
}

/// The report.
#[derive(Clone, Debug, Serialize)]
pub struct Drift {
    /// What happened.
    pub live: SideText,
    /// What the backtest says.
    pub replayed: SideText,
    /// The numeraire.
    pub asset: String,
    /// How far apart in time two of a cycle are still one, ms.
    pub window_ms: i64,
    /// Opportunities that both saw.
    pub opportunities_matched: u64,
    /// Rounds that both entered.
    pub rounds_matched: u64,
    /// Result live less replayed.
    pub difference: String,
    /// The same in quanta: the sum of all lines.
    pub difference_quanta: i128,
    /// Every reason.
    pub reasons: Vec<ReasonLine>,
    /// Differences without a reason.
    pub unexplained: u64,
    /// Their money.
    pub unexplained_money: String,
    /// Some of them.
    pub examples: Vec<Difference>,
    /// The dearest differences.
    pub differences: Vec<Difference>,
    /// How near the simulation comes: simulated less live.
    pub calibration: Calibration,
    /// Its error of the result as an amount.
    pub pnl_error: String,
}

/// Compares two journals that were read.
pub fn drift(live: &Side, replayed: &Side, window_ms: i64) -> Result<Drift, DriftError> {
    let table =
        |side: &Side, which: &'static str| side.table.clone().ok_or(DriftError::NoTable { which });
    let (of_live, of_replayed) = (table(live, "--live")?, table(replayed, "--replayed")?);
    let names = |table: &crate::table::Table| -> Vec<String> {
        let name =
            |i: &tandem_feeds::spec::VenueInstrument| format!("{} {}", i.venue.name(), i.symbol);
        table.instruments.iter().map(name).collect()
    };
    let (ours, theirs) = (names(&of_live), names(&of_replayed));
    if ours != theirs {
        let first = ours.iter().zip(&theirs).find(|(a, b)| a != b);
        return Err(DriftError::Instruments {
            live: ours.len(),
            replayed: theirs.len(),
            first: first.map_or_else(|| "one has more".to_owned(), |(a, b)| format!("{a}, {b}")),
        });
    }
    Ok(compare::compare(live, replayed, &of_live, window_ms.saturating_mul(1_000_000)))
}

fn percent(ppm: i64) -> String {
    let size = ppm.unsigned_abs();
    format!("{}{}.{:02} %", if ppm < 0 { "-" } else { "" }, size / 10_000, size / 100 % 100)
}

fn line<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

fn table(caption: &str, head: &[&str], none: &str, rows: Vec<Vec<String>>) -> TableText {
    TableText {
        caption: caption.to_owned(),
        head: head.iter().map(|head| (*head).to_owned()).collect(),
        rows,
        none: none.to_owned(),
    }
}

/// Makes the page.
#[must_use]
pub fn page(drift: &Drift) -> Page {
    let asset = &drift.asset;
    let c = &drift.calibration;
    let verdict = match drift.unexplained {
        0 => "Every difference has a reason.".to_owned(),
        count => format!(
            "{count} differences are UNEXPLAINED, {} {asset} in all.",
            drift.unexplained_money
        ),
    };
    let rows = [("live", &drift.live), ("replayed", &drift.replayed)].map(|(name, s)| {
        line([
            &name,
            &s.from,
            &s.to,
            &s.records,
            &s.opportunities,
            &s.rounds,
            &s.orders,
            &s.fills,
            &s.result,
        ])
    });
    let head = [
        "journal",
        "from",
        "to",
        "#records",
        "#opportunities",
        "#rounds",
        "#orders",
        "#fills",
        "#result",
    ];
    let sides = table("The two journals", &head, "", rows.to_vec());
    let both = format!(
        "Seen by both: {} opportunities; entered by both: {} rounds (within {} ms).",
        drift.opportunities_matched, drift.rounds_matched, drift.window_ms
    );
    let errors = [
        line([&"fill rate of entry orders", &percent(c.fill_rate_error_ppm)]),
        line([
            &"price of fills, positive: the replay was too good",
            &format!("{} ppm", c.price_error_ppm),
        ]),
        line([&"time to the first fill, mean", &format!("{} us", c.time_error_us)]),
        line([&"result", &format!("{} {asset}", drift.pnl_error)]),
    ];
    let calibration = table("Replayed less live", &["of", "#error"], "", errors.to_vec());
    let median = |us: Option<i64>| us.map_or("none".to_owned(), |us| format!("{us} us"));
    let medians = [
        line([&"live", &median(c.time_live_median_us)]),
        line([&"replayed", &median(c.time_simulated_median_us)]),
    ];
    let head = ["journal", "#median"];
    let medians = table(
        "Time to the first fill, of entry orders that both filled",
        &head,
        "",
        medians.to_vec(),
    );
    let reasons = drift
        .reasons
        .iter()
        .map(|r| line([&r.what.name(), &r.only.name(), &r.reason, &r.code, &r.count, &r.money]));
    let money = format!("#live less replayed, {asset}");
    let head = ["what", "who has it", "reason", "code", "#times", &money];
    let reasons = table("Differences by reason", &head, "No difference.", reasons.collect());
    let one = |d: &Difference| {
        line([&d.at, &d.what.name(), &d.only.name(), &d.place, &d.reason, &d.detail, &d.money])
    };
    let head = ["at", "what", "who has it", "where", "reason", "evidence", &money];
    let unexplained =
        table("Unexplained", &head, "None.", drift.examples.iter().map(one).collect());
    let dearest = table(
        "The dearest differences",
        &head,
        "No difference.",
        drift.differences.iter().map(one).collect(),
    );
    let section = |title: &str, notes: Vec<String>, tables: Vec<TableText>| Section {
        title: title.to_owned(),
        notes,
        tables,
    };
    let notes = vec![verdict, format!("Live less replayed: {} {asset}.", drift.difference)];
    let note = "A round that both entered has its money at its fees, where these differ, and the rest at its first \
                other cause; what follows from that is told and counted with nothing. Opportunities have no money: none was earned with them.";
    Page {
        title: "Drift: live beside its own backtest".to_owned(),
        notes,
        sections: vec![
            section("Both", vec![both], vec![sides]),
            section("Calibration error", Vec::new(), vec![calibration, medians]),
            section("Why they differ", vec![note.to_owned()], vec![reasons, unexplained, dearest]),
        ],
    }
}
