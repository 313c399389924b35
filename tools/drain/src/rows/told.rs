//! Everything but orders: opportunities, denials, rounds, money, levels, venues.
//!
//! Invariant: one record or group, one set of rows; what a venue repeats without a change makes none.
//!
//! Not here: what is kept between records (`projector`), orders and fills (`orders`).

use tandem_core::account::{Balance, BalanceSource, Peer, PeerRole, Session};
use tandem_core::controls::Control;
use tandem_core::detector::Verdict;
use tandem_core::instrument::AssetId;
use tandem_core::ledger::{Pnl, Posting};
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::record::{BookState, Kind, Reason, Record, TradingStatus, Venue};
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_core::round::{NO_CYCLE, RoundReport, Stage};

use super::orders::action_name;
use super::projector::{Projector, int8, px, qty, venue_name};
use super::{Row, Table, Value};
use crate::model::views::denial_code;
use crate::run::RunInfo;

const DAY_NS: i64 = 86_400_000_000_000;

/// A cycle in words: pairs, venues, and the orders in their order.
struct Path {
    pair: String,
    venues: String,
    path: String,
}

impl Path {
    fn of(run: &RunInfo, cycle: u32) -> Option<Path> {
        let cycle = run.cycles.get(usize::try_from(cycle).ok()?)?;
        let (mut pairs, mut venues, mut legs) = (Vec::new(), Vec::new(), Vec::new());
        for edge in cycle.edges() {
            let rules = run.universe.instruments.get(usize::from(edge.instrument()))?;
            let pair = format!("{}/{}", run.asset(rules.base), run.asset(rules.quote));
            let venue = rules.venue.name();
            let symbol = run.symbol(edge.instrument());
            legs.push(format!("{} {symbol} {venue}", action_name(edge.action())));
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
            if !venues.contains(&venue) {
                venues.push(venue);
            }
        }
        Some(Path { pair: pairs.join(" "), venues: venues.join(" "), path: legs.join(", ") })
    }

    fn values(path: Option<Path>) -> [Value; 3] {
        path.map_or([Value::Null, Value::Null, Value::Null], |path| {
            [Value::Text(path.pair), Value::Text(path.venues), Value::Text(path.path)]
        })
    }
}

impl Projector {
    pub(super) fn on_group(
        &mut self,
        run: &RunInfo,
        kind: Kind,
        group: &[Record],
        rows: &mut Vec<Row>,
    ) {
        match kind {
            Kind::Opportunity => {
                if let Some(told) = Opportunity::decode(group) {
                    self.on_opportunity(run, group, &told, rows);
                }
            }
            Kind::Denial => {
                if let (Some(told), Some(head)) = (Denial::decode(group), group.first()) {
                    self.on_denial(run, head, &told, rows);
                }
            }
            _ => {
                if let (Some(told), Some(head)) = (RoundReport::decode(group), group.first()) {
                    self.on_round(run, head, &told, rows);
                }
            }
        }
    }

    /// What every row of an opportunity says, whatever it is told by: all of it follows from its cycle.
    fn opportunity_row(
        &self,
        run: &RunInfo,
        seq: u64,
        cycle: u32,
        (id, first_ns): (i64, i64),
    ) -> Row {
        let known = run.cycles.get(cycle as usize);
        let [pair, venues, path] = match Path::of(run, cycle) {
            None => ["?"; 3].map(Value::text),
            path => Path::values(path),
        };
        Row::empty(Table::Opportunities, seq)
            .with("journal", Value::Uuid(self.journal))
            .with("run", Value::Int8(run.run.into()))
            .with("opportunity", Value::Int8(id))
            .with("first_at", Value::Time(first_ns))
            .with("first_ns", Value::Int8(first_ns))
            .with("seq", int8(seq))
            .with("seq_last", int8(seq))
            .with("kind", Value::text(known.map_or("?", |cycle| cycle.kind.name())))
            .with("cycle", Value::Int8(cycle.into()))
            .with("asset", Value::text(known.map_or("?", |cycle| run.asset(cycle.start))))
            .with("pair", pair)
            .with("venues", venues)
            .with("path", path)
    }

    fn on_opportunity(
        &mut self,
        run: &RunInfo,
        group: &[Record],
        told: &Opportunity,
        rows: &mut Vec<Row>,
    ) {
        let Some(head) = group.first() else { return };
        let amount = |quanta: i64| Value::amount(quanta, run.asset_exponent(told.start));
        let phase = phase_name(told.phase);
        let mut row = self
            .opportunity_row(run, head.seq, told.cycle, (told.id, told.first_ns))
            .with("phase", Value::text(phase))
            .with("best_at", Value::Time(told.best_ns))
            .with("best_ns", Value::Int8(told.best_ns))
            .with("last_at", Value::Time(told.last_ns))
            .with("last_ns", Value::Int8(told.last_ns))
            .with("times", Value::Int8(told.times));
        if told.phase == Phase::After {
            row = row.with("after_net", amount(told.net.0));
        } else {
            row = row
                .with("net", amount(told.net.0))
                .with("spent", amount(told.spent.0))
                .with("brought", amount(told.brought.0))
                .with("gross_ppb", Value::Int8(told.gross_ppb))
                .with("buffers_ppm", Value::Int8(told.buffers_ppm))
                .with("age_ns", Value::Int8(told.age_ns));
        }
        match told.phase {
            Phase::Open | Phase::Update => {
                row = row.with("best", Value::Bool(told.best));
                self.note_open(told.cycle, Some((told.id, told.first_ns)));
            }
            Phase::Close => {
                row = row.with("closed", Value::Bool(true));
                if self.open.get(&told.cycle).is_some_and(|open| open.0 == told.id) {
                    self.note_open(told.cycle, None);
                }
            }
            Phase::After => {}
        }
        rows.push(row);
        let legs = group.get(3..).unwrap_or_default();
        for (idx, (leg, record)) in told.legs().iter().zip(legs).enumerate() {
            let at_book = (leg.recv_ts_ns != 0).then_some(leg.recv_ts_ns);
            let values = vec![
                Value::Uuid(self.journal),
                int8(record.seq),
                Value::Time(told.at_ns),
                Value::Int8(run.run.into()),
                Value::Int8(told.id),
                Value::text(phase),
                Value::Int2(idx as i16),
                Value::text(venue_name(leg.venue)),
                Value::text(run.symbol(leg.instrument)),
                Value::text(if leg.side == 1 { "buy" } else { "sell" }),
                px(run, leg.instrument, leg.px.0),
                qty(run, leg.instrument, leg.qty.0),
                px(run, leg.instrument, leg.best_px.0),
                Value::Int8(leg.levels.into()),
                Value::whole(leg.update_id),
                at_book.map_or(Value::Null, Value::Time),
                at_book.map_or(Value::Null, Value::Int8),
            ];
            rows.push(Row { table: Table::OpportunityLegs, seq: record.seq, values });
        }
    }

    fn on_denial(&mut self, run: &RunInfo, head: &Record, told: &Denial, rows: &mut Vec<Row>) {
        let exponent = run.asset_exponent(told.start);
        let verdict = denial_code(told);
        let has_cycle = told.cycle != NO_CYCLE;
        let mut values = self.head(head);
        values.extend([
            Value::Int8(run.run.into()),
            Value::text(&verdict),
            Value::text(told.kind.name()),
            if has_cycle { Value::Int8(told.cycle.into()) } else { Value::Null },
            Value::text(run.asset(told.start)),
        ]);
        values.extend(Path::values(Path::of(run, told.cycle)));
        values.extend([
            Value::Int8(told.times),
            Value::amount(told.net.0, exponent),
            Value::amount(told.spent.0, exponent),
            Value::Int8(told.gross_ppb),
            Value::Int8(told.buffers_ppm),
            Value::Int8(told.age_ns),
        ]);
        values.extend(match &told.breach {
            None => [const { Value::Null }; 5],
            Some(breach) => {
                let listed = run.instruments.get(usize::from(breach.instrument));
                [
                    Value::Int2(breach.control.into()),
                    listed.map_or(Value::Null, |listed| Value::text(listed.venue.name())),
                    listed.map_or(Value::Null, |listed| Value::text(&listed.symbol)),
                    Value::Int8(breach.observed),
                    Value::Int8(breach.limit),
                ]
            }
        });
        rows.push(Row { table: Table::Denials, seq: head.seq, values });
        // A control that refuses what pays says so of the opportunity that is open.
        if let (Verdict::Control, Some(open)) = (told.verdict, self.open.get(&told.cycle).copied())
        {
            let row = self.opportunity_row(run, head.seq, told.cycle, open);
            let row = row
                .with("denied_by", Value::Text(verdict))
                .with("denied_times", Value::Int8(told.times));
            rows.push(match &told.breach {
                None => row,
                Some(breach) => row
                    .with("denied_observed", Value::Int8(breach.observed))
                    .with("denied_limit", Value::Int8(breach.limit)),
            });
        }
    }

    fn on_round(&mut self, run: &RunInfo, head: &Record, told: &RoundReport, rows: &mut Vec<Row>) {
        let at = self.at(head);
        let amount = |quanta: i64| Value::amount(quanta, run.asset_exponent(told.start));
        let numeraire = run.numeraire.unwrap_or(AssetId(u16::MAX));
        let worth = Value::amount(told.worth.0, run.asset_exponent(numeraire));
        let [pair, venues, _] = Path::values(Path::of(run, told.cycle));
        let kind = run.cycles.get(told.cycle as usize).map(|cycle| cycle.kind.name());
        let mut legs = [0i16; 3];
        for leg in told.legs() {
            let which = if leg.filled == leg.qty { 0 } else { 1 + usize::from(leg.filled.0 == 0) };
            legs[which] += 1;
        }
        let round = || {
            vec![
                Value::Uuid(self.journal),
                Value::Int8(told.run.into()),
                Value::Int8(told.id.cast_signed()),
            ]
        };
        let is_over = told.stage == Stage::Settled;
        let mut values = round();
        values.extend([
            int8(head.seq),
            int8(head.seq),
            if told.cause == 0 { Value::Null } else { int8(told.cause) },
            Value::text(told.stage.name()),
            Value::Bool(told.is_orphan),
            if told.cycle == NO_CYCLE { Value::Null } else { Value::Int8(told.cycle.into()) },
            kind.map_or(Value::Null, Value::text),
            Value::text(run.asset(told.start)),
            pair,
            venues,
            Value::text(run.asset(numeraire)),
            amount(told.expected.0),
            amount(told.realised.0),
            worth.clone(),
            Value::Int8(told.hedges),
            Value::Time(told.opened_ns),
            Value::Int8(told.opened_ns),
            if is_over { Value::Time(at) } else { Value::Null },
            if is_over { Value::Int8(at) } else { Value::Null },
            Value::Int8(told.duration_ns),
            Value::Int2(legs[0]),
            Value::Int2(legs[1]),
            Value::Int2(legs[2]),
        ]);
        rows.push(Row { table: Table::Rounds, seq: head.seq, values });
        let mut values = self.head(head);
        values.extend([
            Value::Int8(told.run.into()),
            Value::Int8(told.id.cast_signed()),
            Value::text(told.stage.name()),
            amount(told.realised.0),
            worth,
            Value::Int8(told.hedges),
            Value::Int8(told.duration_ns),
        ]);
        rows.push(Row { table: Table::RoundStages, seq: head.seq, values });
        for (idx, leg) in told.legs().iter().enumerate() {
            let mut values = round();
            values.extend([
                Value::Int2(idx as i16),
                int8(head.seq),
                int8(head.seq),
                Value::text(venue_name(leg.venue)),
                Value::text(run.symbol(leg.instrument)),
                Value::text(action_name(leg.action)),
                px(run, leg.instrument, leg.px.0),
                qty(run, leg.instrument, leg.qty.0),
                qty(run, leg.instrument, leg.filled.0),
            ]);
            rows.push(Row { table: Table::RoundLegs, seq: head.seq, values });
        }
        // What was taken is no longer only seen.
        let open = self.open.get(&told.cycle).copied();
        if let Some(open) = open.filter(|open| told.cause != 0 && open.0 == told.cause as i64)
            && told.run == run.run
        {
            let row = self.opportunity_row(run, head.seq, told.cycle, open);
            rows.push(row.with("round", Value::Int8(told.id.cast_signed())));
        }
    }

    pub(super) fn on_single(
        &mut self,
        run: &RunInfo,
        kind: Kind,
        record: &Record,
        rows: &mut Vec<Row>,
    ) {
        if is_about_an_order(kind) {
            return self.on_order(run, kind, record, rows);
        }
        match kind {
            Kind::Balance => self.on_balance(run, record, rows),
            Kind::Ledger => self.on_posting(run, record, rows),
            Kind::Pnl => self.on_pnl(run, record, rows),
            Kind::Levels
            | Kind::Command
            | Kind::ControlLevel
            | Kind::Reconciled
            | Kind::Restore => {
                self.on_act(run, kind, record, rows);
            }
            _ => self.on_venue(run, kind, record, rows),
        }
    }

    fn on_balance(&mut self, run: &RunInfo, record: &Record, rows: &mut Vec<Row>) {
        let Some(told) = Balance::read(record) else { return };
        let exponent = run.asset_exponent(AssetId(told.asset));
        let mut values = self.head(record);
        values.extend([
            Value::text(told.venue.name()),
            Value::text(run.asset(AssetId(told.asset))),
            Value::amount(told.total.0, exponent),
            Value::amount(told.held.0, exponent),
            Value::text(match told.source {
                BalanceSource::Snapshot => "snapshot",
                BalanceSource::Stream => "stream",
                BalanceSource::Opening => "opening",
            }),
        ]);
        rows.push(Row { table: Table::Balances, seq: record.seq, values });
    }

    fn on_posting(&mut self, run: &RunInfo, record: &Record, rows: &mut Vec<Row>) {
        let Some(told) = Posting::read(record) else { return };
        let exponent = run.asset_exponent(told.asset);
        let (venue, asset) = (told.venue.map(Venue::name), run.asset(told.asset));
        let mut values = self.head(record);
        values.extend([
            Value::Int8(run.run.into()),
            if told.run == 0 { Value::Null } else { Value::Int8(told.key.0) },
            venue.map_or(Value::Null, Value::text),
            Value::text(asset),
            Value::amount(told.delta.0, exponent),
            Value::amount(told.after.0, exponent),
            Value::text(told.tag.name()),
        ]);
        rows.push(Row { table: Table::Ledger, seq: record.seq, values });
        let values = vec![
            Value::Uuid(self.journal),
            day(self.at(record).div_euclid(DAY_NS)),
            // Dust is nobody's: it moves no venue's balance.
            Value::text(venue.unwrap_or("none")),
            Value::text(asset),
            Value::text(told.tag.name()),
            int8(record.seq),
            int8(record.seq),
            Value::amount(told.delta.0, exponent),
            Value::Int8(1),
        ];
        rows.push(Row { table: Table::PnlVenueDay, seq: record.seq, values });
    }

    fn on_pnl(&mut self, run: &RunInfo, record: &Record, rows: &mut Vec<Row>) {
        let Some(told) = Pnl::read(record) else { return };
        let asset = AssetId(record.asset);
        let amount = |quanta: i64| Value::amount(quanta, run.asset_exponent(asset));
        let values = vec![
            Value::Uuid(self.journal),
            day(told.day),
            Value::text(run.asset(asset)),
            int8(record.seq),
            int8(record.seq),
            amount(told.realised),
            amount(told.marked),
            amount(told.peak),
            int8(told.rounds),
            Value::Time(self.at(record)),
        ];
        rows.push(Row { table: Table::PnlDay, seq: record.seq, values });
    }

    /// A row of the audit whose details are its words alone.
    pub(super) fn audit_row(&self, seq: u64, at: i64, kind: &str, what: &str) -> Row {
        Row::empty(Table::Audit, seq)
            .with("journal", Value::Uuid(self.journal))
            .with("seq", int8(seq))
            .with("at", Value::Time(at))
            .with("at_ns", Value::Int8(at))
            .with("kind", Value::text(kind))
            .with("what", Value::text(what))
    }

    fn on_act(&mut self, run: &RunInfo, kind: Kind, record: &Record, rows: &mut Vec<Row>) {
        let [a, b, c, d] = record.data;
        let audit =
            |kind: &str, what: &str| self.audit_row(record.seq, self.at(record), kind, what);
        let details = |pairs: serde_json::Value| Value::Json(pairs.to_string());
        let row = match kind {
            Kind::Levels => {
                let is_new = self.words.level != Some(a);
                let word = LevelWord(a.cast_unsigned());
                let row = audit("level", word.of(Scope::Global).name());
                self.words.level = Some(a);
                if !is_new {
                    return;
                }
                let venues: serde_json::Map<_, _> = Venue::ALL
                    .iter()
                    .map(|v| (v.name().to_owned(), word.of(Scope::Venue(*v)).name().into()))
                    .collect();
                row.with(
                    "cause",
                    word.cause().map_or(Value::Null, |cause| Value::text(cause.name())),
                )
                .with(
                    "details",
                    details(serde_json::json!({ "venues": venues, "epoch": word.epoch() })),
                )
            }
            Kind::Command => {
                let what = match a {
                    1 => "halt",
                    2 => "release",
                    3 => "cancel_all",
                    4 => "adjust",
                    _ => "unknown",
                };
                let row = audit("command", what).with("value", Value::Int8(b));
                row.with("details", details(serde_json::json!({
                    "command": a, "argument": b.to_string(), "asset": run.asset(AssetId(record.asset)),
                })))
            }
            Kind::ControlLevel => {
                let level = u8::try_from(a).map_or(Level::Kill, Level::from_tag);
                let cause = match record.instrument {
                    // An instrument's halt carries the control, or the verdict, behind it.
                    u16::MAX => u8::try_from(b).ok().and_then(Cause::from_tag).map(Cause::name),
                    _ => u8::try_from(b.saturating_sub(64))
                        .ok()
                        .and_then(Control::from_tag)
                        .map(Control::name),
                };
                audit("raised", level.name())
                    .with("cause", cause.map_or(Value::Null, Value::text))
                    .with("value", Value::Int8(d))
                    .with("details", details(serde_json::json!({ "reason": b, "control": c, "evidence": d.to_string() })))
            }
            Kind::Reconciled => audit("reconciled", if d == 0 { "agrees" } else { "differs" })
                .with("value", Value::Int8(d))
                .with(
                    "details",
                    details(serde_json::json!({
                        "open_ours": a, "open_foreign": b, "fills_added": c, "differences": d,
                    })),
                ),
            _ => {
                let what = Kind::from_tag(record.part)
                    .map_or("unknown".to_owned(), |kind| format!("{kind:?}").to_lowercase());
                audit("restored", &what)
            }
        };
        let venue = Venue::from_tag(record.venue).map(Venue::name);
        let row = row.with("venue", venue.map_or(Value::Null, Value::text));
        rows.push(row.with("symbol", symbol(run, record.instrument)));
    }

    pub(super) fn on_book_state(&mut self, run: &RunInfo, record: &Record, rows: &mut Vec<Row>) {
        if self.note_book_state(record) {
            let row = self.event_row(run, record, "book", book_state_name(record.data[0]));
            rows.push(row.with("reason", reason(record.data[1])));
        }
    }

    fn event_row(&self, run: &RunInfo, record: &Record, kind: &str, what: &str) -> Row {
        let at = self.at(record);
        let venue = Venue::from_tag(record.venue).map(Venue::name);
        Row::empty(Table::VenueEvents, record.seq)
            .with("journal", Value::Uuid(self.journal))
            .with("seq", int8(record.seq))
            .with("at", Value::Time(at))
            .with("at_ns", Value::Int8(at))
            .with("venue", venue.map_or(Value::Null, Value::text))
            .with("symbol", symbol(run, record.instrument))
            .with("kind", Value::text(kind))
            .with("what", Value::text(what))
    }

    fn on_venue(&mut self, run: &RunInfo, kind: Kind, record: &Record, rows: &mut Vec<Row>) {
        let [a, b, c, d] = record.data;
        let (venue, instrument) = (i64::from(record.venue), i64::from(record.instrument));
        let event = |what: &str, kind: &str| self.event_row(run, record, kind, what);
        let row = match kind {
            Kind::Status => event(status_name(a), "status"),
            Kind::Session => {
                let Some(told) = Session::read(record) else { return };
                let row = event(told.state.name(), "session").with("code", Value::Int8(told.code));
                if self.words.sessions.insert(venue, [a, b]) == Some([a, b]) {
                    return;
                }
                row
            }
            Kind::Peer => {
                let Some(told) = Peer::read(record) else { return };
                let role = match told.role {
                    PeerRole::Engine => "engine",
                    PeerRole::Gateway => "gateway",
                    PeerRole::Warden => "warden",
                };
                let row = event(if told.alive { "alive" } else { "dead" }, "process");
                let row = row.with("reason", Value::text(role)).with("code", Value::Int8(d));
                if self.words.peers.insert(a << 8 | venue, [b, d]) == Some([b, d]) {
                    return;
                }
                row
            }
            Kind::ClockState => {
                let row = event(if c == 1 { "synchronised" } else { "in doubt" }, "clock");
                if self.words.clock.replace(c) == Some(c) {
                    return;
                }
                row.with("value", Value::Int8(a))
            }
            Kind::InstrumentChange => {
                let row = event(status_name(a), "rules").with("value", Value::Int8(b));
                let is_known = usize::from(record.instrument) < run.instruments.len();
                if !is_known
                    || self.words.rules.insert(instrument, [a, b, c, d]) == Some([a, b, c, d])
                {
                    return;
                }
                row
            }
            Kind::Fee => {
                let row = event("taker_ppm", "fee").with("value", Value::Int8(a));
                let is_known = usize::from(record.instrument) < run.instruments.len();
                if !is_known || self.words.fees.insert(instrument, [a, b]) == Some([a, b]) {
                    return;
                }
                row
            }
            Kind::Gap => {
                event("records lost", "gap").with("reason", reason(a)).with("value", Value::Int8(d))
            }
            Kind::ForeignOrder => event("not ours", "foreign_order").with("value", Value::Int8(d)),
            // Ticks of clocks and what the market did: nothing to keep but the samples.
            _ => return,
        };
        rows.push(row);
    }
}

const fn is_about_an_order(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::OrderNew
            | Kind::OrderCancel
            | Kind::OrderQuery
            | Kind::OrderSent
            | Kind::OrderAck
            | Kind::OrderFill
            | Kind::OrderTotals
            | Kind::OrderDone
            | Kind::OrderReject
            | Kind::OrderUnknown
            | Kind::CancelReject
            | Kind::OrderBust
    )
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "open",
        Phase::Update => "update",
        Phase::Close => "close",
        Phase::After => "after",
    }
}

/// Returns the name of a trading status; doubt is a halt.
pub(super) fn status_name(tag: i64) -> &'static str {
    match TradingStatus::from_tag(tag) {
        Some(TradingStatus::Trading) => "trading",
        Some(TradingStatus::CancelOnly) => "cancel_only",
        Some(TradingStatus::PostOnly) => "post_only",
        Some(TradingStatus::Halted) | None => "halted",
    }
}

/// Returns the name of a book's state.
pub(super) fn book_state_name(tag: i64) -> &'static str {
    BookState::from_tag(tag).map_or("?", BookState::name)
}

fn reason(tag: i64) -> Value {
    Reason::from_tag(tag).map_or(Value::Null, |reason| Value::Text(snake(&format!("{reason:?}"))))
}

/// A name in words as a database spells them.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn symbol(run: &RunInfo, instrument: u16) -> Value {
    let found = run.instruments.get(usize::from(instrument));
    found.map_or(Value::Null, |found| Value::text(&found.symbol))
}

fn day(days: i64) -> Value {
    // A day that no calendar has is one that no table has either: it is put at the ends of ours.
    Value::Date(days.clamp(-700_000, 2_000_000) as i32)
}
