//! `status`, and the demo's report for people.

use std::time::Duration;

use serde::Serialize;
use tandem_drain::standing::{self, ChannelStands, SinkStands};
use tandem_feeds::tile::metric as feed_metric;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::config::Config;
use crate::demo::{Percentiles, Report, RunStats};
use crate::drain_role;
use crate::engine_tile::metric;
use crate::services::audit::ServicesReport;

#[derive(Serialize)]
struct Status {
    ok: bool,
    mode: String,
    journal_seq: i64,
    journal_full: bool,
    opportunities_open: i64,
    halts: u64,
    tiles_dead: Vec<String>,
    rejected: u64,
    outputs_lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<DrainStatus>,
    #[serde(flatten)]
    report: Report,
}

/// How the drain stands, where one is configured.
#[derive(Serialize)]
struct DrainStatus {
    running: bool,
    /// Age of what follows; nothing where it never said anything.
    age_ms: Option<i64>,
    sinks: Vec<SinkStands>,
    channels: Vec<ChannelStands>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// What is older is the last word of a drain that ended or hangs.
const STANDS_MS_MAX: i64 = 5_000;

fn drain_status(config: &Config) -> Option<DrainStatus> {
    if !config.has_drain() {
        return None;
    }
    let (found, trouble) = match standing::read(&config.run.dir) {
        Ok(found) => (found, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let running = drain_role::is_running(config);
    let age_ms = found.as_ref().map(|found| (crate::time::now_ns() - found.at_ns) / 1_000_000);
    let found = found.unwrap_or_default();
    Some(DrainStatus { running, age_ms, sinks: found.sinks, channels: found.channels, trouble })
}

fn print_drain(drain: &DrainStatus) {
    let state = match (drain.running, drain.age_ms) {
        (false, _) => "NOT RUNNING; what is shown of it is its last word".to_owned(),
        (true, Some(age)) if STANDS_MS_MAX < age => format!("HANGS: silent for {} s", age / 1_000),
        (true, None) => "starting".to_owned(),
        (true, _) => "running".to_owned(),
    };
    let trouble =
        |of: &Option<String>| of.as_ref().map_or(String::new(), |why| format!(" · {why}"));
    print(format_args!("drain: {state}{}", trouble(&drain.trouble)));
    for sink in &drain.sinks {
        print(format_args!(
            "  {:<9} {:<4} · {} records behind · {} rows · {} errors · {} dead letters{}",
            sink.name,
            if sink.up { "up" } else { "DOWN" },
            sink.lag_records,
            sink.written_rows,
            sink.errors,
            sink.dead_letters,
            trouble(&sink.trouble),
        ));
    }
    for channel in &drain.channels {
        print(format_args!(
            "  alerts to {:<9} {:<4} · {} delivered · {} failed · {} dropped{}",
            channel.name,
            if channel.up { "up" } else { "LOST" },
            channel.delivered,
            channel.failed,
            channel.dropped,
            trouble(&channel.trouble),
        ));
    }
}

/// `tandem status`.
pub fn status(config: &ConfigArg, json: bool) -> Done {
    let config = config.load()?;
    let within = Duration::from_millis(200);
    let stats = RunStats::open(&config, within).map_err(Failure::unreachable)?;
    let before = stats.engine();
    std::thread::sleep(Duration::from_millis(100));
    let engine = stats.engine();
    let interval = engine.since(&before);
    let report = stats.report();
    let counter = |name| engine.counter(name).unwrap_or(0);
    let journal_full = interval.counter(metric::JOURNAL_FULL).unwrap_or(0) != 0;
    let alive = interval.counter(metric::RECORDS).unwrap_or(0) != 0;
    let dead = stats.dead();
    let in_sync = report.venues.values().all(|venue| venue.books_in_sync == venue.books);
    let status = Status {
        ok: in_sync && alive && !journal_full && dead.is_empty(),
        mode: config.run.mode.name().to_owned(),
        journal_seq: engine.gauge(metric::JOURNAL_SEQ).unwrap_or(0),
        journal_full,
        opportunities_open: engine.gauge(metric::OPEN).unwrap_or(0),
        halts: counter(metric::HALTS),
        tiles_dead: dead,
        rejected: counter(metric::REJECTED),
        outputs_lost: counter(metric::OUTPUTS_LOST),
        drain: drain_status(&config),
        report,
    };
    if json {
        print_json(&status);
    } else {
        print(format_args!(
            "{} · engine {} · journal at {}{}",
            if status.ok { "OK" } else { "NOT OK" },
            if alive { "running" } else { "NOT RUNNING" },
            status.journal_seq,
            if journal_full { " (FULL: no input is taken)" } else { "" },
        ));
        for tile in &status.tiles_dead {
            print(format_args!("{tile}: NOT RUNNING; what is shown of it is its last word"));
        }
        print_venues(&status.report);
        print(format_args!(
            "opportunities {} ({} open) · denials {} · halts {} · overruns {} · gaps {} · rejected {} · \
             outputs lost {}",
            status.report.opportunities.total,
            status.opportunities_open,
            status.report.denials,
            status.halts,
            status.report.losses.overruns,
            status.report.losses.gaps,
            status.rejected,
            status.outputs_lost,
        ));
        for (venue, feed) in stats.feeds() {
            let counter = |name| feed.counter(name).unwrap_or(0);
            print(format_args!(
                "{}: connects {} · lost {} · REST {} ({} failed) · checksums {} ok, {} bad · malformed {} · \
                 standby {} books · takeovers {} · disagreements {} · unconfirmed {}",
                venue.name(),
                counter(feed_metric::CONNECTS),
                counter(feed_metric::DISCONNECTS),
                counter(feed_metric::REQUESTS),
                counter(feed_metric::REQUESTS_FAILED),
                counter(feed_metric::CHECKSUM_OK),
                counter(feed_metric::CHECKSUM_BAD),
                counter(feed_metric::MALFORMED),
                feed.gauge(feed_metric::STANDBY_LIVE).unwrap_or(0),
                counter(feed_metric::TAKEOVERS),
                counter(feed_metric::DISAGREEMENTS),
                counter(feed_metric::UNCONFIRMED),
            ));
        }
        status.drain.iter().for_each(print_drain);
    }
    Ok(if status.ok { Outcome::Ok } else { Outcome::Failed })
}

fn print_venues(report: &Report) {
    for (name, venue) in &report.venues {
        print(format_args!(
            "{name:<9} {:>3} of {:>3} books in sync · {} messages · {} resyncs · {} gaps",
            venue.books_in_sync, venue.books, venue.messages, venue.resyncs, venue.gaps
        ));
    }
}

/// Prints a demo's report for people.
pub fn print_demo(report: &Report) {
    print(format_args!("\n{} seconds in mode {}:", report.seconds.round(), report.mode));
    print_venues(report);
    let o = &report.opportunities;
    print(format_args!(
        "{} opportunities: {} cross-venue, {} triangular, {} cross-quote; {} candidates denied",
        o.total, o.cross_venue, o.triangular, o.cross_quote, report.denials
    ));
    let stage = |name: &str, p: &Percentiles| {
        print(format_args!(
            "{name:<17} p50 {:>9} ns · p99 {:>9} ns · p99.9 {:>9} ns · max {:>10} ns · {} times",
            p.p50, p.p99, p.p999, p.max, p.count
        ));
    };
    stage("decode", &report.latency_ns.decode);
    stage("ring", &report.latency_ns.ring);
    stage("detect", &report.latency_ns.detect);
    stage("wire to decision", &report.latency_ns.wire_to_decision);
    print_trading(report, stage);
    print(format_args!(
        "lost: {} overruns, {} gaps\njournal: {} records in {} segments at {}",
        report.losses.overruns,
        report.losses.gaps,
        report.journal.records,
        report.journal.segments,
        report.journal.path.display(),
    ));
    print(format_args!(
        "replay: {} ({} records, {} a second)",
        if report.replay.identical { "identical, byte for byte" } else { "DIFFERENT" },
        report.replay.records,
        report.replay.records_per_second,
    ));
    report.services.iter().for_each(print_services);
}

/// What the services hold beside what the journal says.
fn print_services(services: &ServicesReport) {
    print(format_args!("\nservices against the journal's {} records:", services.journal_seq));
    let postgres = &services.postgres;
    print(format_args!("{:<20} {:>12} {:>12}", "table", "PostgreSQL", "journal"));
    for (table, rows) in &postgres.tables {
        print(format_args!(
            "{table:<20} {:>12} {:>12}  {}",
            rows.postgres,
            rows.journal,
            if rows.postgres == rows.journal { "equal" } else { "DIFFERENT" },
        ));
    }
    let all = if postgres.equal { "every table equal" } else { "TABLES DIFFER" };
    print(format_args!(
        "PostgreSQL  {all}; up to record {}; {} dead letters, {} gaps",
        postgres.last_seq, postgres.dead_letters, postgres.gaps
    ));
    let redis = &services.redis;
    print(format_args!(
        "Redis       the last best prices of {} of {} books are the journal's; {} opportunities in the stream",
        redis.equal, redis.books, redis.opportunities
    ));
    redis.differing.iter().for_each(|book| print(format_args!("  {book}")));
    let archive = &services.archive;
    print(format_args!(
        "archive     durable up to record {}, {} bytes, chain {}, in {}",
        archive.durable_seq,
        archive.bytes,
        if archive.chain_verified { "verified" } else { "NOT PROVEN" },
        archive.dir.display(),
    ));
    let prometheus = &services.prometheus;
    print(format_args!(
        "Prometheus  target {}; {} scrapes, {} samples in the last one, {} series{}",
        if prometheus.up { "up" } else { "DOWN" },
        prometheus.scrapes,
        prometheus.samples,
        prometheus.series,
        prometheus.trouble.as_ref().map_or(String::new(), |why| format!("; {why}")),
    ));
    let verdict =
        if services.is_good() { "all of it is there, once" } else { "NOT ALL OF IT IS RIGHT" };
    print(format_args!("services    {verdict}"));
}

/// What was traded, in a trader's words.
fn print_trading(report: &Report, stage: impl Fn(&str, &Percentiles)) {
    let (Some(rounds), Some(orders), Some(pnl)) = (&report.rounds, &report.orders, &report.pnl)
    else {
        return;
    };
    stage("tick to order", &report.latency_ns.tick_to_order);
    if let Some(wire) = &report.wire_to_wire_ns {
        stage("wire to wire", wire);
    }
    if let Some(echo) = &report.tcp_echo_ns {
        stage("raw TCP echo", echo);
    }
    print(format_args!(
        "{} rounds: {} filled on every leg, {} completed by a hedge, {} taken back, {} not filled at all; {} \
         still have a leg too many",
        rounds.sent,
        rounds.both_filled,
        rounds.hedged,
        rounds.unwound,
        rounds.missed,
        rounds.one_legged_open,
    ));
    print(format_args!(
        "{} orders: {} filled, {} in part, {} not, {} refused; {} whose end nobody knows",
        orders.sent,
        orders.filled,
        orders.partial,
        orders.expired,
        orders.rejected,
        orders.unknown_open,
    ));
    print(format_args!(
        "made {} {c} after fees; paid {} {c} in fees",
        pnl.realised,
        pnl.fees,
        c = pnl.currency
    ));
    if let Some(controls) = &report.controls {
        let mut denials: Vec<(&String, &u64)> = controls.denials.iter().collect();
        denials.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        let most: Vec<String> =
            denials.iter().take(6).map(|(name, times)| format!("{name} {times}")).collect();
        print(format_args!("kept out by controls: {}", most.join(", ")));
    }
    if let Some(truth) = &report.truth {
        print(if truth.is_clean() {
            "the venues' own books agree: every balance, every fill, no order left open"
        } else {
            "THE VENUES' OWN BOOKS DIFFER:"
        });
        for difference in &truth.differences {
            print(format_args!("  {difference}"));
        }
    }
}
