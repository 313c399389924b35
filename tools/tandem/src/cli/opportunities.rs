//! `opportunities`: what a journal says was found and denied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tandem_core::graph::CycleKind;
use tandem_core::record::{Kind, Venue, flag};
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_drain::model::views::denial_code;
use tandem_drain::rows::Table;
use tandem_shm::JournalError;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::records::{Origin, Records};
use crate::reports::period::{Period, PeriodArgs};
use crate::reports::sheet::field;
use crate::reports::{Exact, rows};
use crate::table::{self, Collector};
use crate::time::{now_ns, utc};

/// What to show.
#[derive(Args, Debug)]
pub struct OpportunitiesArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Directory of a journal; default: the configured run's.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// How many, the latest ones; 0 is all.
    #[arg(long, default_value_t = 20)]
    last: usize,
    /// cross_venue, triangular or cross_quote.
    #[arg(long)]
    kind: Option<String>,
    /// Every record of an opportunity's life instead of one line each.
    #[arg(long)]
    all_phases: bool,
    /// The denied candidates instead.
    #[arg(long)]
    denials: bool,
    /// What became of it: taken by a round, denied by a control, or gone.
    #[arg(long, conflicts_with = "denials")]
    verdict: Option<VerdictName>,
    /// Only where a leg has this symbol, as its venue writes it.
    #[arg(long)]
    symbol: Option<String>,
    /// Only where a leg is at this venue.
    #[arg(long)]
    venue: Option<String>,
    /// At least this net, in the asset of each.
    #[arg(long, value_name = "AMOUNT")]
    min_net: Option<String>,
    #[command(flatten)]
    period: PeriodArgs,
    /// As CSV, one line each.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What became of an opportunity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VerdictName {
    Taken,
    Denied,
    Gone,
}

/// What became of the opportunities of a journal: by the moment when each was first seen, and its number.
#[derive(Default)]
struct Verdicts {
    taken: BTreeSet<(i64, i64)>,
    denied: BTreeSet<(i64, i64)>,
}

impl Verdicts {
    fn read(journal: Origin) -> Result<Verdicts, Failure> {
        // Numbers begin anew with each run, moments do not.
        let (mut verdicts, mut seen) = (Verdicts::default(), BTreeMap::new());
        rows::read::<JournalError>(journal, |_, _, rows| {
            for row in &rows {
                let of = |column| rows::number(row, column).unwrap_or_default();
                match row.table {
                    Table::Opportunities => {
                        let name = (of("first_ns"), of("opportunity"));
                        seen.insert((of("run"), of("opportunity")), name);
                        if !rows::text(row, "denied_by").is_empty() {
                            verdicts.denied.insert(name);
                        }
                    }
                    Table::Rounds => {
                        let name = seen.get(&(of("run"), of("opportunity")));
                        verdicts.taken.extend(name.copied());
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .map_err(Failure::unreachable)?;
        Ok(verdicts)
    }

    fn of(&self, told: &OpportunityText) -> VerdictName {
        let name = (told.first_ns, told.id);
        match (self.taken.contains(&name), self.denied.contains(&name)) {
            (true, _) => VerdictName::Taken,
            (false, true) => VerdictName::Denied,
            (false, false) => VerdictName::Gone,
        }
    }
}

/// One leg for people and scripts.
#[derive(Clone, Debug, Serialize)]
pub struct LegText {
    /// Where.
    pub venue: String,
    /// What.
    pub symbol: String,
    /// `buy` or `sell`.
    pub action: String,
    /// Limit price.
    pub px: String,
    /// Quantity.
    pub qty: String,
    /// Best price of the side taken.
    pub best_px: String,
    /// Levels touched.
    pub levels: u32,
    /// The venue's id of the book.
    pub update_id: u64,
    /// When the book's last change was received.
    pub received_ns: i64,
}

/// One moment of an opportunity for people and scripts.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of Opportunity")]
pub struct OpportunityText {
    pub id: i64,
    pub phase: String,
    pub kind: String,
    pub cycle: u32,
    pub at: String,
    pub at_ns: i64,
    pub asset: String,
    pub net: String,
    pub spent: String,
    pub brought: String,
    pub net_ppm: i64,
    pub gross_ppb: i64,
    pub buffers_ppm: i64,
    pub age_ns: i64,
    pub first_seen: String,
    pub first_ns: i64,
    pub last_ns: i64,
    pub best_ns: i64,
    pub times: i64,
    pub best_of_step: bool,
    pub legs: Vec<LegText>,
}

/// What a control found and what it allows, in the control's own unit.
#[derive(Clone, Debug, Serialize)]
pub struct FoundText {
    /// What was found.
    pub observed: i64,
    /// What is allowed.
    pub limit: i64,
}

/// One denial for people and scripts.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of Denial")]
pub struct DenialText {
    pub verdict: String,
    pub found: Option<FoundText>,
    pub kind: String,
    pub cycle: u32,
    pub at: String,
    pub at_ns: i64,
    pub times: i64,
    pub asset: String,
    pub net: String,
    pub spent: String,
    pub gross_ppb: i64,
    pub buffers_ppm: i64,
    pub age_ns: i64,
    pub legs: Vec<LegText>,
}

/// What a journal says, in order.
#[derive(Clone, Debug)]
pub enum Told {
    /// A moment of an opportunity.
    Opportunity(Box<OpportunityText>),
    /// A denied candidate.
    Denial(Box<DenialText>),
}

/// Reads every opportunity and denial of a journal.
pub fn read(journal: impl Into<Origin>, mut each: impl FnMut(Told)) -> Result<(), Failure> {
    let mut reader = Records::open(journal).map_err(Failure::unreachable)?;
    let (mut collector, mut table): (Collector, Option<(table::Table, tandem_core::graph::Graph)>) =
        (Collector::default(), None);
    let mut group = Vec::new();
    while let Some(record) = reader.next().map_err(Failure::failed)? {
        match record.kind() {
            Some(Kind::Config) => {
                if let Some(found) = collector.take(&record) {
                    let found = found.map_err(Failure::failed)?;
                    let graph = found.engine().map_err(Failure::failed)?.graph().clone();
                    table = Some((found, graph));
                }
            }
            Some(Kind::Opportunity | Kind::Denial) => {
                if record.part == 0 {
                    group.clear();
                }
                group.push(record);
                let Some((table, graph)) = &table else { continue };
                if record.has(flag::MORE) {
                    continue;
                }
                if let Some(told) = Opportunity::decode(&group) {
                    each(Told::Opportunity(Box::new(opportunity_text(table, &told))));
                } else if let Some(told) = Denial::decode(&group) {
                    each(Told::Denial(Box::new(denial_text(table, graph, &told))));
                }
                group.clear();
            }
            _ => {}
        }
    }
    Ok(())
}

fn opportunity_text(table: &table::Table, told: &Opportunity) -> OpportunityText {
    let legs = told.legs().iter().map(|leg| LegText {
        venue: venue_name(leg.venue),
        symbol: symbol(table, leg.instrument),
        action: if leg.side == 1 { "buy" } else { "sell" }.to_owned(),
        px: table.px(leg.instrument, leg.px.0),
        qty: table.qty(leg.instrument, leg.qty.0),
        best_px: table.px(leg.instrument, leg.best_px.0),
        levels: leg.levels,
        update_id: leg.update_id,
        received_ns: leg.recv_ts_ns,
    });
    let net_ppm = match told.spent.0 {
        0 => 0,
        spent => (i128::from(told.net.0) * 1_000_000 / i128::from(spent)) as i64,
    };
    OpportunityText {
        id: told.id,
        phase: format!("{:?}", told.phase).to_lowercase(),
        kind: told.kind.name().to_owned(),
        cycle: told.cycle,
        at: utc(told.at_ns),
        at_ns: told.at_ns,
        asset: table.asset(told.start).to_owned(),
        net: table.amount(told.start, told.net.0),
        spent: table.amount(told.start, told.spent.0),
        brought: table.amount(told.start, told.brought.0),
        net_ppm,
        gross_ppb: told.gross_ppb,
        buffers_ppm: told.buffers_ppm,
        age_ns: told.age_ns,
        first_seen: utc(told.first_ns),
        first_ns: told.first_ns,
        last_ns: told.last_ns,
        best_ns: told.best_ns,
        times: told.times,
        best_of_step: told.best,
        legs: legs.collect(),
    }
}

fn denial_text(
    table: &table::Table,
    graph: &tandem_core::graph::Graph,
    told: &Denial,
) -> DenialText {
    let edges = graph.cycles().get(told.cycle as usize).map_or(&[][..], |cycle| cycle.edges());
    let legs = edges.iter().map(|edge| LegText {
        venue: venue_name(table.universe.instruments[usize::from(edge.instrument())].venue as u8),
        symbol: symbol(table, edge.instrument()),
        action: format!("{:?}", edge.action()).to_lowercase(),
        px: String::new(),
        qty: String::new(),
        best_px: String::new(),
        levels: 0,
        update_id: 0,
        received_ns: 0,
    });
    DenialText {
        verdict: denial_code(told),
        found: told
            .breach
            .map(|breach| FoundText { observed: breach.observed, limit: breach.limit }),
        kind: told.kind.name().to_owned(),
        cycle: told.cycle,
        at: utc(told.at_ns),
        at_ns: told.at_ns,
        times: told.times,
        asset: table.asset(told.start).to_owned(),
        net: table.amount(told.start, told.net.0),
        spent: table.amount(told.start, told.spent.0),
        gross_ppb: told.gross_ppb,
        buffers_ppm: told.buffers_ppm,
        age_ns: told.age_ns,
        legs: legs.collect(),
    }
}

fn venue_name(tag: u8) -> String {
    Venue::from_tag(tag).map_or("?", Venue::name).to_owned()
}

fn symbol(table: &table::Table, instrument: u16) -> String {
    let found = table.instruments.get(usize::from(instrument));
    found.map_or("?", |instrument| instrument.symbol.as_str()).to_owned()
}

/// `tandem opportunities`.
pub fn run(args: &OpportunitiesArgs) -> Done {
    let journal = match &args.journal {
        Some(journal) => Origin::from(journal),
        None => Origin::of(&args.config.load()?),
    };
    if let Some(kind) = &args.kind
        && !CycleKind::ALL.iter().any(|known| known.name() == kind)
    {
        return Err(Failure::usage(format!(
            "--kind {kind}: write cross_venue, triangular or cross_quote"
        )));
    }
    let period = Period::read(&args.period, now_ns()).map_err(Failure::usage)?;
    let min_net = match &args.min_net {
        None => None,
        Some(text) => Some(Exact::read(text).ok_or_else(|| {
            Failure::usage(format!(
                "--min-net {text}: write an amount of the start asset, e.g. 2.5"
            ))
        })?),
    };
    if let Some(venue) = &args.venue
        && crate::config::venue_named(venue).is_none()
    {
        return Err(Failure::usage(format!("--venue {venue}: write binance, coinbase or kraken")));
    }
    let verdicts = match args.verdict {
        None => None,
        Some(verdict) => Some((verdict, Verdicts::read(journal.clone())?)),
    };
    let fits = |legs: &[LegText], at_ns: i64, net: &str| {
        let named = |wanted: &Option<String>, of: fn(&LegText) -> &str| {
            wanted.as_ref().is_none_or(|wanted| legs.iter().any(|leg| of(leg) == wanted))
        };
        named(&args.venue, |leg| &leg.venue)
            && named(&args.symbol, |leg| &leg.symbol)
            && period.holds(at_ns)
            && min_net.is_none_or(|least| Exact::read(net).is_some_and(|net| least <= net))
    };
    let open = format!("{:?}", Phase::Open).to_lowercase();
    let mut last: VecDeque<Told> = VecDeque::new();
    read(journal, |told| {
        let (kind, wanted) = match &told {
            Told::Opportunity(o) => {
                let is_asked = !args.denials && (args.all_phases || o.phase == open);
                let is_verdict =
                    verdicts.as_ref().is_none_or(|(verdict, all)| all.of(o) == *verdict);
                (&o.kind, is_asked && is_verdict && fits(&o.legs, o.at_ns, &o.net))
            }
            Told::Denial(d) => (&d.kind, args.denials && fits(&d.legs, d.at_ns, &d.net)),
        };
        if wanted && args.kind.as_ref().is_none_or(|only| only == kind) {
            last.push_back(told);
            if args.last != 0 && args.last < last.len() {
                last.pop_front();
            }
        }
    })?;
    if args.csv {
        print_csv(&last);
        return Ok(Outcome::Ok);
    }
    for told in &last {
        match (told, args.json) {
            (Told::Opportunity(told), true) => print_json(told),
            (Told::Denial(told), true) => print_json(told),
            (Told::Opportunity(told), false) => print_opportunity(told),
            (Told::Denial(told), false) => print(format_args!(
                "{} {:<11} denied: {:<12} x{:<5} net {} {} of {} · gross {:.1} bp · {}",
                told.at,
                told.kind,
                told.verdict,
                told.times,
                told.net,
                told.asset,
                told.spent,
                told.gross_ppb as f64 / 100_000.0,
                route(&told.legs),
            )),
        }
    }
    Ok(Outcome::Ok)
}

/// The same columns for opportunities and denials; lines end as RFC 4180 says.
fn print_csv(all: &VecDeque<Told>) {
    print("at,id,phase,kind,verdict,asset,net,spent,gross_ppb,buffers_ppm,age_ns,times,legs\r");
    for told in all {
        let cells: [String; 13] = match told {
            Told::Opportunity(o) => [
                o.at.clone(),
                o.id.to_string(),
                o.phase.clone(),
                o.kind.clone(),
                String::new(),
                field(&o.asset),
                o.net.clone(),
                o.spent.clone(),
                o.gross_ppb.to_string(),
                o.buffers_ppm.to_string(),
                o.age_ns.to_string(),
                o.times.to_string(),
                field(&route(&o.legs)),
            ],
            Told::Denial(d) => [
                d.at.clone(),
                String::new(),
                "denied".to_owned(),
                d.kind.clone(),
                field(&d.verdict),
                field(&d.asset),
                d.net.clone(),
                d.spent.clone(),
                d.gross_ppb.to_string(),
                d.buffers_ppm.to_string(),
                d.age_ns.to_string(),
                d.times.to_string(),
                field(&route(&d.legs)),
            ],
        };
        print(format_args!("{}\r", cells.join(",")));
    }
}

fn route(legs: &[LegText]) -> String {
    let legs: Vec<String> =
        legs.iter().map(|leg| format!("{} {} {}", leg.action, leg.symbol, leg.venue)).collect();
    legs.join(", ")
}

fn print_opportunity(told: &OpportunityText) {
    let legs: Vec<String> = told
        .legs
        .iter()
        .map(|leg| format!("{} {} {} @ {} {}", leg.action, leg.qty, leg.symbol, leg.px, leg.venue))
        .collect();
    print(format_args!(
        "{} #{} {:<11} {:<6} net {} {} of {} ({:.2} bp) · {}",
        told.at,
        told.id,
        told.kind,
        told.phase,
        told.net,
        told.asset,
        told.spent,
        told.net_ppm as f64 / 100.0,
        legs.join(", "),
    ));
}
