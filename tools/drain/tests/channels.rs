//! The alert path against services on loopback: what they get, and what a broken one costs the others.
//!
//! `support/receiver.rs` says how a service may misbehave.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/receiver.rs"]
mod receiver;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use receiver::{Mode, Receiver, Seen};
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::record::Venue;
use tandem_drain::alerts::book::BookSettings;
use tandem_drain::alerts::channel::ChannelSpec;
use tandem_drain::alerts::path::{self, PathSettings, Wanted};
use tandem_drain::alerts::rules::Thresholds;
use tandem_drain::alerts::wire::{Sender, Service};
use tandem_drain::alerts::{Alerts, Settings, Severity};
use tandem_drain::plan::Names;
use tandem_drain::source::{Life, Look, PartLook, now_ns};
use tandem_drain::{Hands, Plan, Sink};
use tandem_gateway::keys::Secret;

const MS: Duration = Duration::from_millis(1);

fn plan() -> Plan {
    let name = String::new;
    Plan {
        dir: PathBuf::new(),
        journal: PathBuf::new(),
        segments_max: 4,
        segment_frames: 1_000,
        trades: true,
        is_live: false,
        venues: Venue::ALL.into(),
        parts: Vec::new(),
        names: Names {
            engine_stats: name(),
            journal_full: name(),
            outputs_lost: name(),
            overruns: name(),
            exposure_ppm: name(),
            warden_stats: name(),
            warden_verdict: BTreeMap::new(),
        },
        read_run: |_| Err("no run here".to_owned()),
        instruments: BTreeMap::new(),
    }
}

fn slack(url: &str) -> Service {
    Service::Slack { url: Secret::from(url) }
}

fn telegram(api_url: String) -> Service {
    Service::Telegram { api_url, token: Secret::from("42:token"), chat_id: "-7".to_owned() }
}

fn webhook(url: &str) -> Service {
    Service::Webhook { url: Secret::from(url), hmac_key: Some(Secret::from("key")) }
}

fn spec(name: &str, service: Service) -> ChannelSpec {
    ChannelSpec {
        name: name.to_owned(),
        service,
        ca_file: None,
        timeout: 600 * MS,
        group: 100 * MS,
        retry: 5_000 * MS,
        probe: 300 * MS,
        messages_per_min: 60,
    }
}

fn wanted(spec: ChannelSpec, severity_min: Severity) -> Wanted {
    Wanted { spec, severity_min }
}

fn settings(channels: Vec<Wanted>) -> Settings {
    Settings {
        thresholds: Thresholds { down: Duration::ZERO, ..Thresholds::default() },
        book: BookSettings { repeat: Duration::from_secs(3_600), resolve: 300 * MS },
        path: PathSettings {
            sender: Sender { system: "test".to_owned(), runbook_url: "books".to_owned() },
            channels,
            heartbeat: None,
            lost_after: 1_000 * MS,
            pause_when_lost: false,
        },
    }
}

/// What was paused, and why.
#[derive(Clone, Default)]
struct Paused(Arc<Mutex<Vec<String>>>);

impl Hands for Paused {
    fn pause(&mut self, reason: &str) -> Result<bool, String> {
        self.0.lock().unwrap().push(reason.to_owned());
        Ok(true)
    }
}

/// The sink, with a world whose processes die as told.
struct World {
    alerts: Alerts,
    look: Look,
}

impl World {
    fn new(settings: Settings, hands: Option<Box<dyn Hands>>) -> World {
        let alerts = Alerts::start(&plan(), settings, hands).unwrap();
        World { alerts, look: Look { level: Some(LevelWord::PAUSED), ..Look::default() } }
    }

    fn die(&mut self, names: &[String]) {
        let part = |name: &String| PartLook {
            name: name.clone(),
            venue: None,
            life: Life::Dead,
            generation: 1,
            config: 0,
        };
        self.look.parts = names.iter().map(part).collect();
    }

    fn step(&mut self) {
        self.look.now_ns = now_ns();
        self.alerts.look(&self.look);
        std::thread::sleep(20 * MS);
    }

    /// Looks until it is so; how long it took.
    fn until(&mut self, within: Duration, is_so: impl Fn(&World) -> bool) -> Duration {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < within, "not within {within:?}: {:?}", self.health());
            self.step();
        }
        begun.elapsed()
    }

    fn run(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.step();
        }
    }

    fn health(&self) -> Vec<(String, tandem_drain::alerts::channel::Health)> {
        self.alerts.path().health().map(|(name, health)| (name.to_owned(), health)).collect()
    }
}

fn engine() -> [String; 1] {
    ["engine".to_owned()]
}

/// What a message says, whatever the service.
fn text(seen: &Seen) -> String {
    seen.body.to_string()
}

fn says(receiver: &Receiver, word: &str) -> bool {
    receiver.messages().iter().any(|seen| text(seen).contains(word))
}

/// Each service gets what its documentation says, and both ends of an alert.
#[test]
fn every_service_is_told_and_told_the_end() {
    let services = [Receiver::new(), Receiver::new(), Receiver::new()];
    let mut world = World::new(
        settings(vec![
            wanted(spec("a", slack(&services[0].url("/services/T/B/x"))), Severity::Info),
            wanted(spec("b", telegram(services[1].url(""))), Severity::Info),
            wanted(spec("c", webhook(&services[2].url("/hook"))), Severity::Info),
        ]),
        None,
    );
    world.die(&engine());
    let took = world.until(3_000 * MS, |_| services.iter().all(|s| says(s, "process-down/engine")));
    println!("three services told {} ms after the fault", took.as_millis());
    let [a, b, c] = services.each_ref().map(|service| service.messages()[0].clone());
    assert_eq!(a.path, "/services/T/B/x");
    assert_eq!(a.body["text"], "[PAGE] test: a process is down");
    assert!(
        a.body["blocks"][0]["text"]["text"]
            .as_str()
            .unwrap()
            .contains("books/deploy-and-roll-back.md")
    );
    assert_eq!((b.path.as_str(), &b.body["chat_id"]), ("/bot42:token/sendMessage", &"-7".into()));
    assert_eq!(c.body["alerts"][0]["state"], "firing");
    assert_eq!(c.body["alerts"][0]["fingerprint"], "process-down/engine");
    assert!(c.header("X-Tandem-Signature").unwrap().starts_with("sha256="));
    for seen in [&a, &b, &c] {
        assert_eq!(seen.header("Content-Type"), Some("application/json"));
        assert_eq!(seen.header("User-Agent"), Some("tandem"));
    }
    world.look.parts.clear();
    world.until(3_000 * MS, |_| {
        says(&services[0], "RESOLVED")
            && says(&services[1], "RESOLVED")
            && says(&services[2], "resolved")
    });
    // Two messages each, whatever number of looks there was.
    assert_eq!(services.each_ref().map(|s| s.messages().len()), [2, 2, 2]);
}

/// Many alerts at once are one message; the same ones go on and are no more.
#[test]
fn what_happens_together_is_one_message() {
    let service = Receiver::new();
    let channel = wanted(spec("a", webhook(&service.url("/"))), Severity::Info);
    let mut world = World::new(settings(vec![channel]), None);
    let names: Vec<String> = (0..40).map(|n| format!("feed {n}")).collect();
    world.die(&names);
    world.run(1_500 * MS);
    let messages = service.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].body["alerts"].as_array().unwrap().len(), 40);
}

/// More than a channel takes a minute waits, and becomes one message.
#[test]
fn a_flood_is_kept_back_and_told_whole() {
    let service = Receiver::new();
    let slow = ChannelSpec {
        messages_per_min: 30,
        group: Duration::ZERO,
        ..spec("a", webhook(&service.url("/")))
    };
    let mut world = World::new(settings(vec![wanted(slow, Severity::Info)]), None);
    for n in 0..120 {
        let names: Vec<String> = (0..=n).map(|n| format!("feed {n}")).collect();
        world.die(&names);
        world.step();
    }
    world.until(10_000 * MS, |_| says(&service, "process-down/feed 119"));
    let messages = service.messages();
    let told: usize = messages.iter().map(|m| m.body["alerts"].as_array().unwrap().len()).sum();
    assert_eq!(told, 120);
    assert!(messages.len() <= 34, "30 at once and one every two seconds: {}", messages.len());
}

/// A severity goes to who wants it; where nobody who wants it works, to whoever works.
#[test]
fn severities_have_their_channels_and_a_way_around() {
    let (all, pages) = (Receiver::new(), Receiver::new());
    let mut world = World::new(
        settings(vec![
            wanted(spec("all", slack(&all.url("/s"))), Severity::Info),
            wanted(spec("pages", webhook(&pages.url("/w"))), Severity::Page),
        ]),
        None,
    );
    let arm = |world: &mut World| {
        world.look.level = world.look.level.unwrap().lowered(Scope::Global, Level::Armed);
    };
    world.run(100 * MS);
    arm(&mut world);
    world.until(3_000 * MS, |_| says(&all, "PAUSE -&gt; ARMED"));
    assert!(pages.messages().is_empty(), "armed is good to know: {:?}", pages.messages());
    world.die(&engine());
    world.until(3_000 * MS, |_| says(&all, "process-down") && says(&pages, "process-down"));
    all.set(Mode::Say(404, Vec::new(), "no_service".to_owned(), usize::MAX));
    world.until(3_000 * MS, |_| says(&pages, "alert-channel/all"));
    assert!(says(&pages, "HTTP 404: no_service"));
    world.look.level =
        world.look.level.unwrap().raised(Scope::Global, Level::Pause, Cause::Operator);
    world.step();
    arm(&mut world);
    world.run(1_000 * MS);
    // The event is one of the same name, told once already: a new kind of it goes around.
    world.look.feed_disconnects.insert(Venue::Kraken, 0);
    world.step();
    world.look.feed_disconnects.insert(Venue::Kraken, 1);
    world.until(3_000 * MS, |_| says(&pages, "reconnect/feed kraken"));
    all.set(Mode::Well);
    world.until(5_000 * MS, |_| {
        pages.messages().iter().any(|seen| {
            seen.body["alerts"].as_array().unwrap().iter().any(|alert| {
                alert["fingerprint"] == "alert-channel/all" && alert["state"] == "resolved"
            })
        })
    });
}

/// One that is told "not now" waits as long as it is told.
#[test]
fn retry_after_is_kept() {
    let (a, b) = (Receiver::new(), Receiver::new());
    let wait = vec![("Retry-After", "1".to_owned())];
    let body = r#"{"ok":false,"error_code":429,"parameters":{"retry_after":1}}"#.to_owned();
    let quiet = |spec| ChannelSpec { probe: Duration::from_secs(60), ..spec };
    let mut world = World::new(
        settings(vec![
            wanted(quiet(spec("a", slack(&a.url("/s")))), Severity::Info),
            wanted(quiet(spec("b", telegram(b.url("")))), Severity::Info),
        ]),
        None,
    );
    world.run(300 * MS);
    a.set(Mode::Say(429, wait, String::new(), 1));
    b.set(Mode::Say(429, Vec::new(), body, 1));
    world.die(&engine());
    world.until(6_000 * MS, |_| a.messages().len() == 2 && b.messages().len() == 2);
    for service in [&a, &b] {
        let messages = service.messages();
        let between = messages[1].at - messages[0].at;
        assert!(Duration::from_secs(1) <= between, "{between:?}");
        assert_eq!(messages[0].body, messages[1].body, "the same again");
    }
}

/// An error of the service is tried again until it is over; each time it is the same message.
#[test]
fn errors_are_tried_again() {
    let service = Receiver::new();
    let quiet =
        ChannelSpec { probe: Duration::from_secs(60), ..spec("a", slack(&service.url("/s"))) };
    let mut world = World::new(settings(vec![wanted(quiet, Severity::Info)]), None);
    world.run(300 * MS);
    service.set(Mode::Say(500, Vec::new(), "rollup_error".to_owned(), 3));
    world.die(&engine());
    world.until(9_000 * MS, |world| world.health()[0].1.delivered == 1);
    assert_eq!(service.messages().len(), 4);
    assert_eq!(world.health()[0].1.failed, 3);
}

/// Whatever one service does, the other is told as fast as ever; and what the broken one is, is known.
#[test]
fn a_broken_service_costs_only_its_own_channel() {
    let closed = {
        // An address where nobody listens.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let modes: Vec<(&str, Option<Mode>)> = vec![
        ("refuses", None),
        ("hangs", Some(Mode::Hang)),
        ("closes", Some(Mode::Close)),
        ("is too slow", Some(Mode::Slow(1_500 * MS))),
        ("says 500", Some(Mode::Say(500, Vec::new(), String::new(), usize::MAX))),
        (
            "says wait for ever",
            Some(Mode::Say(
                429,
                vec![("Retry-After", u64::MAX.to_string())],
                String::new(),
                usize::MAX,
            )),
        ),
        ("says nonsense", Some(Mode::Garbage)),
    ];
    for (name, mode) in modes {
        let (bad, good) = (Receiver::new(), Receiver::new());
        let url = match mode {
            Some(mode) => {
                bad.set(mode);
                bad.url("/s")
            }
            None => format!("http://{closed}/s"),
        };
        let mut world = World::new(
            settings(vec![
                wanted(spec("bad", slack(&url)), Severity::Info),
                wanted(spec("good", webhook(&good.url("/w"))), Severity::Info),
            ]),
            None,
        );
        world.die(&engine());
        let told = world.until(1_500 * MS, |_| says(&good, "process-down/engine"));
        let known = world.until(4_000 * MS, |_| says(&good, "alert-channel/bad"));
        let why = world.health()[0].1.why.clone();
        println!(
            "{name}: told in {} ms, lost known after {} ms more: {why}",
            told.as_millis(),
            known.as_millis()
        );
        assert!(!why.is_empty() || name == "hangs", "{name}");
        let begun = Instant::now();
        world.alerts.close(2_000 * MS);
        assert!(begun.elapsed() < 2_500 * MS, "{name}: the end is bounded");
    }
}

/// A slow service that answers in time is a working one.
#[test]
fn slow_is_not_lost() {
    let service = Receiver::new();
    service.set(Mode::Slow(300 * MS));
    let channel = wanted(spec("a", webhook(&service.url("/"))), Severity::Info);
    let mut world = World::new(settings(vec![channel]), None);
    world.die(&engine());
    world.run(2_500 * MS);
    let (_, health) = &world.health()[0];
    assert_eq!((health.delivered, health.failed), (1, 0), "{health:?}");
    assert!(1 < health.probed);
}

/// Certificates are checked: the configured authority's are believed, others are not.
#[test]
fn tls_with_a_configured_authority() {
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let path =
            std::env::temp_dir().join(format!("tandem-drain-{}-{name}.pem", std::process::id()));
        std::fs::write(&path, certificate.pem()).unwrap();
        (path, rcgen::Issuer::new(params, key))
    };
    let (path, issuer) = authority("ours");
    let (other, _) = authority("other");
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let service = Receiver::with(Some(Arc::new(config)));
    let of = |ca_file: Option<&PathBuf>| {
        let spec = ChannelSpec {
            ca_file: ca_file.cloned(),
            timeout: 3_000 * MS,
            ..spec("tls", slack(&service.url("/s")))
        };
        let settings = settings(vec![wanted(spec, Severity::Info)]);
        path::test(&settings.path).unwrap().into_iter().map(|t| t.failed).collect::<Vec<_>>()
    };
    assert_eq!(of(Some(&path)), [None, None, None]);
    assert_eq!(service.messages().len(), 3);
    for wrong in [Some(&other), None] {
        for why in of(wrong) {
            assert!(why.as_ref().is_some_and(|why| why.contains("TLS")), "{why:?}");
        }
    }
    assert_eq!(service.messages().len(), 3, "nothing was sent to who could not prove who it is");
    let _ = (std::fs::remove_file(path), std::fs::remove_file(other));
}

/// Row OP-06: a blocked channel is told through the second one, and two blocked ones pause, within a time
/// that the configuration gives; the watchdog's heartbeat goes out while one works and stops when none does.
#[test]
fn a_lost_channel_is_told_and_two_lost_ones_pause() {
    let (first, second, heartbeat) = (Receiver::new(), Receiver::new(), Receiver::new());
    let mut settings = settings(vec![
        wanted(spec("first", slack(&first.url("/s"))), Severity::Info),
        wanted(spec("second", webhook(&second.url("/w"))), Severity::Info),
    ]);
    let watchdog = Service::Heartbeat { url: Secret::from(heartbeat.url("/beat").as_str()) };
    settings.path.heartbeat = Some(ChannelSpec { probe: 100 * MS, ..spec("heartbeat", watchdog) });
    settings.path.pause_when_lost = true;
    let paused = Paused::default();
    let mut world = World::new(settings, Some(Box::new(paused.clone())));
    world.run(1_000 * MS);
    assert_eq!((first.messages().len(), second.messages().len()), (0, 0), "nothing is wrong");
    let beats = heartbeat.seen().len();
    assert!((3..=11).contains(&beats), "always firing, every 100 ms: {beats}");
    assert_eq!(heartbeat.seen()[0].body["type"], "watchdog");

    first.set(Mode::Hang);
    let known = world.until(3_000 * MS, |_| says(&second, "alert-channel/first"));
    assert!(paused.0.lock().unwrap().is_empty(), "one works");
    second.set(Mode::Close);
    let pause = world.until(3_000 * MS, |_| !paused.0.lock().unwrap().is_empty());
    // Probe (0.3 s) and loss (1 s) here; 30 s and 60 s as shipped.
    let scale = |took: Duration, more: Duration| {
        (took.saturating_sub(1_300 * MS) + Duration::from_secs(90) + more).as_secs_f64()
    };
    println!(
        "figure OP-06: first channel blocked, known through the second in {} ms; both blocked, paused in {} \
         ms; with probe 300 ms and lost 1000 ms, as shipped (30 s, 60 s) at most {:.0} s and {:.0} s",
        known.as_millis(),
        pause.as_millis(),
        scale(known, Duration::from_secs(1)),
        scale(pause, Duration::ZERO),
    );
    assert_eq!(*paused.0.lock().unwrap(), ["alert channels first and second are lost"]);
    world.run(500 * MS);
    let before = heartbeat.seen().len();
    world.run(1_000 * MS);
    assert!(heartbeat.seen().len() <= before + 1, "nobody would hear: the watchdog is silent");
    assert_eq!(paused.0.lock().unwrap().len(), 1, "once for each time that they are lost");

    first.set(Mode::Well);
    world.until(5_000 * MS, |_| says(&first, "alert-channel/second"));
    let beating = heartbeat.seen().len();
    world.until(2_000 * MS, |_| beating < heartbeat.seen().len());
    // Nobody looks any more: what hangs does not say that all is well.
    std::thread::sleep(5_500 * MS);
    let last = heartbeat.seen().len();
    std::thread::sleep(1_000 * MS);
    assert_eq!(heartbeat.seen().len(), last);
}
