//! A live run against simulated venues, as the demo makes it: keys, limits, every process, and the
//! simulator's own books to compare with.
//!
//! Invariant: one run at a time in a test binary, for two would share the host's two cores. Every process
//! started here ends with the run.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tandem_core::level::{Level, LevelWord, Scope};
use tandem_core::record::Venue;
use tandem_shm::{ControlPage, StatsReader};
use tandem_sim::{SimConfig, SimHandle};
use tandem_tools::config::{Config, Mode};
use tandem_tools::demo_keys::{ACCOUNT, DemoKeys};
use tandem_tools::records::Origin;
use tandem_tools::routes::{ENGINE_ROW, WARDEN_ROW, gateway_row};
use tandem_tools::time::now_ns;
use tandem_tools::truth::{self, Truth};
use tandem_tools::{demo, demo_config, demo_keys, engine_tile, stages, warden_role};

use crate::support::{Control, RunDir, Up, signal, wait_for};

pub const MS: i64 = 1_000_000;
/// From the start of every process until nothing stands against arming.
pub const READY_WITHIN: Duration = Duration::from_secs(45);
const SEED: u64 = 21;

static ONE: Mutex<()> = Mutex::new(());

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Error stream.
    pub err: String,
}

impl Said {
    /// The output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Requests of the run's account that reached a venue.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// New orders, how many ever.
    pub new: u64,
    /// When the last new order arrived.
    pub last_new_ns: i64,
    /// When cancels arrived. Coinbase cancels by id only: there the question what is open counts too.
    pub cancels: Vec<i64>,
    /// When new orders arrived, the last few thousand.
    pub news: Vec<i64>,
}

/// Simulated venues, a configuration and keys; the system itself once it is started.
pub struct Live {
    pub dir: RunDir,
    pub control: SocketAddr,
    pub text: String,
    pub config: Config,
    pub keys: DemoKeys,
    pub up: Option<Up>,
    sim: Option<SimHandle>,
    runtime: tokio::runtime::Runtime,
    _one: MutexGuard<'static, ()>,
}

impl Live {
    /// Starts the venues and writes the configuration.
    pub fn new(test: &str) -> Live {
        Live::with(test, |_| {}, |text| text)
    }

    /// The same with changes to the venues and to the configuration.
    pub fn with(
        test: &str,
        sim_change: impl FnOnce(&mut SimConfig),
        text_change: impl FnOnce(String) -> String,
    ) -> Live {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = RunDir::new(test);
        let keys = demo_keys::make(dir.path()).unwrap();
        let mut sim_config = SimConfig::demo(SEED);
        sim_config.ca_path = Some(dir.path().join("sim-ca.pem"));
        demo_config::set_fees(&mut sim_config);
        demo_config::set_keys(&mut sim_config, &keys).unwrap();
        sim_change(&mut sim_config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let sim = runtime.block_on(tandem_sim::start(sim_config.clone())).unwrap();
        let symbols = demo::sim_symbols(&sim_config);
        let text = demo_config::text(
            dir.path(),
            sim.addresses(),
            &sim_config,
            &symbols,
            Some((Mode::Live, &keys)),
            &demo_config::Dashboard::make(dir.path()).unwrap(),
        );
        let text = text_change(text)
            // Starts count against the request weight: 100 levels cost 5 of 6000 a minute, 5000 cost 250.
            .replace("[venue.binance]", "[venue.binance]\ndepth = 100")
            // Each engine begins a segment.
            .replace("segment_mib = 32\nsegments_max = 40", "segment_mib = 8\nsegments_max = 200");
        let path = dir.path().join("tandem.toml");
        fs::write(&path, &text).unwrap();
        let config = Config::parse(&text, &path).unwrap();
        let control = sim.addresses().control;
        Live { dir, control, text, config, keys, up: None, sim: Some(sim), runtime, _one: one }
    }

    /// The configuration's file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("tandem.toml")
    }

    /// Writes another configuration beside and returns its path.
    pub fn other_config(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let path = self.dir.path().join(name);
        let text = change(self.text.clone());
        assert_ne!(text, self.text, "{name} is to differ");
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts every process.
    pub fn up(&mut self) {
        assert!(self.up.is_none(), "it runs already");
        self.up = Some(Up::start(&self.dir, &self.text));
    }

    /// Starts every process and waits until it may be armed.
    pub fn up_ready(&mut self) -> Duration {
        self.up();
        self.wait_ready()
    }

    /// Waits until it may be armed.
    pub fn wait_ready(&self) -> Duration {
        let begun = Instant::now();
        let ready = wait_for(READY_WITHIN, || {
            std::thread::sleep(Duration::from_millis(20));
            stages::is_ready(&stages::check(&self.config))
        });
        assert!(ready, "not ready: {:?}", self.failed_stages());
        begun.elapsed()
    }

    /// The stages that do not pass.
    pub fn failed_stages(&self) -> Vec<String> {
        let stages = stages::check(&self.config);
        let failed = stages.iter().filter(|stage| stage.verdict == stages::Verdict::Fail);
        failed.map(|stage| format!("{} {}", stage.id, stage.detail)).collect()
    }

    /// Runs a command on this run's configuration.
    pub fn say(&self, words: &[&str]) -> Said {
        self.say_with(&self.config_path(), words)
    }

    /// Runs a command on another configuration.
    pub fn say_with(&self, config: &Path, words: &[&str]) -> Said {
        let output = Command::new(self.dir.program())
            .args(words)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The same, ended with SIGTERM where it does not end by itself: then the code is -1.
    pub fn say_within(&self, config: &Path, words: &[&str], within: Duration) -> Said {
        let err_path = self.dir.path().join("said.err");
        let mut child = Command::new(self.dir.program())
            .args(words)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&err_path).unwrap())
            .spawn()
            .unwrap();
        let mut status = None;
        let ended = wait_for(within, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        Said { code, out: String::new(), err: fs::read_to_string(err_path).unwrap() }
    }

    /// The first eight digits of the configuration's hash.
    pub fn confirm(&self) -> String {
        let hash = tandem_tools::identity::config_hash(&self.config).unwrap();
        format!("{hash:016x}")[..8].to_owned()
    }

    /// Arms as an operator does; tries again while a stage is about to pass.
    pub fn arm(&self) {
        let mut said = None;
        let armed = wait_for(READY_WITHIN, || {
            let confirm = self.confirm();
            let now = self.say(&["arm", "--reason", "test", "--confirm", &confirm, "--json"]);
            let done = now.code == 0;
            said = Some(now);
            done
        });
        assert!(armed, "{said:?}");
    }

    /// Starts, waits and arms.
    pub fn trade(&mut self) {
        self.up_ready();
        self.arm();
    }

    /// The control page.
    pub fn page(&self) -> ControlPage {
        ControlPage::open(&self.config.run.dir, Duration::from_secs(5)).unwrap()
    }

    /// The global level.
    pub fn level(&self) -> Level {
        LevelWord(self.page().level()).of(Scope::Global)
    }

    /// The process of a row, where it lives.
    pub fn pid(&self, row: usize) -> u32 {
        self.page().row(row).pid
    }

    pub fn engine_pid(&self) -> u32 {
        self.pid(ENGINE_ROW)
    }

    pub fn warden_pid(&self) -> u32 {
        self.pid(WARDEN_ROW)
    }

    pub fn gateway_pid(&self, venue: Venue) -> u32 {
        self.pid(gateway_row(venue))
    }

    /// Whether the warden beats.
    pub fn warden_beats(&self) -> bool {
        now_ns() - (self.page().row(WARDEN_ROW).beat_ns as i64) < 500 * MS
    }

    /// Writes the authority of a simulator that is not this run's.
    pub fn another_authority(&self, path: &Path) {
        let mut other = SimConfig::demo(SEED);
        other.ca_path = Some(path.to_owned());
        let other = self.runtime.block_on(tandem_sim::start(other)).unwrap();
        self.runtime.block_on(other.shutdown());
    }

    /// Waits until every gateway has echoed the level word; returns when that was seen.
    pub fn wait_echoes(&self, within: Duration) -> i64 {
        let page = self.page();
        let echoed = wait_for(within, || {
            let epoch = LevelWord(page.level()).epoch();
            Venue::ALL.iter().all(|venue| page.row(gateway_row(*venue)).echo == epoch)
        });
        assert!(echoed, "a gateway did not echo");
        now_ns()
    }

    /// A gauge of the warden; nothing while there is no warden.
    pub fn warden(&self, venue: Venue, what: &str) -> Option<i64> {
        let stats =
            StatsReader::open(&self.config.run.dir, warden_role::STATS, Duration::ZERO).ok()?;
        stats.snapshot().gauge(&warden_role::gauge(venue, what))
    }

    /// Waits until the warden has proven, after a time, that nothing is open anywhere.
    pub fn wait_proof(&self, since_ns: i64, within: Duration) -> i64 {
        let proven = |venue: &Venue| {
            self.warden(*venue, "proven_ns").is_some_and(|at| since_ns <= at)
                && self.warden(*venue, "verdict") == Some(2)
        };
        let mut proven_ns = 0;
        let all = wait_for(within, || {
            std::thread::sleep(Duration::from_millis(10));
            proven_ns = now_ns();
            Venue::ALL.iter().all(proven)
        });
        assert!(all, "not proven clean: {:?}", Venue::ALL.map(|v| (v, self.warden(v, "verdict"))));
        Venue::ALL.iter().filter_map(|v| self.warden(*v, "proven_ns")).max().unwrap_or(proven_ns)
    }

    /// A figure of the engine.
    pub fn engine(&self, name: &str) -> i64 {
        let stats =
            StatsReader::open(&self.config.run.dir, engine_tile::STATS, Duration::from_secs(5));
        let snapshot = stats.unwrap().snapshot();
        let counter = snapshot.counter(name).and_then(|count| i64::try_from(count).ok());
        snapshot.gauge(name).or(counter).unwrap_or(0)
    }

    /// A client of the control port.
    pub fn sim(&self) -> Control {
        Control::new(self.control)
    }

    /// What reached the venues since a time.
    pub fn requests(&self, since_ns: i64) -> BTreeMap<String, Requests> {
        let path = format!("/truth/requests?account={ACCOUNT}&since_ns={since_ns}");
        let answer = self.sim().get(&path);
        let row = |row: &Value| {
            let arrivals = row["arrivals"].as_array().unwrap();
            let of = |kind: &str| {
                let wanted = arrivals.iter().filter(|a| a["kind"] == kind);
                wanted.filter_map(|a| a["at_ns"].as_i64()).collect::<Vec<_>>()
            };
            let requests = Requests {
                new: row["new"].as_u64().unwrap(),
                last_new_ns: row["last_new_ns"].as_i64().unwrap_or(0),
                cancels: match row["venue"] == "coinbase" {
                    true => [of("cancel"), of("query")].concat(),
                    false => of("cancel"),
                },
                news: of("new"),
            };
            (row["venue"].as_str().unwrap().to_owned(), requests)
        };
        answer["requests"].as_array().unwrap().iter().map(row).collect()
    }

    /// New orders that ever reached the venues.
    pub fn new_orders(&self) -> u64 {
        self.requests(now_ns()).values().map(|requests| requests.new).sum()
    }

    /// Waits until so many more new orders reached the venues.
    pub fn wait_orders(&self, more: u64, within: Duration) {
        let before = self.new_orders();
        let came = wait_for(within, || {
            std::thread::sleep(Duration::from_millis(5));
            if self.level() == Level::Pause {
                // A control paused it for what the last death left over: an operator looks and arms.
                self.arm();
            }
            before + more <= self.new_orders()
        });
        let page = self.page();
        assert!(
            came,
            "only {} of {more} orders; level {:?}, {:?}; {}",
            self.new_orders() - before,
            self.level(),
            Venue::ALL.map(|venue| LevelWord(page.level()).effective(venue)),
            self.say(&["why", "--over", "10s"]).out,
        );
    }

    /// Starts a fault.
    pub fn fault(&self, kind: &str, venue: &str, more: &Value) {
        let mut body = json!({"kind": kind, "venue": venue});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.sim().post("/fault", &body);
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.sim().post("/clear", &json!({}));
    }

    /// A process's kill -9, by its row's id.
    pub fn kill_9(&self, pid: u32) -> i64 {
        assert_ne!(pid, 0, "no such process");
        let at_ns = now_ns();
        signal(pid, 9);
        at_ns
    }

    /// Everything at once, as when the power goes.
    pub fn kill_all(&mut self) {
        let mut up = self.up.take().expect("it runs");
        let tiles = up.tiles();
        signal(up.pid(), 9);
        for pid in tiles.into_values() {
            signal(pid, 9);
        }
        up.stop();
    }

    /// Pauses, lets rounds end, stops everything in order.
    pub fn stop(&mut self) {
        let said = self.say(&["pause", "--reason", "test ends"]);
        assert_eq!(said.code, 0, "{said:?}");
        let ended = wait_for(Duration::from_secs(15), || {
            self.engine(engine_tile::metric::ROUNDS_OPEN) == 0
        });
        assert!(ended, "{} rounds do not end", self.engine(engine_tile::metric::ROUNDS_OPEN));
        self.up.take().expect("it runs").stop();
    }

    /// Compares our books with the venues'.
    pub fn truth(&self) -> Truth {
        truth::compare(Origin::of(&self.config), self.control, ACCOUNT).unwrap()
    }

    /// Orders of the account at the venues that are open now: ours and foreign.
    pub fn open_orders(&self) -> (usize, usize) {
        let answer = self.sim().get(&format!("/truth/orders?account={ACCOUNT}&limit=10000"));
        let rows = answer["orders"].as_array().unwrap();
        let open = rows
            .iter()
            .filter(|row| row["status"] == "open" || row["status"] == "partially_filled");
        let (foreign, ours): (Vec<&Value>, Vec<&Value>) =
            open.partition(|row| row["foreign"] == true);
        (ours.len(), foreign.len())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.up.take());
        if let Some(sim) = self.sim.take() {
            self.runtime.block_on(sim.shutdown());
        }
    }
}

/// Prints p50, p99 and the largest of times in ns, as milliseconds.
pub fn spread(times: &[i64]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |of: usize| times.get((times.len() * of / 100).min(times.len() - 1));
    let ms = |ns: Option<&i64>| ns.map_or(0.0, |ns| *ns as f64 / 1e6);
    format!("p50 {:.1} ms, p99 {:.1} ms, n {}", ms(at(50)), ms(at(99)), times.len())
}
