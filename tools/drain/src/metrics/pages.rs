//! What processes show of themselves: stats pages, the control page, `/proc`, the journal's fill.
//!
//! Invariant: everything is read; nothing of a page is believed beyond its being a number. A process that is
//! not there has no series, so a query tells "0" from "nobody says".
//!
//! Not here: what the journal's records say (`tally`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tandem_core::level::{Cause, Level, Scope};
use tandem_core::record::Venue;
use tandem_feeds::tile::metric as feed;
use tandem_gateway::guard::GuardReason;
use tandem_gateway::stats::metric as gateway;
use tandem_gateway::warden::Verdict;
use tandem_shm::{ControlView, Snapshot, free_bytes};

use super::family::{Distribution, Family};
use crate::plan::{Plan, Seen};
use crate::source::{Life, Look, Page};
use crate::status::{SinkLook, WRITE_BUCKETS_NS};

/// Bytes of a record in the journal.
const RECORD_BYTES: u64 = 128;
/// A feed's turn that takes longer is a stall, ns; the engine counts its own by the same bound.
const STALL_NS: u64 = 200_000;
/// `/proc` counts time in hundredths of a second for everybody.
const TICKS_PER_S: f64 = 100.0;
/// The classic buckets of a sink's write.
const WRITE_BUCKETS: [(u64, &str); WRITE_BUCKETS_NS.len()] = [
    (WRITE_BUCKETS_NS[0], "0.0001"),
    (WRITE_BUCKETS_NS[1], "0.0003"),
    (WRITE_BUCKETS_NS[2], "0.001"),
    (WRITE_BUCKETS_NS[3], "0.003"),
    (WRITE_BUCKETS_NS[4], "0.01"),
    (WRITE_BUCKETS_NS[5], "0.03"),
    (WRITE_BUCKETS_NS[6], "0.1"),
    (WRITE_BUCKETS_NS[7], "0.3"),
    (WRITE_BUCKETS_NS[8], "1.0"),
    (WRITE_BUCKETS_NS[9], "3.0"),
    (WRITE_BUCKETS_NS[10], "10.0"),
    (WRITE_BUCKETS_NS[11], "30.0"),
    (WRITE_BUCKETS_NS[12], "100.0"),
];

/// A counter of a page: its name there, and as told.
type Told = (&'static str, &'static str, &'static str);

const FEED_COUNTERS: [Told; 12] = [
    (feed::MESSAGES, "feed_messages_total", "Messages received."),
    (feed::BYTES, "feed_bytes_total", "Their bytes."),
    (feed::GAPS, "feed_gaps_total", "Sequence gaps."),
    (feed::MALFORMED, "feed_malformed_total", "Messages that could not be read."),
    (feed::CHECKSUM_BAD, "feed_checksums_bad_total", "Checksums that did not match."),
    (feed::CONNECTS, "feed_connects_total", "Connections opened."),
    (feed::DISCONNECTS, "feed_disconnects_total", "Connections lost."),
    (feed::REQUESTS, "feed_requests_total", "REST requests."),
    (feed::REQUESTS_FAILED, "feed_requests_failed_total", "REST requests that failed."),
    (feed::TAKEOVERS, "feed_takeovers_total", "Live books that went over to the other connection."),
    (feed::DISAGREEMENTS, "feed_disagreements_total", "Times that two connections disagreed."),
    (feed::UNCONFIRMED, "feed_unconfirmed_total", "Batches confirmed by one connection only."),
];

const GATEWAY_COUNTERS: [Told; 11] = [
    (gateway::SENT, "orders_sent_total", "New orders that were sent."),
    (gateway::ACKS, "orders_acked_total", "Orders that the venue accepted."),
    (gateway::DUPLICATES, "fills_duplicate_total", "Fills that came again."),
    (gateway::NEVER_ACCEPTED, "orders_never_accepted_total", "Orders proven never to have been."),
    (
        gateway::UNKNOWN_CODES,
        "gateway_replies_uncertain_total",
        "Replies that say nothing certain.",
    ),
    (gateway::CANCELS, "cancels_sent_total", "Cancels sent."),
    (gateway::CANCEL_REJECTS, "cancels_rejected_total", "Cancels refused."),
    (gateway::QUERIES, "queries_sent_total", "Questions about orders."),
    (gateway::DISCONNECTS, "gateway_disconnects_total", "Connections lost."),
    (gateway::SUSPENSIONS, "gateway_suspensions_total", "Times that the venue told us to wait."),
    (gateway::RECONCILIATIONS, "reconciliations_total", "Reconciliations."),
];

/// Names on the engine's page, which the binary owns; a test of it holds that they are there.
const ENGINE_COUNTERS: [Told; 7] = [
    ("engine_record_total", "engine_records_total", "Records consumed."),
    ("engine_batch_total", "engine_batches_total", "Batches decided."),
    ("engine_evaluation_total", "engine_evaluations_total", "Candidates walked exactly."),
    ("engine_rejected_total", "engine_rejected_total", "Records that made no sense."),
    ("engine_halt_total", "instrument_halts_total", "Instruments halted for an unbelievable edge."),
    ("engine_journal_full_total", "journal_full_total", "Turns without room in the journal."),
    ("engine_output_lost_total", "journal_outputs_lost_total", "Outputs missing in the journal."),
];

const ENGINE_GAUGES: [Told; 4] = [
    ("engine_opportunity_open_count", "opportunities_open", "Opportunities open now."),
    ("engine_round_open_count", "rounds_open", "Rounds under way."),
    ("engine_order_open_count", "orders_open", "Orders without an end."),
    (
        "engine_balance_differing_count",
        "ledger_balances_differing",
        "Balances unlike the venue's word.",
    ),
];

/// Stages: name on the page, and as told.
const FEED_STAGES: [(&str, &str); 3] = [
    (feed::KERNEL_NS, "feed_kernel"),
    (feed::DECODE_NS, "feed_decode"),
    (feed::TURN_NS, "feed_turn"),
];
const ENGINE_STAGES: [(&str, &str); 4] = [
    ("engine_ring_ns", "engine_ring"),
    ("engine_detect_ns", "engine_detect"),
    ("engine_wire_to_decision_ns", "wire_to_decision"),
    ("engine_kernel_to_decision_ns", "kernel_to_decision"),
];
const GATEWAY_STAGES: [(&str, &str); 2] =
    [(gateway::TICK_TO_ORDER, "tick_to_order"), (gateway::RING_TO_SOCKET, "ring_to_socket")];

const LIMITS: [&str; 11] = [
    "exposure",
    "exposure_binance",
    "exposure_coinbase",
    "exposure_kraken",
    "open_orders",
    "unknown_orders",
    "rounds",
    "loss_day",
    "loss_5min",
    "drawdown",
    "dust",
];

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Process {
    cpu_s: f64,
    resident: u64,
    major_faults: u64,
    voluntary: u64,
    involuntary: u64,
}

/// What stalled a loop, told apart by what the process's own counters did meanwhile.
#[derive(Clone, Copy, Debug, Default)]
struct Stalls {
    seen: u64,
    before: Process,
    /// Preempted, faulted, busy.
    causes: [u64; 3],
}

/// Follows the pages.
pub struct Pages {
    plan: Plan,
    pages: Vec<Page>,
    control: Option<ControlView>,
    budget_most: BTreeMap<Venue, i64>,
    stalls: BTreeMap<String, Stalls>,
}

impl Pages {
    /// Begins to follow; nothing needs to be there yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Pages {
        let mut names = vec![plan.names.engine_stats.clone(), plan.names.warden_stats.clone()];
        for venue in &plan.venues {
            names.push(tandem_gateway::tile::stats_name(*venue));
            names.push(tandem_feeds::tile::stats_name(venue.name()));
        }
        Pages {
            plan: plan.clone(),
            pages: names.into_iter().map(Page::named).collect(),
            control: None,
            budget_most: BTreeMap::new(),
            stalls: BTreeMap::new(),
        }
    }

    fn page(&self, name: &str) -> Option<Snapshot> {
        self.pages.iter().find(|page| page.name == name)?.snapshot()
    }

    /// Adds all of it.
    pub fn families(&mut self, look: &Look, out: &mut Vec<Family>) {
        let dir = self.plan.dir.clone();
        self.pages.iter_mut().for_each(|page| page.follow(&dir));
        if self.plan.trades && self.control.is_none() {
            self.control = ControlView::open(&dir).ok();
        }
        let by_venue = |name: &dyn Fn(Venue) -> String| -> Vec<(Venue, Snapshot)> {
            let found = |venue: &Venue| Some((*venue, self.page(&name(*venue))?));
            self.plan.venues.iter().filter_map(found).collect()
        };
        let feeds = by_venue(&|venue| tandem_feeds::tile::stats_name(venue.name()));
        let gateways = by_venue(&tandem_gateway::tile::stats_name);
        let engine = self.page(&self.plan.names.engine_stats);
        self.levels(look, out);
        counters(&feeds, &FEED_COUNTERS, out);
        counters(&gateways, &GATEWAY_COUNTERS, out);
        of_gateways(&gateways, &mut self.budget_most, out);
        if let Some(engine) = &engine {
            of_engine(engine, &self.plan.venues, out);
        }
        rings(&feeds, &gateways, engine.as_ref(), out);
        stages(&feeds, &gateways, engine.as_ref(), out);
        self.processes(look, &feeds, engine.as_ref(), out);
        self.journal(look, out);
    }

    fn levels(&self, look: &Look, out: &mut Vec<Family>) {
        let Some(word) = look.level else { return };
        let help =
            "Level: 0 ARMED, 1 PAUSE, 2 REDUCE, 3 HALT, 4 KILL; of a venue, the effective one.";
        let mut level = Family::gauge("trading_level", help);
        level.push(&[("scope", "global")], f64::from(word.of(Scope::Global) as u8));
        for venue in &self.plan.venues {
            level.push(&[("scope", venue.name())], f64::from(word.effective(*venue) as u8));
        }
        let help = "What raised the level last; 1 for the one that did.";
        let mut cause = Family::gauge("trading_level_cause", help);
        for of in Cause::ALL {
            let is_it = word.cause() == Some(of);
            cause.push(&[("reason", of.name())], f64::from(u8::from(is_it)));
        }
        let help = "Counts the kills; orders of an earlier epoch do not leave.";
        let epoch = Family::gauge("kill_epoch", help).with(&[], f64::from(word.epoch()));
        out.extend([level, cause, epoch]);
        if !self.plan.is_live {
            return;
        }
        let help = "1 while the venue is killed and it is not proven that nothing is open.";
        let mut unproven = Family::gauge("kill_unproven", help);
        for venue in &self.plan.venues {
            let is_killed = word.effective(*venue) == Level::Kill;
            let is_clean = look.verdicts.get(venue) == Some(&Verdict::Clean);
            let labels = [("venue", venue.name())];
            unproven.push(&labels, f64::from(u8::from(is_killed && !is_clean)));
        }
        out.push(unproven);
    }

    fn processes(
        &mut self,
        look: &Look,
        feeds: &[(Venue, Snapshot)],
        engine: Option<&Snapshot>,
        out: &mut Vec<Family>,
    ) {
        let mut up = Family::gauge("process_up", "1 while the process lives and beats.");
        let mut generation =
            Family::gauge("process_generation", "Which one of its kind it is, from the first.");
        let mut beat = Family::gauge("process_heartbeat_age_seconds", "Since its last beat.");
        let mut cpu = Family::counter("process_cpu_seconds_total", "Processor time.");
        let mut resident = Family::gauge("process_resident_memory_bytes", "Memory in use.");
        let mut faults = Family::counter("process_major_faults_total", "Faults that read a disk.");
        let help = "Times that it gave the processor away (voluntary) or lost it.";
        let mut switches = Family::counter("process_switches_total", help);
        let mut stalls =
            Family::counter("loop_stalls_total", "Turns of a loop that took longer than 200 us.");
        let parts: Vec<_> = self.plan.parts.iter().map(|part| part.name.clone()).collect();
        for (part, life) in self.plan.parts.clone().iter().zip(&look.parts) {
            let labels = [("process", part.name.as_str())];
            up.push(&labels, f64::from(u8::from(life.life == Life::Alive)));
            generation.push(&labels, life.generation as f64);
            let row = match (&part.seen, &self.control) {
                (Seen::Row(row), Some(control)) => Some(control.row(*row)),
                _ => None,
            };
            if let Some(row) = row.filter(|row| row.beat_ns != 0) {
                let age_ns = look.now_ns.saturating_sub(row.beat_ns as i64).max(0);
                beat.push(&labels, age_ns as f64 / 1e9);
            }
            let told = |name: &str| self.pages.iter().find(|page| page.name == name)?.pid();
            let pid = match &part.seen {
                Seen::Row(_) => row.map(|row| u64::from(row.pid)).filter(|pid| *pid != 0),
                Seen::Stats(name) => told(name),
            };
            let alive = life.life == Life::Alive;
            let Some(now) = pid.filter(|_| alive).and_then(process) else { continue };
            cpu.push(&labels, now.cpu_s);
            resident.push(&labels, now.resident as f64);
            faults.push(&labels, now.major_faults as f64);
            for (kind, times) in [("voluntary", now.voluntary), ("involuntary", now.involuntary)] {
                let [process] = labels;
                switches.push(&[process, ("kind", kind)], times as f64);
            }
            let long = match part.name.as_str() {
                "engine" => engine.and_then(|engine| engine.counter("engine_stall_total")),
                name => feeds
                    .iter()
                    .find(|(venue, _)| name.strip_prefix("feed ") == Some(venue.name()))
                    .and_then(|(_, feed)| Some(long_turns(feed.histogram(feed::TURN_NS)?))),
            };
            if let Some(long) = long {
                let known = self.stalls.entry(part.name.clone());
                let known = known.or_insert(Stalls { seen: long, before: now, causes: [0; 3] });
                known.attribute(long, now);
                let [process] = labels;
                let causes = ["preempted", "fault", "busy"];
                for (cause, times) in causes.into_iter().zip(known.causes) {
                    stalls.push(&[process, ("cause", cause)], times as f64);
                }
            }
        }
        self.stalls.retain(|name, _| parts.contains(name));
        if let Some(own) = process(u64::from(std::process::id())) {
            let labels = [("process", "drain")];
            up.push(&labels, 1.0);
            cpu.push(&labels, own.cpu_s);
            resident.push(&labels, own.resident as f64);
        }
        let warden = beat.samples.iter().find(|sample| sample.labels[0].1 == "warden").cloned();
        if let Some(mut sample) = warden {
            sample.labels.clear();
            let help = "Since the warden's last beat.";
            let mut family = Family::gauge("warden_heartbeat_age_seconds", help);
            family.samples.push(sample);
            out.push(family);
        }
        out.extend([up, generation, beat, cpu, resident, faults, switches, stalls]);
        let mut host = Family::gauge("host_load1", "Load of the host over a minute.");
        if let Some(load) = load() {
            host.push(&[], load);
        }
        let mut free = Family::gauge("shm_free_bytes", "Free in the run's file system.");
        if let Ok(bytes) = free_bytes(&self.plan.dir) {
            free.push(&[], bytes as f64);
        }
        out.extend([host, free]);
    }

    fn journal(&self, look: &Look, out: &mut Vec<Family>) {
        let bytes = |records: u64| records.saturating_mul(RECORD_BYTES) as f64;
        let journal = &look.journal;
        let help = "Room that is left in the journal's segments.";
        out.push(Family::gauge("journal_free_bytes", help).with(&[], bytes(journal.room)));
        let help = "Room of all segments of the journal.";
        out.push(Family::gauge("journal_capacity_bytes", help).with(&[], bytes(journal.capacity)));
        if let Some(per_s) = journal.per_s {
            let help = "What the engine writes, over the last ten seconds.";
            let rate = Family::gauge("journal_bytes_per_second", help);
            out.push(rate.with(&[], bytes(per_s)));
        }
        let help = "Written and not read, or not made durable, by each reader of the journal.";
        let lag = Family::gauge("journal_cursor_lag_bytes", help);
        out.push(lag.with(&[("sink", "drain")], bytes(journal.lag)));
    }
}

impl Stalls {
    /// Gives what is new to a cause: who lost the processor meanwhile was preempted.
    fn attribute(&mut self, seen: u64, now: Process) {
        // A page of a new process begins at 0.
        let new = seen.checked_sub(self.seen).unwrap_or(seen);
        let cause = match (now.involuntary != self.before.involuntary, now.major_faults) {
            (_, faults) if faults != self.before.major_faults => 1,
            (true, _) => 0,
            (false, _) => 2,
        };
        self.causes[cause] += new;
        (self.seen, self.before) = (seen, now);
    }
}

/// Turns that were longer than a stall, for certain.
pub(crate) fn long_turns(turns: &tandem_shm::HistogramSnapshot) -> u64 {
    turns.buckets().filter(|(least, ..)| STALL_NS < *least).map(|(_, _, count)| count).sum()
}

fn process(pid: u64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Process {
        cpu_s: (number(11)? + number(12)?) as f64 / TICKS_PER_S,
        resident: line("VmRSS:").unwrap_or(0) << 10,
        major_faults: number(9)?,
        voluntary: line("voluntary_ctxt_switches:").unwrap_or(0),
        involuntary: line("nonvoluntary_ctxt_switches:").unwrap_or(0),
    })
}

fn load() -> Option<f64> {
    let text = fs::read_to_string(Path::new("/proc/loadavg")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn counters(of: &[(Venue, Snapshot)], told: &[Told], out: &mut Vec<Family>) {
    for (name, as_told, help) in told {
        let mut family = Family::counter(as_told, help);
        for (venue, stats) in of {
            if let Some(count) = stats.counter(name) {
                family.push(&[("venue", venue.name())], count as f64);
            }
        }
        out.push(family);
    }
}

fn of_gateways(
    gateways: &[(Venue, Snapshot)],
    most: &mut BTreeMap<Venue, i64>,
    out: &mut Vec<Family>,
) {
    let mut live = Family::gauge("orders_in_flight", "Orders that the gateway waits for.");
    let mut others =
        Family::gauge("foreign_orders_open", "Open orders that are not ours, as seen.");
    let help = "Used part of the venue's budget for new orders; 1 is all of it.";
    let mut used = Family::gauge("rate_limit_used_ratio", help);
    let help = "From an order's bytes at the socket to the venue's reply.";
    let mut reply = Family::histogram("order_ack_seconds", help);
    let mut denied = Family::counter(
        "order_denied_total",
        "Orders that a control, or a gateway's guard, refused.",
    );
    for (venue, stats) in gateways {
        let labels = [("venue", venue.name())];
        let pairs = [(gateway::LIVE, &mut live), (gateway::FOREIGN_OPEN, &mut others)];
        for (name, family) in pairs {
            if let Some(value) = stats.gauge(name) {
                family.push(&labels, value as f64);
            }
        }
        if let Some(left) = stats.gauge(gateway::BUDGET) {
            // What was left at its most is what there is: an unused budget is full after seconds.
            let most = most.entry(*venue).or_insert(0);
            *most = (*most).max(left);
            if 0 < *most {
                used.push(&labels, 1.0 - left.clamp(0, *most) as f64 / *most as f64);
            }
        }
        if let Some(histogram) = stats.histogram(gateway::REPLY) {
            reply.push_distribution(&labels, Distribution::of(histogram));
        }
        for reason in GuardReason::ALL {
            let name = format!("gateway_guard_denied_{}_total", reason.name());
            if let Some(count) = stats.counter(&name) {
                let [venue] = labels;
                let labels = [venue, ("stage", "guard"), ("code", reason.name())];
                denied.push(&labels, count as f64);
            }
        }
    }
    out.extend([live, others, used, reply, denied]);
}

fn of_engine(engine: &Snapshot, venues: &[Venue], out: &mut Vec<Family>) {
    for (name, as_told, help) in ENGINE_COUNTERS {
        if let Some(count) = engine.counter(name) {
            out.push(Family::counter(as_told, help).with(&[], count as f64));
        }
    }
    for (name, as_told, help) in ENGINE_GAUGES {
        if let Some(value) = engine.gauge(name) {
            out.push(Family::gauge(as_told, help).with(&[], value as f64));
        }
    }
    let help = "Worst-case exposure in the numeraire; no series while it cannot be valued.";
    let mut exposure = Family::gauge("exposure_usd", help);
    let scopes = venues
        .iter()
        .map(|venue| (venue.name(), format!("engine_exposure_{}_micro", venue.name())));
    let scopes = std::iter::once(("global", "engine_exposure_micro".to_owned())).chain(scopes);
    for (scope, name) in scopes {
        if let Some(micro) = engine.gauge(&name).filter(|micro| 0 <= *micro) {
            exposure.push(&[("scope", scope)], micro as f64 / 1e6);
        }
    }
    let help =
        "Result of the UTC day in the numeraire: of settled rounds, and of all flows as marked.";
    let mut pnl = Family::gauge("pnl_usd", help);
    for kind in ["realised", "marked"] {
        if let Some(micro) = engine.gauge(&format!("engine_pnl_{kind}_micro")) {
            pnl.push(&[("kind", kind)], micro as f64 / 1e6);
        }
    }
    let help = "What is left of a limit: 1 all of it, 0 none, below 0 it is broken.";
    let mut headroom = Family::gauge("limit_headroom_ratio", help);
    for limit in LIMITS {
        let used = engine.gauge(&format!("engine_limit_{limit}_ppm"));
        if let Some(ppm) = used.filter(|ppm| 0 <= *ppm) {
            headroom.push(&[("limit", limit)], 1.0 - ppm as f64 / 1e6);
        }
    }
    out.extend([exposure, pnl, headroom]);
}

fn rings(
    feeds: &[(Venue, Snapshot)],
    gateways: &[(Venue, Snapshot)],
    engine: Option<&Snapshot>,
    out: &mut Vec<Family>,
) {
    let mut published = Family::counter("ring_published_total", "Records put into a ring.");
    let mut laps = Family::counter("ring_laps_total", "Times that a ring overran its reader.");
    let help = "Records in a ring that its reader had not taken at its last look.";
    let mut depth = Family::gauge("ring_depth", help);
    for (venue, stats) in feeds {
        let ring = tandem_feeds::tile::ring_name(venue.name());
        let labels = [("ring", ring.as_str()), ("venue", venue.name())];
        if let Some(count) = stats.counter(feed::RECORDS) {
            published.push(&labels, count as f64);
        }
        let gauge =
            |what: &str| engine?.gauge(&format!("engine_ring_{what}_{}_count", venue.name()));
        if let Some(count) = gauge("overrun") {
            laps.push(&labels, count as f64);
        }
        if let Some(count) = gauge("depth") {
            depth.push(&labels, count as f64);
        }
    }
    for (venue, stats) in gateways {
        let ring = format!("{}_gateway", venue.name());
        if let Some(count) = stats.counter(gateway::RECORDS) {
            published.push(&[("ring", &ring), ("venue", venue.name())], count as f64);
        }
    }
    out.extend([published, laps, depth]);
}

fn stages(
    feeds: &[(Venue, Snapshot)],
    gateways: &[(Venue, Snapshot)],
    engine: Option<&Snapshot>,
    out: &mut Vec<Family>,
) {
    let mut family =
        Family::histogram("stage_latency_seconds", "Time of each stage of an order's way.");
    let pages = feeds.iter().map(|(venue, stats)| (Some(*venue), stats, &FEED_STAGES[..]));
    let pages = pages.chain(engine.map(|stats| (None, stats, &ENGINE_STAGES[..])));
    let orders = gateways.iter().map(|(venue, stats)| (Some(*venue), stats, &GATEWAY_STAGES[..]));
    for (venue, stats, stages) in pages.chain(orders) {
        for (name, stage) in stages {
            let Some(histogram) = stats.histogram(name) else { continue };
            let distribution = Distribution::of(histogram);
            match venue {
                Some(venue) => {
                    let labels = [("stage", *stage), ("venue", venue.name())];
                    family.push_distribution(&labels, distribution);
                }
                None => family.push_distribution(&[("stage", stage)], distribution),
            }
        }
    }
    out.push(family);
}

/// Adds what the drain's sinks tell of themselves.
pub fn sinks(sinks: &[SinkLook], look: &Look, out: &mut Vec<Family>) {
    let mut up = Family::gauge("sink_up", "1 while the sink's other side answers.");
    let mut backlog =
        Family::gauge("db_backlog_rows", "Rows that a sink holds and has not written.");
    let mut writes = Family::histogram("db_write_seconds", "Duration of a sink's writes.");
    let mut rows = Family::counter("sink_rows_total", "Rows or messages that a sink has written.");
    let mut errors = Family::counter("sink_errors_total", "Failures of a sink.");
    let mut dead = Family::counter("sink_dead_letters_total", "Rows that were put aside for good.");
    let help = "Values that a newer one replaced before they were sent.";
    let mut conflated = Family::counter("sink_conflated_total", help);
    let mut last = Family::gauge("sink_last_success_age_seconds", "Since a sink last succeeded.");
    let mut behind = Family::gauge("sink_lag_records", "Records that a sink has not made durable.");
    for sink in sinks {
        let labels = [("sink", sink.name)];
        up.push(&labels, f64::from(u8::from(sink.up)));
        backlog.push(&labels, sink.backlog_rows as f64);
        rows.push(&labels, sink.written_rows as f64);
        errors.push(&labels, sink.errors as f64);
        dead.push(&labels, sink.dead_letters as f64);
        conflated.push(&labels, sink.conflated as f64);
        behind.push(&labels, sink.lag_records as f64);
        if sink.last_ok_ns != 0 {
            let age_ns = look.now_ns.saturating_sub(sink.last_ok_ns).max(0);
            last.push(&labels, age_ns as f64 / 1e9);
        }
        let bounds = WRITE_BUCKETS_NS.iter().copied().chain([u64::MAX]).zip(sink.writes);
        let distribution = Distribution {
            buckets: bounds.map(|(bound, count)| (bound, bound, count)).collect(),
            sum_ns: sink.writes_sum_ns,
            bounds: &WRITE_BUCKETS,
            is_fine: false,
        };
        writes.push_distribution(&labels, distribution);
        let lag = out.iter_mut().find(|family| family.name == "journal_cursor_lag_bytes");
        if let Some(lag) = lag {
            lag.push(&labels, sink.lag_bytes as f64);
        }
    }
    out.extend([up, backlog, writes, rows, errors, dead, conflated, last, behind]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_goes_to_what_happened_meanwhile() {
        let at =
            |involuntary, major_faults| Process { involuntary, major_faults, ..Process::default() };
        let mut stalls = Stalls { seen: 10, before: at(5, 0), causes: [0; 3] };
        stalls.attribute(12, at(6, 0));
        stalls.attribute(13, at(6, 0));
        stalls.attribute(17, at(9, 1));
        stalls.attribute(17, at(12, 1));
        assert_eq!(stalls.causes, [2, 4, 1]);
        // The process was started again: its page is another one.
        stalls.attribute(3, at(0, 0));
        assert_eq!(stalls.causes.iter().sum::<u64>(), 10);
    }

    #[test]
    fn our_own_process_is_seen() {
        let own = process(u64::from(std::process::id())).expect("we live");
        assert!(1 << 20 < own.resident, "{own:?}");
        assert_eq!(process(u64::MAX), None);
    }

    #[test]
    fn a_sinks_buckets_are_those_of_its_status() {
        for ((ns, text), bound) in WRITE_BUCKETS.into_iter().zip(WRITE_BUCKETS_NS) {
            let seconds: f64 = text.parse().expect("a number");
            assert!(ns == bound && (seconds * 1e9 - ns as f64).abs() < 1.0, "{text}");
        }
    }
}
