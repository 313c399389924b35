//! Metrics end to end: a demo's processes, a drain that follows them, real Prometheus servers that scrape it,
//! and every query of every rule and dashboard.
//!
//! Two servers scrape the same endpoint: one takes the text and its classic buckets, one takes protobuf and
//! native histograms. A query must be answered by both. Skipped, and said so, where Debian's packages
//! `prometheus` and `prometheus-alertmanager` are not installed (`scripts/setup` installs them).

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::Value;
use support::{RunDir, wait_for};
use tandem_drain::metrics::{Build, ERROR_MAX, Metrics, MetricsPage, SERIES_MAX};
use tandem_drain::source::now_ns;
use tandem_drain::status::Registry;
use tandem_drain::{Drain, Source};
use tandem_shm::StatsReader;
use tandem_tools::config::Config;
use tandem_tools::drain_role;
use tandem_tools::services::prometheus::PrometheusServer;

/// How long the demo trades.
const TRADES_S: u64 = 45;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn is_installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        println!("SKIPPED: {program} is not installed; run scripts/setup");
    }
    found
}

fn say(program: &str, args: &[&str], folder: &Path) -> String {
    let out = Command::new(program).args(args).current_dir(folder).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(out.status.success(), "{program} {args:?}:\n{text}");
    text
}

/// `alert` or `record`, its name, and its expression, of a rule file: YAML as ours is written.
fn rules(text: &str) -> Vec<(bool, String, String)> {
    let mut found: Vec<(bool, String, String)> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let word = line.trim();
        let named = [("- alert: ", true), ("- record: ", false)];
        for (key, is_alert) in named {
            if let Some(name) = word.strip_prefix(key) {
                found.push((is_alert, name.to_owned(), String::new()));
            }
        }
        let Some(expr) = word.strip_prefix("expr: ") else { continue };
        let expr = match expr {
            ">-" => {
                let indent = line.len() - line.trim_start().len();
                let mut folded = Vec::new();
                while let Some(next) = lines.peek() {
                    if next.len() - next.trim_start().len() <= indent {
                        break;
                    }
                    folded.push(lines.next().unwrap().trim());
                }
                folded.join(" ")
            }
            quoted if quoted.starts_with('"') => serde_json::from_str(quoted).unwrap(),
            plain => plain.to_owned(),
        };
        found.last_mut().unwrap().2 = expr;
    }
    assert!(found.iter().all(|(_, _, expr)| !expr.is_empty()), "{found:?}");
    found
}

fn dashboards() -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(deploy("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        found.insert(name, serde_json::from_str(&text).unwrap());
    }
    found
}

/// Every query for Prometheus of a dashboard: panel, expression.
fn queries(board: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            if let Some(expr) = target["expr"].as_str() {
                found.push((panel["title"].as_str().unwrap().to_owned(), expr.to_owned()));
            }
        }
    }
    for note in board["annotations"]["list"].as_array().unwrap() {
        found.push(("annotation".to_owned(), note["expr"].as_str().unwrap().to_owned()));
    }
    found
}

#[test]
fn the_shipped_rules_are_right_and_each_is_tested_both_ways() {
    if !is_installed("promtool") || !is_installed("amtool") {
        return;
    }
    let folder = deploy("prometheus");
    say("promtool", &["check", "config", "prometheus.yml"], &folder);
    say("promtool", &["test", "rules", "tests/alerts.yml", "tests/recording.yml"], &folder);
    say("amtool", &["check-config", "alertmanager.yml"], &folder);
    let (alerts, tests) =
        (read("prometheus/rules/alerts.yml"), read("prometheus/tests/alerts.yml"));
    let recorded = read("prometheus/tests/recording.yml");
    let mut names = BTreeSet::new();
    for (is_alert, name, _) in
        rules(&alerts).iter().chain(&rules(&read("prometheus/rules/recording.yml")))
    {
        assert!(names.insert(name.clone()), "{name} stands twice");
        if *is_alert && name != "TandemWatchdog" {
            assert!(tests.contains(&format!("name: {name} fires\n")), "{name}: nothing fires it");
            assert!(
                tests.contains(&format!("name: {name} is quiet\n")),
                "{name}: nothing is quiet"
            );
        } else if !*is_alert {
            assert!(recorded.contains(&format!("expr: {name}\n")), "{name} is not tested");
        }
    }
    // A severity that is routed, a page that is there.
    for block in alerts.split("      - alert: ").skip(1) {
        let name = block.lines().next().unwrap();
        let severity = ["page", "ticket", "info", "watchdog"];
        let is_told =
            severity.iter().any(|s| block.contains(&format!("labels: {{ severity: {s} }}")));
        assert!(is_told, "{name}: no severity");
        let page = block.split("runbook_url: deploy/").nth(1).and_then(|rest| rest.lines().next());
        let page = page.unwrap_or_else(|| panic!("{name}: no runbook"));
        assert!(deploy(page).exists(), "{name}: {page} is not there");
        assert!(block.contains("summary: "), "{name}: no summary");
    }
    println!("{} rules", names.len());
    assert!(45 <= names.len());
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let boards = dashboards();
    let all = ["drain", "execution", "feeds", "host", "latency", "overview", "pnl", "risk"];
    assert_eq!(boards.keys().map(String::as_str).collect::<Vec<_>>(), all);
    let mut panels = 0;
    for (name, board) in &boards {
        assert_eq!(board["uid"], format!("tandem-{name}"));
        assert_eq!(board["timezone"], "utc", "{name}: times are UTC");
        let (mut places, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            let said = panel["description"].as_str().unwrap_or_default();
            assert!(titles.insert(title), "{name}: {title} stands twice");
            assert!(10 < said.len(), "{name}/{title}: no description");
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{name}/{title}: no unit"
            );
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{name}/{title}: no query");
            let place = &panel["gridPos"];
            let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
            assert!(right <= 24, "{name}/{title} is wider than the screen");
            assert!(
                places.insert((place["x"].as_u64(), place["y"].as_u64())),
                "{name}/{title} hides"
            );
            panels += 1;
        }
    }
    println!("{} dashboards, {panels} panels", boards.len());
}

/// A server of ours for the page, and the drain that fills it.
struct Served {
    port: u16,
    page: MetricsPage,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

async fn metrics(page: MetricsPage, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (content_type, body) = page.encode(accept);
    ([(header::CONTENT_TYPE, content_type)], body)
}

impl Served {
    fn start(config: &Config) -> Served {
        let plan = drain_role::plan(config);
        let registry = Registry::default();
        // Databases have tests of their own; here their figures must be seen.
        let postgres = registry.register("postgres");
        postgres.wrote(500, Duration::from_millis(7), now_ns());
        postgres.lag(12, 1_536);
        registry.register("redis").failed("no server", true);
        let build = drain_role::build(config).unwrap();
        let sink = Metrics::new(&plan, build, registry);
        let page = sink.page();
        let stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (served, ends) = (page.clone(), Arc::clone(&stop));
        let server = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let answer = move |headers| metrics(served.clone(), headers);
                let app = axum::Router::new().route("/metrics", get(answer));
                let ended = async move {
                    while !ends.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                tokio::select! {
                    ended = axum::serve(listener, app) => ended.unwrap(),
                    () = ended => {}
                }
            });
        });
        let ends = Arc::clone(&stop);
        let drain = std::thread::spawn(move || {
            let mut drain = Drain::new(Source::new(plan), vec![Box::new(sink)]);
            while !ends.load(Ordering::Relaxed) {
                if !drain.turn() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Served { port, page, stop, threads: vec![server, drain] }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A Prometheus of this test.
struct Prometheus(PrometheusServer);

impl Prometheus {
    fn start(dir: &Path, name: &str, target: u16, extra: &[&str]) -> Prometheus {
        let target = format!("127.0.0.1:{target}");
        Prometheus(PrometheusServer::start_with(&dir.join(name), &target, extra).unwrap())
    }

    /// Asks; the error is what the server said.
    fn query(&self, expr: &str) -> Result<Vec<Value>, String> {
        self.0.query(expr)
    }

    fn number(&self, expr: &str) -> f64 {
        self.0.number(expr).unwrap()
    }
}

/// The list of the reference, 11.4, as it stands there.
const LIST: [&str; 35] = [
    "feed_messages_total",
    "feed_event_lag_seconds",
    "feed_age_seconds",
    "feed_gaps_total",
    "feed_resyncs_total",
    "book_valid",
    "ring_published_total",
    "ring_laps_total",
    "ring_depth",
    "loop_stalls_total",
    "stage_latency_seconds",
    "orders_sent_total",
    "orders_unknown",
    "order_ack_seconds",
    "order_denied_total",
    "fills_total",
    "one_leg_events_total",
    "edge_predicted_bps",
    "edge_realised_bps",
    "pnl_usd",
    "exposure_usd",
    "limit_headroom_ratio",
    "trading_level",
    "kill_epoch",
    "warden_heartbeat_age_seconds",
    "deadman_seconds_left",
    "clock_offset_seconds",
    "rate_limit_used_ratio",
    "journal_cursor_lag_bytes",
    "journal_free_bytes",
    "db_write_seconds",
    "db_backlog_rows",
    "reconcile_differences",
    "build_info",
    "metrics_series",
];

/// Queries that may be empty after a run without trouble, and why.
const MAY_BE_EMPTY: [(&str, &str); 3] = [
    ("sum by (venue, reason) (increase(orders_rejected_total[1m])) > 0", "no order was rejected"),
    ("code:order_denied:rate5m{stage=\"control\"} > 0", "no control refused an order"),
    ("changes(trading_level{scope=\"global\"}[1m]) > 0", "the level stood still for a minute"),
];

/// Alerts that a demo must not fire: all but those listed here, with why they may.
const MAY_FIRE: [(&str, &str); 9] = [
    ("TandemWatchdog", "always"),
    ("TandemJournalHeadroom", "a demo's journal is made for minutes"),
    ("TandemJournalEnds", "a demo's journal is made for minutes"),
    ("TandemLoopStalls", "the host is shared"),
    ("TandemSinkDown", "the test's Redis is down"),
    ("TandemLevelChanged", "the demo arms"),
    ("TandemRateLimit", "the simulators' budgets are used"),
    ("TandemEdgeShortfall", "the simulated market moves while orders fly"),
    ("TandemResyncs", "books are proven by audits, which a loaded host delays"),
];

#[test]
fn a_run_is_scraped_and_every_query_is_answered() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = RunDir::new("metrics");
    let run = dir.path().join("run");
    let mut demo = Demo(
        Command::new(dir.program())
            .args(["demo", "--for", &format!("{TRADES_S}s"), "--dir"])
            .arg(&run)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("demo.log")).unwrap())
            .spawn()
            .unwrap(),
    );
    let config = run.join("tandem.toml");
    assert!(
        wait_for(Duration::from_secs(60), || Config::load(&config).is_ok()),
        "no configuration"
    );
    let config = Config::load(&config).unwrap();
    let served = Served::start(&config);
    let plain = Prometheus::start(dir.path(), "plain", served.port, &[]);
    let flag = ["--enable-feature=native-histograms"];
    let native = Prometheus::start(dir.path(), "native", served.port, &flag);
    // Rounds have settled, and the rates of a minute have something to stand on.
    let settled = wait_for(Duration::from_secs(100), || {
        std::thread::sleep(Duration::from_millis(500));
        plain
            .query("edge_rounds > 5 and on () count_over_time(edge_rounds[1m]) > 25")
            .is_ok_and(|found| !found.is_empty())
    });
    assert!(
        settled,
        "no round settled: {}",
        fs::read_to_string(dir.path().join("demo.log")).unwrap()
    );

    for (name, server) in [("plain", &plain), ("native", &native)] {
        every_query_is_answered(name, server);
    }
    let text = String::from_utf8(served.page.encode(None).1).unwrap();
    for name in LIST {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is not told");
    }
    promtool_likes(&text, dir.path());
    let open = served.page.encode(Some("application/openmetrics-text; version=1.0.0"));
    assert!(open.1.ends_with(b"# EOF\n"));

    let series = plain.number("count({job=\"tandem\", __name__!~\"ALERTS.*|.*:.*|scrape_.*|up\"})");
    let told = plain.number("metrics_series");
    println!("{series} series as Prometheus counts them, {told} as we do");
    assert!(series <= SERIES_MAX as f64 && (series - told).abs() < 40.0, "{series} and {told}");

    let fired = plain.query("ALERTS{alertstate=\"firing\"}").unwrap();
    let fired: BTreeSet<_> =
        fired.iter().map(|alert| alert["metric"]["alertname"].as_str().unwrap()).collect();
    println!("alerts that fire: {fired:?}");
    for name in &fired {
        assert!(MAY_FIRE.iter().any(|(may, _)| may == name), "{name} fires in a healthy run");
    }

    // Nobody counts any more: what is scraped now is what the pages say.
    assert!(demo.ends(Duration::from_secs(120)), "the demo does not end");
    std::thread::sleep(Duration::from_secs(4));
    quantiles_are_ours(&native, &config);
}

/// The demo's process.
struct Demo(Child);

impl Demo {
    fn ends(&mut self, within: Duration) -> bool {
        wait_for(within, || self.0.try_wait().unwrap().is_some())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            support::signal(self.0.id(), 15);
            if !self.ends(Duration::from_secs(60)) {
                let _ = self.0.kill();
            }
            let _ = self.0.wait();
        }
    }
}

fn every_query_is_answered(name: &str, server: &Prometheus) {
    let (mut asked, mut empty) = (0, Vec::new());
    for (board, json) in dashboards() {
        for (panel, expr) in queries(&json) {
            let found = server.query(&expr);
            let found =
                found.unwrap_or_else(|error| panic!("{name}: {board}/{panel}: {expr}: {error}"));
            asked += 1;
            if found.is_empty() {
                empty.push((format!("{board}/{panel}"), expr));
            }
        }
    }
    for file in ["alerts", "recording"] {
        for (is_alert, rule, expr) in rules(&read(&format!("prometheus/rules/{file}.yml"))) {
            let found = server.query(&expr);
            let found = found.unwrap_or_else(|error| panic!("{name}: {rule}: {expr}: {error}"));
            asked += 1;
            if !is_alert && found.is_empty() {
                empty.push((rule, expr));
            }
        }
    }
    let wrong: Vec<_> =
        empty.iter().filter(|(_, expr)| !MAY_BE_EMPTY.iter().any(|(may, _)| may == expr)).collect();
    println!("{name}: {asked} queries, {} of them empty with a reason", empty.len() - wrong.len());
    assert!(wrong.is_empty(), "{name}: nothing for {wrong:#?}");
}

fn promtool_likes(text: &str, dir: &Path) {
    let path = dir.join("metrics.txt");
    fs::write(&path, text).unwrap();
    let out = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // Its advice on names is not followed where the reference's list has others.
    let complaints: Vec<_> =
        said.lines().filter(|line| !LIST.iter().any(|name| line.starts_with(name))).collect();
    assert!(out.status.code() != Some(1), "{said}");
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Prometheus's quantiles of the native histograms beside our own percentiles of the same pages.
fn quantiles_are_ours(server: &Prometheus, config: &Config) {
    let stage = [
        ("binance_stats", "feed_decode_ns", "feed_decode", "binance"),
        ("kraken_stats", "feed_decode_ns", "feed_decode", "kraken"),
        ("coinbase_stats", "feed_turn_ns", "feed_turn", "coinbase"),
        ("engine_stats", "engine_ring_ns", "engine_ring", ""),
        ("engine_stats", "engine_detect_ns", "engine_detect", ""),
        ("engine_stats", "engine_wire_to_decision_ns", "wire_to_decision", ""),
    ];
    let (mut compared, mut worst) = (0, 0.0_f64);
    for (page, metric, stage, venue) in stage {
        let reader = StatsReader::open(&config.run.dir, page, Duration::ZERO).unwrap();
        let snapshot = reader.snapshot();
        let ours = snapshot.histogram(metric).unwrap();
        let count = ours.count();
        let series = format!("stage_latency_seconds{{stage=\"{stage}\",venue=\"{venue}\"}}");
        let seen = server.number(&format!("histogram_count({series})"));
        assert_eq!(seen, count as f64, "{series}");
        let sum = server.number(&format!("histogram_sum({series})"));
        assert!(
            (sum * 1e9 / ours.sum() as f64 - 1.0).abs() < 1e-9,
            "{series}: {sum} {}",
            ours.sum()
        );
        for percent in [50.0, 90.0, 99.0, 99.9] {
            let theirs =
                server.number(&format!("histogram_quantile({}, {series})", percent / 100.0)) * 1e9;
            // Ranks may differ by one, and a percentile of ours is the end of its bucket, 1/32 wide.
            let one = 100.0 / count as f64;
            let low =
                ours.percentile(percent - one).unwrap() as f64 * (1.0 - ERROR_MAX - 1.0 / 32.0);
            let high = ours.percentile(percent + one).unwrap() as f64 * (1.0 + ERROR_MAX);
            assert!(low <= theirs && theirs <= high, "{series} p{percent}: {low} {theirs} {high}");
            let own = ours.percentile(percent).unwrap() as f64;
            worst = worst.max((theirs / own - 1.0).abs());
            compared += 1;
        }
    }
    println!("{compared} quantiles compared, the furthest by {:.1} %", worst * 100.0);
}

#[test]
fn what_a_build_is_called_is_told() {
    let config = Config::parse(&read("tandem.toml"), Path::new("x")).unwrap();
    let Build { version, build, config, mode } = drain_role::build(&config).unwrap();
    assert_eq!((version.as_str(), mode.as_str()), (env!("CARGO_PKG_VERSION"), "observe"));
    assert!(build.len() == 16 && config.len() == 16, "{build} {config}");
}
