//! What a gateway shows of itself.
//!
//! Invariant: one writer, counters only grow, nothing here is read back by the gateway.

use std::path::Path;

use tandem_core::account::SessionState;
use tandem_core::order::RejectClass;
use tandem_shm::{CounterHandle, GaugeHandle, HistogramHandle, Metric, ShmError, StatsWriter, tsc};

use crate::desk::{Desk, DeskStats};
use crate::guard::GuardReason;

/// Names of the metrics.
pub mod metric {
    /// New orders handed to sockets.
    pub const SENT: &str = "gateway_order_sent_total";
    /// Orders that the venue accepted.
    pub const ACKS: &str = "gateway_order_ack_total";
    /// Fills.
    pub const FILLS: &str = "gateway_fill_total";
    /// Fills that a venue took back or corrected.
    pub const BUSTS: &str = "gateway_fill_busted_total";
    /// Fills that came again.
    pub const DUPLICATES: &str = "gateway_fill_duplicate_total";
    /// Orders whose outcome was unknown for a time.
    pub const UNKNOWN: &str = "gateway_order_unknown_total";
    /// Orders proven never to have been accepted.
    pub const NEVER_ACCEPTED: &str = "gateway_order_never_accepted_total";
    /// Codes and replies that say nothing certain.
    pub const UNKNOWN_CODES: &str = "gateway_reply_uncertain_total";
    /// Rejects; the class is appended.
    pub const REJECTS: &str = "gateway_order_rejected_total";
    /// Refusals of the guard; the reason is appended.
    pub const DENIALS: &str = "gateway_guard_denied_total";
    /// Cancels sent.
    pub const CANCELS: &str = "gateway_cancel_sent_total";
    /// Cancels refused.
    pub const CANCEL_REJECTS: &str = "gateway_cancel_rejected_total";
    /// Queries about orders.
    pub const QUERIES: &str = "gateway_query_sent_total";
    /// Messages that could not be read.
    pub const MALFORMED: &str = "gateway_malformed_total";
    /// Open orders of somebody else, as often as they were listed.
    pub const FOREIGN: &str = "gateway_order_foreign_total";
    /// Orders of earlier processes.
    pub const ORPHANS: &str = "gateway_order_orphan_total";
    /// Fees in an asset that is none of ours.
    pub const FEE_ASSET: &str = "gateway_fee_asset_unknown_total";
    /// Times that room ran out.
    pub const OVERFLOWS: &str = "gateway_overflow_total";
    /// Reconciliations.
    pub const RECONCILIATIONS: &str = "gateway_reconciliation_total";
    /// Connections lost.
    pub const DISCONNECTS: &str = "gateway_disconnect_total";
    /// When the venue's certificate ends, as it was shown at the last connect, UNIX seconds; 0 without TLS.
    pub const CERTIFICATE: &str = "gateway_certificate_ends_seconds";
    /// Orders of the venue to wait.
    pub const SUSPENSIONS: &str = "gateway_suspension_total";
    /// Records reported.
    pub const RECORDS: &str = "gateway_record_total";
    /// Orders in flight.
    pub const LIVE: &str = "gateway_order_live_count";
    /// Open orders of the account that are somebody else's.
    pub const FOREIGN_OPEN: &str = "gateway_order_foreign_open_count";
    /// New orders that the budget has room for now.
    pub const BUDGET: &str = "gateway_budget_new_count";
    /// State of the session, as its tag.
    pub const SESSION: &str = "gateway_session_state";
    /// From the market message that led to an order to its bytes handed to the socket, ns.
    pub const TICK_TO_ORDER: &str = "gateway_tick_to_order_ns";
    /// From taking the order record to its bytes handed to the socket, ns.
    pub const RING_TO_SOCKET: &str = "gateway_ring_to_socket_ns";
    /// From there to the venue's reply, ns.
    pub const REPLY: &str = "gateway_order_reply_ns";
}

type Get = fn(&DeskStats) -> u64;

const COUNTERS: [(&str, &str, Get); 21] = [
    (metric::SENT, "order", |s| s.sent),
    (metric::ACKS, "order", |s| s.acks),
    (metric::FILLS, "fill", |s| s.fills),
    (metric::BUSTS, "fill", |s| s.busts),
    (metric::DUPLICATES, "fill", |s| s.duplicates),
    (metric::UNKNOWN, "order", |s| s.unknowns),
    (metric::NEVER_ACCEPTED, "order", |s| s.never_accepted),
    (metric::UNKNOWN_CODES, "reply", |s| s.unknown_codes),
    (metric::CANCELS, "cancel", |s| s.cancels),
    (metric::CANCEL_REJECTS, "cancel", |s| s.cancel_rejects),
    (metric::QUERIES, "query", |s| s.queries),
    (metric::MALFORMED, "message", |s| s.malformed),
    (metric::FOREIGN, "order", |s| s.foreign),
    (metric::ORPHANS, "order", |s| s.orphans),
    (metric::FEE_ASSET, "fill", |s| s.fee_asset_unknown),
    (metric::OVERFLOWS, "event", |s| s.overflows),
    (metric::RECONCILIATIONS, "reconciliation", |s| s.reconciliations),
    (metric::DISCONNECTS, "connection", |s| s.disconnects),
    (metric::SUSPENSIONS, "suspension", |s| s.suspensions),
    (metric::RECORDS, "record", |s| s.records),
    ("gateway_guard_denied_all_total", "order", |s| s.denials.iter().sum()),
];

/// The writer and its handles.
pub struct Stats {
    writer: StatsWriter,
    counters: Vec<(CounterHandle, u64, Get)>,
    rejects: Vec<(CounterHandle, u64)>,
    denials: Vec<(CounterHandle, u64)>,
    live: GaugeHandle,
    foreign_open: GaugeHandle,
    budget: GaugeHandle,
    session: GaugeHandle,
    certificate: GaugeHandle,
    /// Tick to order.
    pub tick_to_order: HistogramHandle,
    /// Ring to socket.
    pub ring_to_socket: HistogramHandle,
    /// Reply time.
    pub reply: HistogramHandle,
}

fn reject_name(class: RejectClass) -> String {
    format!("{}_{}", metric::REJECTS.trim_end_matches("_total"), class.name()) + "_total"
}

fn denial_name(reason: GuardReason) -> String {
    format!("{}_{}", metric::DENIALS.trim_end_matches("_total"), reason.name()) + "_total"
}

impl Stats {
    /// Creates the region.
    pub fn create(dir: &Path, name: &str) -> Result<Stats, ShmError> {
        let mut metrics: Vec<Metric> =
            COUNTERS.iter().map(|(name, unit, _)| Metric::counter(*name, *unit)).collect();
        metrics.extend(RejectClass::ALL.map(|c| Metric::counter(reject_name(c), "order")));
        metrics.extend(GuardReason::ALL.map(|r| Metric::counter(denial_name(r), "order")));
        metrics.push(Metric::gauge(metric::LIVE, "order"));
        metrics.push(Metric::gauge(metric::FOREIGN_OPEN, "order"));
        metrics.push(Metric::gauge(metric::BUDGET, "order"));
        metrics.push(Metric::gauge(metric::SESSION, "state"));
        metrics.push(Metric::gauge(metric::CERTIFICATE, "s"));
        let histograms = [metric::TICK_TO_ORDER, metric::RING_TO_SOCKET, metric::REPLY];
        metrics.extend(histograms.map(|name| Metric::histogram(name, "ns")));
        let mut writer = StatsWriter::create(dir, name, &metrics)?;
        let missing = "a metric that was declared above";
        let mut counter = |name: &str| writer.counter(name).expect(missing);
        Ok(Stats {
            counters: COUNTERS.iter().map(|(name, _, get)| (counter(name), 0, *get)).collect(),
            rejects: RejectClass::ALL.iter().map(|c| (counter(&reject_name(*c)), 0)).collect(),
            denials: GuardReason::ALL.iter().map(|r| (counter(&denial_name(*r)), 0)).collect(),
            live: writer.gauge(metric::LIVE).expect(missing),
            foreign_open: writer.gauge(metric::FOREIGN_OPEN).expect(missing),
            budget: writer.gauge(metric::BUDGET).expect(missing),
            session: writer.gauge(metric::SESSION).expect(missing),
            certificate: writer.gauge(metric::CERTIFICATE).expect(missing),
            tick_to_order: writer.histogram(metric::TICK_TO_ORDER).expect(missing),
            ring_to_socket: writer.histogram(metric::RING_TO_SOCKET).expect(missing),
            reply: writer.histogram(metric::REPLY).expect(missing),
            writer,
        })
    }

    /// Shows when the certificate of a connection that was just made ends, UNIX seconds; 0 without TLS.
    pub fn connected(&mut self, certificate_ends_s: i64) {
        self.certificate.set(certificate_ends_s);
    }

    /// Shows what has changed.
    pub fn update(&mut self, desk: &Desk, state: SessionState, now_ns: i64) {
        let stats = &desk.stats;
        for (handle, told, get) in &mut self.counters {
            let now = get(stats);
            handle.add(now - *told);
            *told = now;
        }
        let pairs = self.rejects.iter_mut().zip(&stats.rejects);
        for ((handle, told), now) in pairs.chain(self.denials.iter_mut().zip(&stats.denials)) {
            handle.add(*now - *told);
            *told = *now;
        }
        self.live.set(desk.orders.live() as i64);
        self.foreign_open.set(desk.foreign_open());
        self.budget.set(desk.budgets.left(now_ns));
        self.session.set(state as i64);
        self.writer.beat(tsc());
    }

    /// Says goodbye.
    pub fn close(self) {
        self.writer.close();
    }
}
