//! The gateway tile against the real simulator over TLS, one venue after another.
//!
//! The test is the tile's host and the engine's end of both rings; what happened is compared with the
//! simulator's own record of orders.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tandem_core::account::{Session, SessionState};
use tandem_core::engine::Engine;
use tandem_core::episode::Outbox;
use tandem_core::instrument::{AssetId, FeeIn};
use tandem_core::level::Level;
use tandem_core::limits::{Mode, Trading};
use tandem_core::order::{
    Action, ClientId, DoneStatus, NewOrder, OrderKey, Purpose, Report, Tif, request,
};
use tandem_core::record::{Kind, Record, Venue};
use tandem_core::units::{FeePpm, Px, Qty, parse_decimal};
use tandem_feeds::net::tls::client_config;
use tandem_feeds::spec::{Listing, VenueInstrument, build_universe};
use tandem_feeds::tile::{Endpoint, record_schema};
use tandem_gateway::config::Config;
use tandem_gateway::desk::Desk;
use tandem_gateway::gate::LocalGate;
use tandem_gateway::gateway::Gateway;
use tandem_gateway::keys::Credentials;
use tandem_gateway::machine::Dialect;
use tandem_gateway::tile::{GatewayTile, TileSpec, orders_ring, reports_ring};
use tandem_shm::{Read, RingReader, RingSpec, RingWriter, WaitMode};
use tandem_sim::{Keys, SimConfig, SimHandle};

const ED_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
const CB_SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECRET: &str =
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

fn http(at: SocketAddr, method: &str, target: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

struct Live {
    venue: Venue,
    sim: Option<SimHandle>,
    runtime: tokio::runtime::Runtime,
    dir: PathBuf,
    instrument: VenueInstrument,
    lot: Qty,
    tick: i64,
    listings: Vec<Listing>,
    orders: Option<RingWriter<Record>>,
    tile: Option<GatewayTile>,
    reports: Option<RingReader<Record>>,
    records: Vec<Record>,
    config: Config,
    n: u64,
}

#[allow(
    unexpected_cfgs,
    missing_docs,
    reason = "the limits that the core's own tests trade with; what is not used here is used there"
)]
#[path = "../../core/tests/desk/mod.rs"]
mod desk;

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Live {
    fn new(venue: Venue, adjust: impl FnOnce(&mut Config)) -> Live {
        let unique = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tandem-live-{}-{unique}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (sim_venue, symbol) = match venue {
            Venue::Binance => (tandem_sim::Venue::Binance, "BTCUSDT"),
            Venue::Coinbase => (tandem_sim::Venue::Coinbase, "BTC-USD"),
            Venue::Kraken => (tandem_sim::Venue::Kraken, "BTC/USD"),
        };
        let mut cfg = SimConfig::demo(11);
        cfg.binance.enabled = venue == Venue::Binance;
        cfg.coinbase.enabled = venue == Venue::Coinbase;
        cfg.kraken.enabled = venue == Venue::Kraken;
        cfg.binance.instruments.retain(|i| i.symbol == symbol || venue != Venue::Binance);
        cfg.coinbase.instruments.retain(|i| i.symbol == symbol || venue != Venue::Coinbase);
        cfg.kraken.instruments.retain(|i| i.symbol == symbol || venue != Venue::Kraken);
        cfg.market.dislocation_every_ms = 0;
        cfg.ca_path = Some(dir.join("ca.pem"));
        let keys = json!({"clients": {"main": {
            "binance_ed25519": {"api_key": "SIMKEY", "private_key_pem": ED_PEM},
            "coinbase": {"api_key": "organizations/o/apiKeys/k", "private_key_pem": CB_SEED},
            "kraken": {"api_key": "KrakenKey", "secret": SECRET, "nonce_window": 0}
        }, "warden": {
            "account": "main",
            "binance": {"api_key": "WARDEN", "secret": "warden-secret"},
            "kraken": {"api_key": "WardenKey", "secret": SECRET, "nonce_window": 0}
        }}});
        cfg.keys = Keys::from_json(&keys.to_string()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let sim = runtime.block_on(tandem_sim::start(cfg)).unwrap();
        let at = sim.addresses().venue(sim_venue).unwrap().plain;
        let paths = match venue {
            Venue::Binance => tandem_feeds::binance::meta::metadata_paths(&[symbol]),
            Venue::Coinbase => tandem_feeds::coinbase::meta::metadata_paths(&[symbol]),
            Venue::Kraken => tandem_feeds::kraken::meta::metadata_paths(&[symbol]),
        };
        let mut body = http(at, "GET", &paths[0], "").into_bytes();
        let rules = match venue {
            Venue::Binance => tandem_feeds::binance::meta::parse_metadata(&mut body),
            Venue::Coinbase => tandem_feeds::coinbase::meta::parse_metadata(&mut body),
            Venue::Kraken => tandem_feeds::kraken::meta::parse_metadata(&mut body),
        };
        let listings: Vec<Listing> = rules
            .unwrap()
            .into_iter()
            .filter(|rules| rules.symbol == symbol)
            .map(|rules| Listing {
                rules,
                taker_fee: FeePpm(1_000),
                fee_in: FeeIn::Quote,
                notional_max: "100000".into(),
            })
            .collect();
        let (universe, instruments) = build_universe(&listings).unwrap();
        let spec = RingSpec {
            lock_memory: false,
            ..RingSpec::new(orders_ring(venue), 1 << 10, record_schema())
        };
        let orders = RingWriter::create(&dir, &spec).unwrap();
        let tls = sim.addresses().venue(sim_venue).unwrap().tls;
        let mut config =
            Config { rest_host: format!("localhost:{}", tls.port()), ..Config::for_venue(venue) };
        adjust(&mut config);
        let mut live = Live {
            venue,
            sim: Some(sim),
            runtime,
            dir,
            lot: universe.instruments[0].lot,
            tick: universe.instruments[0].tick.0,
            instrument: instruments[0].clone(),
            listings,
            orders: Some(orders),
            tile: None,
            reports: None,
            records: Vec::new(),
            config,
            n: 0,
        };
        live.spawn();
        live
    }

    /// Starts a gateway as a fresh process would.
    fn spawn(&mut self) {
        let (universe, instruments) = build_universe(&self.listings).unwrap();
        let desk = Desk::new(self.venue, &universe, &instruments, self.config.clone());
        let dialect: Box<dyn Dialect> = match self.venue {
            Venue::Binance => {
                let key = Credentials::BinanceEd25519 {
                    api_key: "SIMKEY".into(),
                    private_key_pem: ED_PEM.into(),
                };
                Box::new(tandem_gateway::binance::Binance::new(&key, &desk).unwrap())
            }
            Venue::Coinbase => {
                let key = Credentials::Coinbase {
                    api_key: "organizations/o/apiKeys/k".into(),
                    private_key_pem: CB_SEED.into(),
                };
                Box::new(tandem_gateway::coinbase::Coinbase::new(&key, &desk).unwrap())
            }
            Venue::Kraken => {
                let key = Credentials::Kraken {
                    api_key: "KrakenKey".into(),
                    secret: SECRET.into(),
                    nonce_file: self.dir.join("nonce"),
                };
                Box::new(tandem_gateway::kraken::Kraken::new(&key, &desk, now_ns()).unwrap())
            }
        };
        let gateway = Gateway::new(dialect, desk, tandem_gateway::guard::abort);
        let endpoint = self.endpoint();
        let spec = TileSpec {
            dir: &self.dir,
            endpoint,
            report_slots: 1 << 12,
            orders_timeout: Duration::from_secs(1),
            wait: WaitMode::Park,
        };
        let mut tile = GatewayTile::new(gateway, Box::new(LocalGate::armed()), &spec).unwrap();
        tile.set_healthy(true);
        let reports = RingReader::open(
            &self.dir,
            &reports_ring(self.venue),
            record_schema(),
            Duration::from_secs(1),
        );
        (self.tile, self.reports) = (Some(tile), Some(reports.unwrap()));
        self.records.clear();
    }

    fn endpoint(&self) -> Endpoint {
        let sim_venue = match self.venue {
            Venue::Binance => tandem_sim::Venue::Binance,
            Venue::Coinbase => tandem_sim::Venue::Coinbase,
            Venue::Kraken => tandem_sim::Venue::Kraken,
        };
        let addresses = self.sim.as_ref().unwrap().addresses();
        let port = addresses.venue(sim_venue).unwrap().tls.port();
        Endpoint {
            ws_host: "localhost".into(),
            ws_port: port,
            ws_prefix: String::new(),
            rest_host: "localhost".into(),
            rest_port: port,
            tls: Some(client_config(Some(&addresses.ca_path)).unwrap()),
        }
    }

    fn turn(&mut self) {
        self.tile.as_mut().unwrap().turn().unwrap();
        while let Read::Item(record) = self.reports.as_mut().unwrap().poll() {
            self.records.push(record);
        }
    }

    fn until(&mut self, what: &str, seconds: u64, mut done: impl FnMut(&Live) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            self.turn();
            if done(self) {
                return;
            }
            if end < Instant::now() {
                let tail: Vec<_> =
                    self.records.iter().rev().take(12).map(|r| (r.kind(), r.data)).collect();
                let desk = self.tile.as_ref().unwrap().gateway().desk();
                panic!("{what}: {:?} {:?} {:?} {tail:?}", desk.link, desk.recon, desk.stats);
            }
        }
    }

    fn ready(&mut self) {
        self.until("ready", 30, |live| {
            live.records
                .iter()
                .rev()
                .find_map(Session::read)
                .is_some_and(|s| s.state == SessionState::Ready)
        });
    }

    fn control(&self, method: &str, target: &str, body: &str) -> Value {
        let at = self.sim.as_ref().unwrap().addresses().control;
        serde_json::from_str(&http(at, method, target, body)).unwrap()
    }

    fn fault(&self, mut fault: Value) {
        fault["venue"] = json!(self.venue.name());
        let said = self.control("POST", "/fault", &fault.to_string());
        assert!(said["id"].is_u64(), "{said}");
    }

    fn best(&self, side: &str) -> i64 {
        let symbol = &self.instrument.symbol;
        let book = self.control(
            "GET",
            &format!(
                "/truth/book?venue={}&symbol={}&depth=1",
                self.venue.name(),
                symbol.replace('/', "%2F")
            ),
            "",
        );
        parse_decimal(book[side][0][0].as_str().unwrap().as_bytes(), self.instrument.px_exponent)
            .unwrap()
    }

    fn truth(&self, order: &NewOrder) -> Vec<Value> {
        let all = self.control("GET", &format!("/truth/orders?venue={}", self.venue.name()), "");
        let client = ClientId::new(order.run, order.key);
        all["orders"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|o| o["client_id"] == client.as_str())
            .cloned()
            .collect()
    }

    fn filled(&self, order: &NewOrder) -> i64 {
        self.truth(order)
            .iter()
            .map(|o| {
                parse_decimal(
                    o["filled"].as_str().unwrap().as_bytes(),
                    self.instrument.qty_exponent,
                )
                .unwrap()
            })
            .sum()
    }

    /// An order for about 0.01 BTC that takes what is there.
    fn taking(&mut self) -> NewOrder {
        let px = self.best("asks") * 101 / 100 / self.tick * self.tick;
        self.order(px, Tif::Ioc)
    }

    fn order(&mut self, px: i64, tif: Tif) -> NewOrder {
        self.n += 1;
        let one = 10i64.pow(u32::from(self.instrument.qty_exponent));
        NewOrder {
            run: 7,
            key: OrderKey::new(self.n, 0),
            venue: self.venue,
            instrument: 0,
            action: Action::Buy,
            px: Px(px / self.tick * self.tick),
            qty: Qty(one / 100 / self.lot.0 * self.lot.0),
            tif,
            purpose: Purpose::Entry,
            expires_ns: now_ns() + 900_000_000,
            cause: 1,
            level_epoch: 0,
        }
    }

    fn send(&mut self, order: &NewOrder) {
        let trigger = Record { recv_tsc: tandem_shm::tsc(), ..Record::default() };
        self.orders.as_mut().unwrap().publish(&order.record(&trigger));
    }

    fn of(&self, order: &NewOrder) -> Vec<Report> {
        self.records
            .iter()
            .filter_map(Report::read)
            .filter(|(run, key, _)| (*run, *key) == (order.run, order.key))
            .map(|(_, _, report)| report)
            .collect()
    }

    fn done(&self, order: &NewOrder) -> Option<(DoneStatus, i64)> {
        self.of(order).iter().rev().find_map(|r| match r {
            Report::Done { status, qty } => Some((*status, qty.0)),
            _ => None,
        })
    }

    fn sum(&self, order: &NewOrder) -> i64 {
        self.of(order)
            .iter()
            .map(|r| if let Report::Fill { qty, .. } = r { qty.0 } else { 0 })
            .sum()
    }

    /// What was reported is what happened: totals, fills, one order at most.
    fn agrees(&mut self, order: &NewOrder) {
        let truth = self.filled(order);
        let order = *order;
        self.until("fills are told", 20, |live| live.sum(&order) == truth);
        assert_eq!(self.done(&order).map(|(_, qty)| qty), Some(truth), "{:?}", self.of(&order));
        assert!(self.truth(&order).len() <= 1, "one order at most");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.tile = None;
        if let Some(sim) = self.sim.take() {
            self.runtime.block_on(sim.shutdown());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn fills_and_cancels(venue: Venue) {
    let mut live = Live::new(venue, |_| {});
    live.ready();
    for _ in 0..5 {
        let order = live.taking();
        live.send(&order);
        live.until("done", 10, |live| live.done(&order).is_some());
        assert_eq!(
            live.done(&order),
            Some((DoneStatus::Filled, order.qty.0)),
            "{:?}",
            live.of(&order)
        );
        live.agrees(&order);
    }
    let resting = {
        let px = live.best("bids") * 9 / 10;
        live.order(px, Tif::Gtc)
    };
    live.send(&resting);
    live.until("ack", 10, |live| live.of(&resting).iter().any(|r| matches!(r, Report::Ack { .. })));
    let cancel = request(Kind::OrderCancel, venue, 0, resting.run, resting.key);
    live.orders.as_mut().unwrap().publish(&cancel);
    live.until("cancelled", 10, |live| live.done(&resting).is_some());
    assert_eq!(live.done(&resting), Some((DoneStatus::Cancelled, 0)));
    let missing = {
        let px = live.best("bids") * 9 / 10;
        live.order(px, Tif::Ioc)
    };
    live.send(&missing);
    live.until("expired", 10, |live| live.done(&missing).is_some());
    assert_eq!(live.done(&missing), Some((DoneStatus::Expired, 0)));
    live.until("stats are written", 1, {
        let end = Instant::now() + Duration::from_millis(50);
        move |_| end < Instant::now()
    });
    let name = tandem_gateway::tile::stats_name(venue);
    let shown =
        tandem_shm::StatsReader::open(&live.dir, &name, Duration::from_secs(1)).unwrap().snapshot();
    let ns = |name: &str| {
        let histogram = shown.histogram(name).unwrap();
        (histogram.percentile(50.0).unwrap(), histogram.max().unwrap(), histogram.count())
    };
    use tandem_gateway::stats::metric;
    println!(
        "figure 9.3: {} ring to socket, TLS on: p50/max/orders {:?} ns, record to socket {:?} ns, reply {:?} ns",
        venue.name(),
        ns(metric::RING_TO_SOCKET),
        ns(metric::TICK_TO_ORDER),
        ns(metric::REPLY)
    );
    let stats = live.tile.as_ref().unwrap().gateway().desk().stats;
    assert_eq!((stats.unknowns, stats.malformed, stats.unknown_codes), (0, 0, 0), "{stats:?}");
}

/// The same silence, both truths: executed and not. Every outcome must be the truth's.
fn resolves(venue: Venue, kinds: &[(&str, &str, bool)]) {
    let mut live = Live::new(venue, |config| {
        config.ack_ns_max = 500_000_000;
        config.proof_ns = 2_000_000_000;
        config.proof_margin_ns = 500_000_000;
        // What the simulator grants by default is the highest tier.
        (config.kraken_rest_max, config.kraken_rest_milli) = (20, 1_000);
    });
    live.ready();
    for (kind, row, executed) in kinds {
        // Connections that a lost reply took are warm again.
        let rest = Instant::now() + Duration::from_millis(1_500);
        live.until("rest", 5, |_| rest < Instant::now());
        live.fault(json!({"kind": kind, "count": 1}));
        let order = live.taking();
        let begun = Instant::now();
        live.send(&order);
        live.until(kind, 40, |live| live.done(&order).is_some());
        let took = begun.elapsed().as_millis();
        assert_eq!(0 < live.filled(&order), *executed, "{kind}: the fault did what it says");
        live.agrees(&order);
        if !executed {
            assert_eq!(live.done(&order), Some((DoneStatus::NeverAccepted, 0)));
        }
        println!(
            "figure {row}: {} {kind}: {} after {took} ms, 1 of 1 right, 0 resent",
            venue.name(),
            if *executed { "found executed" } else { "proven not executed" }
        );
        live.ready();
    }
}

/// A gateway that dies with an order in the market: the next one finds, cancels and reports it.
fn restarts(venue: Venue) {
    let mut live = Live::new(venue, |_| {});
    live.ready();
    let resting = {
        let px = live.best("bids") * 9 / 10;
        live.order(px, Tif::Gtc)
    };
    live.send(&resting);
    live.until("ack", 10, |live| live.of(&resting).iter().any(|r| matches!(r, Report::Ack { .. })));
    // Dropping without closing is what a crash looks like.
    (live.tile, live.reports) = (None, None);
    let begun = Instant::now();
    live.spawn();
    live.until("found", 30, |live| {
        live.of(&resting).iter().any(|r| matches!(r, Report::Ack { .. }))
    });
    let cancel = request(Kind::OrderCancel, venue, 0, resting.run, resting.key);
    live.orders.as_mut().unwrap().publish(&cancel);
    live.until("cancelled", 30, |live| live.done(&resting).is_some());
    live.ready();
    assert_eq!(live.done(&resting), Some((DoneStatus::Cancelled, 0)));
    assert_eq!(live.truth(&resting).len(), 1);
    println!(
        "figure OE-15: {} restarted with an order open: found, cancelled and ready after {} ms",
        venue.name(),
        begun.elapsed().as_millis()
    );
}

/// The warden's client: sees the key's rights, sees an order of the tile's, cancels it.
fn watches(venue: Venue) {
    let mut live = Live::new(venue, |_| {});
    live.ready();
    let key = match venue {
        Venue::Binance => {
            Credentials::BinanceHmac { api_key: "WARDEN".into(), secret: "warden-secret".into() }
        }
        Venue::Coinbase => Credentials::Coinbase {
            api_key: "organizations/o/apiKeys/k".into(),
            private_key_pem: CB_SEED.into(),
        },
        Venue::Kraken => Credentials::Kraken {
            api_key: "WardenKey".into(),
            secret: SECRET.into(),
            nonce_file: live.dir.join("warden-nonce"),
        },
    };
    let symbols = [live.instrument.symbol.clone()];
    let mut client = tandem_gateway::client::connect(&key, &live.endpoint(), &symbols).unwrap();
    let report = client.authenticate().unwrap();
    assert!(report.is_acceptable(), "{report:?}");
    assert_eq!(client.cancel_all().unwrap(), 0, "nothing to cancel is no error");
    let resting = {
        let px = live.best("bids") * 9 / 10;
        live.order(px, Tif::Gtc)
    };
    live.send(&resting);
    live.until("ack", 10, |live| live.of(&resting).iter().any(|r| matches!(r, Report::Ack { .. })));
    client.ping().unwrap();
    let open = client.open_orders().unwrap();
    let ours = ClientId::new(resting.run, resting.key);
    assert_eq!(open.iter().map(|o| o.client_id.as_str()).collect::<Vec<_>>(), [ours.as_str()]);
    let begun = Instant::now();
    assert_eq!(client.cancel_all().unwrap(), 1);
    let took = begun.elapsed();
    live.until("cancelled", 10, |live| live.done(&resting).is_some());
    assert_eq!(live.done(&resting), Some((DoneStatus::Cancelled, 0)), "the tile hears of it");
    assert!(client.open_orders().unwrap().is_empty());
    client.cancel(&open[0]).unwrap();
    let order = live.taking();
    live.send(&order);
    live.until("done", 10, |live| live.done(&order).is_some());
    assert!(!client.trades_since(now_ns() - 60_000_000_000).unwrap().is_empty());
    assert!(client.balances().unwrap().iter().any(|b| b.asset.contains("USD")));
    assert_eq!(client.deadman(60).unwrap(), venue == Venue::Kraken);
    println!(
        "figure K2: {} cancel_all of 1 order over a warm connection in {} us",
        venue.name(),
        took.as_micros()
    );
}

/// The engine's books over what a gateway reported, and the simulator's own.
struct Books {
    engine: Engine,
    out: Outbox,
    taken: usize,
    now_ns: i64,
}

impl Books {
    /// Books of a run that is given these orders as an earlier one's.
    fn new(live: &Live) -> Books {
        let (universe, _) = build_universe(&live.listings).unwrap();
        let limits = desk::trading(Mode::Live, &universe);
        let limits = Trading { run: 8, ..limits };
        let engine = Engine::with_trading(universe, desk::params(), limits).unwrap();
        Books { engine, out: Outbox::new(1 << 12), taken: 0, now_ns: now_ns() }
    }

    fn step(&mut self, record: &Record) {
        self.now_ns += 1_000;
        let record = Record { engine_ts_ns: self.now_ns, ..*record };
        self.out.clear();
        self.engine.step(&record, &mut self.out);
    }

    fn order(&mut self, order: &NewOrder) {
        let record = order.record(&Record::default());
        let flags = tandem_core::record::flag::LAST;
        self.step(&Record { kind: Kind::Restore as u8, part: record.kind, flags, ..record });
    }

    /// Takes what was reported since; returns the fills and busts that changed the books.
    fn take(&mut self, live: &Live) -> (u64, u64) {
        for record in &live.records[self.taken..] {
            self.step(record);
        }
        self.taken = live.records.len();
        let desk = self.engine.desk().unwrap();
        assert!(desk.ledger().check());
        (desk.counts().fills, desk.counts().busts)
    }

    /// The largest difference of a balance in quanta of ours; see `tandem`'s comparison for why Coinbase
    /// may have some.
    fn differs(&self, live: &Live) -> i128 {
        let truth = live.control("GET", "/truth/accounts", "");
        let rows = truth["accounts"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|row| row["name"] == "main" && row["venue"] == live.venue.name())
            .unwrap();
        let ledger = self.engine.desk().unwrap().ledger();
        let mut most = 0;
        for (idx, asset) in self.engine.universe().assets.iter().enumerate() {
            let ours = ledger.account(live.venue, AssetId(idx as u16)).balance;
            let theirs = row["balances"][&asset.name]["total"].as_str().unwrap_or("0");
            // Decimals beyond our own are cut.
            let (whole, part) = theirs.split_once('.').unwrap_or((theirs, ""));
            let part: String = part.chars().take(asset.exponent.into()).collect();
            let theirs =
                parse_decimal(format!("{whole}.{part:0<1}").as_bytes(), asset.exponent).unwrap();
            most = most.max((i128::from(theirs) - ours).abs());
        }
        most
    }
}

/// A venue takes a fill back: its gateway notices, the engine's books follow, and equal the venue's after it.
fn busts(venue: Venue) {
    let mut live = Live::new(venue, |config| {
        config.trades_every_ns = 2_000_000_000;
        config.bust_age_ns = 1_500_000_000;
        config.bust_confirm_ns = 1_000_000_000;
        (config.kraken_rest_max, config.kraken_rest_milli) = (20, 1_000);
    });
    live.ready();
    let mut books = Books::new(&live);
    // What is there before the first order is the opening.
    books.take(&live);
    let mut orders = Vec::new();
    for _ in 0..3 {
        let order = live.taking();
        books.order(&order);
        live.send(&order);
        live.until("done", 10, |live| live.done(&order).is_some());
        live.agrees(&order);
        orders.push(order);
    }
    let (fills, none) = books.take(&live);
    assert!(3 <= fills && none == 0);
    // Each fill's worth and fee are rounded against us by less than a quantum.
    let rounding = if venue == Venue::Binance { 0 } else { 2 * i128::from(fills) };
    assert!(books.differs(&live) <= rounding, "{} before", books.differs(&live));
    let client = ClientId::new(orders[1].run, orders[1].key);
    let truth = live.control("GET", &format!("/truth/fills?venue={}", venue.name()), "");
    let rows = truth["fills"].as_array().unwrap();
    let busted: Vec<u64> = rows
        .iter()
        .filter(|row| row["client_id"] == client.as_str())
        .map(|row| row["seq"].as_u64().unwrap())
        .collect();
    for fill in &busted {
        let said =
            live.control("POST", "/account", &json!({"action": "bust", "fill": fill}).to_string());
        assert_eq!(said["busted"], *fill);
    }
    assert!(rounding < books.differs(&live), "the venue has taken money back");
    let begun = Instant::now();
    let count = busted.len() as u64;
    let told = |live: &Live| {
        live.records.iter().filter(|r| r.kind() == Some(Kind::OrderBust)).count() as u64
    };
    live.until("the bust is told", 30, |live| told(live) == count);
    let took = begun.elapsed().as_millis();
    assert_eq!(books.take(&live).1, count);
    assert!(books.differs(&live) <= rounding, "{} after", books.differs(&live));
    assert_eq!(books.engine.desk().unwrap().level(venue), Level::Halt);
    // Lists of trades come and go and say it again; the gateway dies and the next one reads them anew.
    let later = Instant::now() + Duration::from_secs(5);
    live.until("more lists", 10, |_| later < Instant::now());
    assert_eq!(told(&live), count, "told once");
    books.take(&live);
    live.tile = None;
    live.spawn();
    books.taken = 0;
    live.ready();
    let later = Instant::now() + Duration::from_secs(3);
    live.until("more lists", 10, |_| later < Instant::now());
    assert_eq!(books.take(&live).1, count, "booked once");
    assert!(books.differs(&live) <= rounding, "{} at last", books.differs(&live));
    println!(
        "figure OE-20: {} {count} of {count} busted fills noticed after {took} ms, balances equal after it to {} quanta, halted",
        venue.name(),
        books.differs(&live)
    );
}

/// Row OE-20.
#[test]
fn binance_busts() {
    busts(Venue::Binance);
}

/// Row OE-20.
#[test]
fn coinbase_busts() {
    busts(Venue::Coinbase);
}

/// Row OE-20.
#[test]
fn kraken_busts() {
    busts(Venue::Kraken);
}

#[test]
fn binance_watches() {
    watches(Venue::Binance);
}

#[test]
fn kraken_watches() {
    watches(Venue::Kraken);
}

const SILENCES: [(&str, &str, bool); 6] = [
    ("reply_lost", "OE-03", true),
    ("order_lost", "OE-03", false),
    ("error_after", "OE-03", true),
    ("error_before", "OE-03", false),
    ("drop_after", "OE-05", true),
    ("drop_before", "OE-05", false),
];

#[test]
fn binance_fills_and_cancels() {
    fills_and_cancels(Venue::Binance);
}

/// Row OE-03. Row OE-05.
#[test]
fn binance_resolves() {
    resolves(Venue::Binance, &SILENCES);
}

#[test]
fn binance_restarts() {
    restarts(Venue::Binance);
}

#[test]
fn coinbase_fills_and_cancels() {
    fills_and_cancels(Venue::Coinbase);
}

/// Row OE-03. Row OE-05.
#[test]
fn coinbase_resolves() {
    resolves(Venue::Coinbase, &SILENCES);
}

#[test]
fn coinbase_restarts() {
    restarts(Venue::Coinbase);
}

#[test]
fn coinbase_watches() {
    watches(Venue::Coinbase);
}

#[test]
fn kraken_fills_and_cancels() {
    fills_and_cancels(Venue::Kraken);
}

/// Row OE-03. Row OE-05.
#[test]
fn kraken_resolves() {
    resolves(Venue::Kraken, &SILENCES);
}

#[test]
fn kraken_restarts() {
    restarts(Venue::Kraken);
}
