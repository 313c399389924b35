//! The alert path end to end: the binary, its configuration, closed files, and services on loopback that
//! misbehave.
//!
//! Secrets here are canaries: they are looked for in everything that a process shows of itself, with every
//! log switched on.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../drain/tests/support/receiver.rs"]
mod receiver;
mod support;
#[path = "support/trading.rs"]
mod trading;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use receiver::{Mode, Receiver};
use serde_json::Value;
use support::{RunDir, signal, wait_for};
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_shm::ControlPage;
use tandem_tools::config::Config;
use tandem_tools::engine_tile;
use tandem_tools::latch::{self, Act};
use tandem_tools::stages;

const SAMPLE: &str = include_str!("../../../deploy/tandem.toml");
/// No text of any secret may be shown anywhere.
const CANARY: &str = "c4n4rysecret";

/// Services, secrets and a configuration.
struct Setup {
    dir: RunDir,
    slack: Receiver,
    telegram: Receiver,
    webhook: Receiver,
    heartbeat: Receiver,
}

impl Setup {
    fn new(test: &str) -> Setup {
        let dir = RunDir::new(test);
        let setup = Setup {
            dir,
            slack: Receiver::new(),
            telegram: Receiver::new(),
            webhook: Receiver::new(),
            heartbeat: Receiver::new(),
        };
        setup.secret("slack", &setup.slack.url(&format!("/services/{CANARY}")));
        setup.secret("telegram", &format!("42:{CANARY}"));
        setup.secret("webhook", &setup.webhook.url(&format!("/hook?key={CANARY}")));
        setup.secret("hmac", CANARY);
        setup.secret("heartbeat", &setup.heartbeat.url(&format!("/beat/{CANARY}")));
        setup
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("secret-{name}"))
    }

    fn secret(&self, name: &str, text: &str) {
        let path = self.place(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }

    /// `[alerts]` with short times.
    fn alerts(&self) -> String {
        let place = |name: &str| self.place(name).display().to_string();
        format!(
            "\n[alerts]\nsystem = \"test\"\nheartbeat_url_file = \"{}\"\nheartbeat_s = 1\ngroup_ms = 100\n\
             http_timeout_ms = 500\nretry_s = 2\nprobe_ms = 300\nlost_ms = 1000\npause_when_lost = true\n\
             resolve_s = 1\nmessages_per_min = 60\n\
             [[alerts.channel]]\nname = \"ops\"\nservice = \"slack\"\nurl_file = \"{}\"\n\
             [[alerts.channel]]\nname = \"phone\"\nservice = \"telegram\"\ntoken_file = \"{}\"\n\
             chat_id = \"-7\"\napi_url = \"{}\"\nseverity_min = \"page\"\n\
             [[alerts.channel]]\nname = \"desk\"\nservice = \"webhook\"\nurl_file = \"{}\"\n\
             hmac_key_file = \"{}\"\nseverity_min = \"ticket\"\n",
            place("heartbeat"),
            place("slack"),
            place("telegram"),
            self.telegram.url(""),
            place("webhook"),
            place("hmac"),
        )
    }

    /// Writes the shipped configuration, on paper, with alerts.
    fn config(&self) -> PathBuf {
        let (run, state) = (self.dir.path().join("run"), self.dir.path().join("state"));
        let text = SAMPLE
            .replacen("/dev/shm/tandem", &run.display().to_string(), 1)
            .replacen("/var/lib/tandem", &state.display().to_string(), 1)
            .replacen("mode = \"observe\"", "mode = \"paper\"", 1);
        let path = self.dir.path().join("tandem.toml");
        fs::write(&path, text + &self.alerts()).unwrap();
        path
    }

    fn say(&self, words: &[&str], config: &Path) -> Output {
        Command::new(self.dir.program())
            .args(words)
            .arg("--config")
            .arg(config)
            .env("TANDEM_LOG", "trace")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts the drain with every log on; what it says goes to a file.
    fn drain(&self, config: &Path) -> Drain {
        let log = self.dir.path().join("drain.log");
        let child = Command::new(self.dir.program())
            .arg("drain")
            .arg("--config")
            .arg(config)
            .env("TANDEM_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Drain { child, log }
    }
}

struct Drain {
    child: Child,
    log: PathBuf,
}

impl Drain {
    fn stop(&mut self) -> i32 {
        signal(self.child.id(), 15);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn says(receiver: &Receiver, word: &str) -> bool {
    receiver.messages().iter().any(|seen| seen.body.to_string().contains(word))
}

/// What was told there, as text.
fn texts(receiver: &Receiver) -> Vec<String> {
    receiver.messages().iter().map(|seen| seen.body.to_string()).collect()
}

fn holds_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

#[test]
fn alerts_test_says_who_took_what() {
    let setup = Setup::new("alerts-test");
    let config = setup.config();
    let said = setup.say(&["alerts", "test", "--json"], &config);
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((said.status.code(), &report["ok"]), (Some(0), &true.into()), "{said:?}");
    assert_eq!(report["messages"].as_array().unwrap().len(), 3 * 3 + 1);
    for service in [&setup.slack, &setup.telegram, &setup.webhook] {
        for severity in ["INFO", "TICKET", "PAGE"] {
            assert!(says(service, severity), "{severity}");
        }
    }
    assert_eq!(setup.heartbeat.seen()[0].body["type"], "watchdog");

    setup.telegram.set(Mode::Say(401, Vec::new(), format!("bot42:{CANARY}"), usize::MAX));
    setup.webhook.set(Mode::Hang);
    let said = setup.say(&["alerts", "test"], &config);
    let text = String::from_utf8(said.stdout.clone()).unwrap();
    assert_eq!(said.status.code(), Some(3));
    assert_eq!(text.matches("HTTP 401").count(), 3, "{text}");
    assert_eq!(text.matches("no answer in time").count(), 3, "{text}");
    assert_eq!(text.matches("delivered").count(), 4, "{text}");

    fs::set_permissions(setup.place("slack"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = setup.say(&["alerts", "test"], &config);
    assert_eq!(refused.status.code(), Some(4));
    let up = setup.say(&["up"], &config);
    assert_eq!(up.status.code(), Some(4), "a run whose alerts nobody gets does not begin");
    setup.secret("slack", &format!("http://example.com/{CANARY}"));
    let plain = setup.say(&["alerts", "test"], &config);
    assert_eq!(plain.status.code(), Some(2), "an address in plain text that is not on this host");
    let shown = setup.say(&["config", "show", "--json"], &config);
    for said in [said, refused, up, plain, shown] {
        assert!(!holds_canary(&said.stdout) && !holds_canary(&said.stderr), "{said:?}");
    }
    let none = setup.dir.path().join("none.toml");
    fs::write(&none, SAMPLE).unwrap();
    assert_eq!(setup.say(&["alerts", "test"], &none).status.code(), Some(2));
}

/// Row OP-06: the first channel blocked is known through the second; two blocked raise PAUSE on the level word,
/// as an operator would, with a cause of its own and in the audit log. No secret is shown by the process.
#[test]
fn a_drain_whose_channels_are_blocked_pauses() {
    let setup = Setup::new("alerts-pause");
    let config = setup.config();
    let (run, state) = (setup.dir.path().join("run"), setup.dir.path().join("state"));
    fs::create_dir_all(&run).unwrap();
    let page = latch::open(&run, &state).unwrap();
    let act = Act { who: "test", reason: "armed" };
    assert!(latch::lower(&page, &state, (Scope::Global, Level::Armed), &act).unwrap());
    let level = |page: &ControlPage| LevelWord(page.level()).of(Scope::Global);

    let mut drain = setup.drain(&config);
    assert!(setup.webhook.wait(Duration::from_secs(10), |_| true).is_some(), "probed");
    let second = setup.say(&["drain"], &config);
    assert_eq!(second.status.code(), Some(4), "two drains would tell everything twice: {second:?}");
    assert!(wait_for(Duration::from_secs(10), || says(&setup.slack, "ARMED")));
    // Nothing is armed that nobody would hear of.
    let told = || {
        let stages = stages::check(&Config::load(&config).unwrap());
        stages.iter().find(|stage| stage.id == "S2").unwrap().detail.clone()
    };
    assert!(told().contains("engine does not run"), "{}", told());
    assert!(setup.telegram.messages().is_empty(), "good to know is for those who want it");

    let blocked = Instant::now();
    setup.slack.set(Mode::Hang);
    let within = Duration::from_secs(10);
    assert!(wait_for(within, || says(&setup.webhook, "alert-channel/ops")));
    let known = blocked.elapsed();
    assert_eq!(level(&page), Level::Armed, "two channels work");
    setup.telegram.set(Mode::Close);
    let blocked = Instant::now();
    assert!(wait_for(within, || level(&page) == Level::Pause));
    let paused = blocked.elapsed();
    assert_eq!(LevelWord(page.level()).cause(), Some(Cause::Alerts));
    println!(
        "figure OP-06: the process with probe 300 ms and lost 1000 ms: one blocked channel known in {} ms, two \
         blocked paused in {} ms; as shipped (30 s and 60 s) within 92 s",
        known.as_millis(),
        paused.as_millis(),
    );
    assert!(wait_for(within, || says(&setup.webhook, "PAUSE: alert channels lost")));
    let file = fs::read_to_string(state.join("level.json")).unwrap();
    assert!(
        file.contains("\"drain\"") && file.contains("channels ops and phone are lost"),
        "{file}"
    );

    // Nobody's word but an operator's arms again, and his word counts.
    assert!(latch::lower(&page, &state, (Scope::Global, Level::Armed), &act).unwrap());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(level(&page), Level::Armed, "once for each time that they are lost");
    setup.slack.set(Mode::Well);
    setup.telegram.set(Mode::Well);
    assert!(wait_for(within, || says(&setup.webhook, "\"resolved\"")));

    let pid = drain.child.id();
    for file in ["cmdline", "environ"] {
        assert!(!holds_canary(&fs::read(format!("/proc/{pid}/{file}")).unwrap()), "{file}");
    }
    assert_eq!(drain.stop(), 0);
    assert!(told().contains("drain does not run"), "{}", told());
    let log = fs::read(&drain.log).unwrap();
    assert!(log.len() > 1_000, "every log was on");
    assert!(!holds_canary(&log), "{}", String::from_utf8_lossy(&log));
    for folder in [&run, &state] {
        for file in fs::read_dir(folder).unwrap().flatten() {
            let bytes = fs::read(file.path()).unwrap_or_default();
            assert!(!holds_canary(&bytes), "{}", file.path().display());
        }
    }
}

/// CPU time of a process, in the kernel's clock ticks of 10 ms.
fn cpu_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    10 * (ticks(11) + ticks(12))
}

/// A live run on simulated venues: what happens to it reaches people in five seconds, once.
#[test]
fn a_live_run_is_told_of() {
    let setup = Setup::new("alerts-live-channels");
    let alerts = setup.alerts();
    let mut live = trading::Live::with("alerts-live", |_| {}, |text| text + &alerts);
    live.trade();
    let within = Duration::from_secs(10);
    assert!(wait_for(within, || says(&setup.slack, "-&gt; ARMED (operator)")), "armed");
    let pages = texts(&setup.telegram);
    assert!(pages.is_empty(), "a start that goes well calls nobody: {pages:#?}");

    // Ten seconds of trading that goes well.
    let drain = live.up.as_ref().unwrap().tiles()["drain"];
    let (cpu, seq) = (cpu_ms(drain), live.engine(engine_tile::metric::JOURNAL_SEQ));
    std::thread::sleep(Duration::from_secs(10));
    println!(
        "drain: {} ms of CPU in ten seconds, for {} records",
        cpu_ms(drain) - cpu,
        live.engine(engine_tile::metric::JOURNAL_SEQ) - seq
    );
    let pages = texts(&setup.telegram);
    assert!(
        pages.is_empty(),
        "trading that goes well calls nobody: {pages:#?}; everything told: {:#?}; {}",
        texts(&setup.webhook),
        live.say(&["why", "--over", "20s"]).out,
    );
    let begun = Instant::now();
    live.kill_9(live.engine_pid());
    assert!(wait_for(within, || says(&setup.telegram, "KILL is set")), "an engine that died");
    let told = begun.elapsed();
    println!("engine killed: the phone rings after {} ms", told.as_millis());
    assert!(told < Duration::from_secs(5), "{told:?}");
    assert!(wait_for(within, || says(&setup.webhook, "process-restart/engine")));
    // Nothing pages twice about one death.
    std::thread::sleep(Duration::from_secs(2));
    let messages = setup.telegram.messages();
    let kills = messages.iter().filter(|m| m.body.to_string().contains("kill · since"));
    assert_eq!(kills.count(), 1, "{messages:?}");
    assert!(messages.len() <= 3, "at most three pages of one incident: {messages:?}");
    assert!(Path::new(&format!("/proc/{drain}")).exists());
    let beats = setup.heartbeat.seen().len();
    assert!(5 < beats, "{beats}");
    for told in setup.slack.messages() {
        let blocks = told.body["blocks"].as_array().unwrap().iter();
        blocks.for_each(|block| println!("told: {:?}", block["text"]["text"].as_str().unwrap()));
    }
    // An orderly end waits for the proof of a killed run; that is another test's.
    live.kill_all();
}
