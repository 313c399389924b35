//! `kill -9` of the simulator, the feeds, the engine and the drain, 50 times at random moments.
//!
//! What is proven, for each kill: the other processes live on under the same ids; the one that was killed
//! comes back; every book is live again in the engine's eyes within a bound, and how long it took is
//! printed. The journal, followed all the time and checked every few kills, has no torn record, no gap
//! and no broken chain over all restarts of its writer, and at the end all its runs replay to the same
//! bytes.
//!
//! The venues are reached without TLS: a simulator makes a new certificate authority at each start, and
//! what is killed here must come back on the same terms.
//!
//! `TANDEM_KILLS=500` kills more often, `TANDEM_SEED=7` at other moments.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Control, Follower, RunDir, Up, signal, wait_for};
use tandem_core::record::Venue;
use tandem_sim::SimConfig;
use tandem_tools::demo;
use tandem_tools::demo_config;
use tandem_tools::time::now_ns;

const KILLS: u64 = 50;
/// Every book must be live again within this time after a kill.
const LIVE_WITHIN: Duration = Duration::from_secs(40);
/// Kills between two checks of the journal.
const CHECK_EVERY: u64 = 10;
const SEED: u64 = 5;

/// SplitMix64: enough to choose by, and the seed says it all.
struct Choice(u64);

impl Choice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// `tandem sim` on ports of its own.
struct Sim {
    child: Child,
    program: PathBuf,
    ca: PathBuf,
    port_base: u16,
}

impl Sim {
    fn start(dir: &RunDir) -> Sim {
        let (ca, port_base) = (dir.path().join("sim-ca.pem"), seven_ports());
        let program = dir.program();
        let child = Sim::spawn(&program, &ca, port_base);
        Sim { child, program, ca, port_base }
    }

    fn spawn(program: &PathBuf, ca: &PathBuf, port_base: u16) -> Child {
        let child = Command::new(program)
            .args(["sim", "--seed", &SEED.to_string(), "--port-base", &port_base.to_string()])
            .arg("--ca")
            .arg(ca)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        child.unwrap()
    }

    fn control(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port_base + 6))
    }

    fn is_up(&self) -> bool {
        let answer = Control::new(self.control()).ask("GET", "/status", "");
        answer.is_ok_and(|(status, _)| status == 200)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Sim::spawn(&self.program, &self.ca, self.port_base);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seven free ports in a row, below those that the system gives to clients.
fn seven_ports() -> u16 {
    let mut choice = Choice(u64::from(std::process::id()));
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..100)
        .map(|_| 20_000 + choice.below(11_000) as u16)
        .find(|base| (*base..*base + 7).all(is_free))
        .expect("seven free ports in a row")
}

/// The demo's configuration without TLS.
fn config_text(dir: &RunDir, sim: &Sim) -> String {
    let answer = Control::new(sim.control()).get("/endpoints");
    let addresses: tandem_sim::Addresses = serde_json::from_value(answer).unwrap();
    let sim_config = SimConfig::demo(SEED);
    let symbols = demo::sim_symbols(&sim_config);
    let mut text = demo_config::text(
        dir.path(),
        &addresses,
        &sim_config,
        &symbols,
        None,
        &demo_config::Dashboard::make(dir.path()).unwrap(),
    );
    for at in addresses.venues.values() {
        let tls = format!("s://127.0.0.1:{}\"", at.tls.port());
        text = text.replace(&tls, &format!("://127.0.0.1:{}\"", at.plain.port()));
    }
    let plain: Vec<&str> = text.lines().filter(|l| !l.starts_with("tls_ca_file")).collect();
    // Each engine begins a segment: many small ones. 100 levels cost 5 of Binance's 6000 a minute.
    (plain.join("\n") + "\n")
        .replace("segment_mib = 32\nsegments_max = 40", "segment_mib = 8\nsegments_max = 400")
        .replace("[venue.binance]", "[venue.binance]\ndepth = 100")
}

/// What was killed, and when.
struct Kill {
    what: String,
    at_ns: i64,
    runs_before: u64,
    /// The process, 0 for the simulator.
    pid: u32,
}

impl Kill {
    /// Whether the engine felt it: only then does "live" mean live again.
    fn is_felt(&self, follower: &Follower, tiles: &BTreeMap<String, u32>) -> bool {
        let seen = follower.seen();
        let lost = |venue: Venue| seen.lost_after(venue, self.at_ns).is_some();
        match self.what.as_str() {
            "engine" => self.runs_before < seen.runs,
            // Nothing in front of the journal feels it: it is back when another process has its place.
            "drain" => tiles.get("drain").is_some_and(|pid| *pid != self.pid),
            "sim" => Venue::ALL.into_iter().all(lost),
            feed => Venue::ALL.into_iter().filter(|venue| feed.ends_with(venue.name())).all(lost),
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn check_journal(dir: &RunDir, words: &[&str]) -> String {
    let mut args: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
    let journal = dir.path().join("journal");
    args.push(journal.as_os_str());
    let (good, said) = support::tandem(&args);
    assert!(good, "{words:?}: {said}");
    said
}

#[test]
fn any_process_may_be_killed_at_any_moment() {
    let dir = RunDir::new("kill");
    let mut sim = Sim::start(&dir);
    assert!(wait_for(Duration::from_secs(20), || sim.is_up()), "the simulator did not start");
    let text = config_text(&dir, &sim);
    let mut up = Up::start(&dir, &text);
    let follower = Follower::start(dir.path().join("journal"));
    let begun = Instant::now();
    assert!(follower.wait_live(None, Duration::ZERO, Duration::from_secs(60)), "no start");
    println!("all books live {} ms after the start", begun.elapsed().as_millis());

    let names = ["engine", "feed binance", "feed coinbase", "feed kraken", "drain", "sim"];
    let kills = number("TANDEM_KILLS", KILLS);
    let mut choice = Choice(number("TANDEM_SEED", SEED));
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let (mut done, mut next_check) = (0, CHECK_EVERY);
    while done < kills {
        // The moment is to be any moment, so this wait is for nothing.
        std::thread::sleep(Duration::from_millis(choice.below(700)));
        let (tiles, sim_pid) = (up.tiles(), sim.child.id());
        assert_eq!(tiles.len(), names.len() - 1, "{tiles:?}");
        let first = choice.below(names.len() as u64) as usize;
        let mut victims = vec![names[first]];
        // Sometimes another one while the first is on its way back.
        if choice.below(4) == 0 && done + 1 < kills {
            let other = 1 + choice.below(names.len() as u64 - 1) as usize;
            victims.push(names[(first + other) % names.len()]);
        }
        let mut killed: Vec<Kill> = Vec::new();
        for what in &victims {
            if !killed.is_empty() {
                std::thread::sleep(Duration::from_millis(choice.below(300)));
            }
            let runs_before = follower.seen().runs;
            let pid = tiles.get(*what).copied().unwrap_or(0);
            killed.push(Kill { what: (*what).to_owned(), at_ns: now_ns(), runs_before, pid });
            match tiles.get(*what) {
                Some(pid) => signal(*pid, 9),
                None => {
                    sim.kill();
                    sim.restart();
                }
            }
        }
        let back = wait_for(LIVE_WITHIN, || {
            let tiles = up.tiles();
            killed.iter().all(|kill| kill.is_felt(&follower, &tiles))
                && follower.seen().all_live(None)
        });
        let (live_ns, back_ns) = (follower.seen().live_since(None), now_ns());
        let now = up.tiles();
        assert!(back, "not live again after kill {done} of {victims:?}; {now:?}");
        assert!(up.is_alive(), "the supervisor died with {victims:?}");
        for name in names {
            let is_victim = victims.contains(&name);
            let same = match name {
                "sim" => sim.child.try_wait().unwrap().is_none() && sim.child.id() == sim_pid,
                tile => now.get(tile) == tiles.get(tile),
            };
            assert_eq!(same, !is_victim, "{name} after {victims:?}: {tiles:?}, {now:?}");
        }
        // Two at once come back together: each counts from its own kill.
        for kill in &killed {
            let until_ns = if kill.what == "drain" { back_ns } else { live_ns };
            times.entry(kill.what.clone()).or_default().push((until_ns - kill.at_ns) / 1_000_000);
        }
        done += killed.len() as u64;
        if next_check <= done {
            next_check += CHECK_EVERY;
            check_journal(&dir, &["journal", "verify"]);
        }
    }
    up.stop();
    let runs = follower.seen().runs;
    println!("\n{:<14} {:>5} {:>16} {:>16}", "killed", "times", "live p50 ms", "live max ms");
    for (what, times) in &mut times {
        times.sort_unstable();
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{what:<14} {:>5} {middle:>16} {last:>16}", times.len());
    }
    println!("{done} kills, {runs} engines, {:.0} s", begun.elapsed().as_secs_f64());
    println!("verify: {}", check_journal(&dir, &["journal", "verify"]).trim());
    println!("replay: {}", check_journal(&dir, &["replay", "--verify"]).trim());
    let records = follower.seen().records;
    assert!(0 < records, "nothing was followed");
}
