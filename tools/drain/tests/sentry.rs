//! Errors and panics from a process to a local service that reads envelopes as Sentry does.
//!
//! The fault model: the service is not there, hangs, closes, says "not now" in each of its ways, refuses; the
//! drain is started again, with and without its memory; files hold what nobody of us wrote. Secrets are
//! canaries: none of their text may be in a file, on the error stream, or in an envelope.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/receiver.rs"]
mod receiver;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use receiver::{Mode, Receiver, Seen};
use serde_json::Value;
use tandem_drain::Sink;
use tandem_drain::sentry::{Sentry, SentrySettings};
use tandem_drain::spool::{self, FILE_BYTES_MAX, FILES_MAX, Line, PER_SECOND_MAX, What};
use tandem_drain::status::{Registry, SinkStatus};
use tandem_gateway::keys::Secret;

/// A key's text, as a venue would give it: not to be told by its form.
const CANARY: &str = "c4n4ry.sEcReT:key";

struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Dir {
        let path =
            std::env::temp_dir().join(format!("tandem-sentry-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join(spool::FOLDER)).unwrap();
        Dir(path)
    }

    /// A file as a process that is gone left it: no process has this id.
    fn plant(&self, n: i64, lines: &[String]) {
        let path = self.0.join(spool::FOLDER).join(format!("engine.4999999.{n}.jsonl"));
        fs::write(path, lines.concat()).unwrap();
    }

    fn files(&self) -> Vec<PathBuf> {
        spool::files(&self.0.join(spool::FOLDER)).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line(n: i64, message: &str) -> String {
    let line = Line {
        at_ns: 1_786_242_665_000_000_000 + n,
        role: "engine".to_owned(),
        pid: 4_999_999,
        what: What::Error,
        message: message.to_owned(),
        place: "tandem_tools::engine_tile".to_owned(),
        fields: vec![
            ("venue".to_owned(), "kraken".to_owned()),
            ("secret".to_owned(), "x".to_owned()),
        ],
    };
    serde_json::to_string(&line).unwrap() + "\n"
}

fn start(dir: &Path, receiver: &Receiver) -> (Sentry, Arc<SinkStatus>) {
    let port = receiver.address.port();
    let status = Registry::default().register("sentry");
    let settings = SentrySettings {
        dsn: Secret::from(format!("http://pub1ickey@127.0.0.1:{port}/42").as_str()),
        environment: "test".to_owned(),
        release: "tandem@0.1.0+0123".to_owned(),
        run_dir: dir.to_owned(),
        ca_file: None,
        timeout: Duration::from_millis(500),
    };
    (Sentry::start(settings, Arc::clone(&status)).unwrap(), status)
}

/// Reads an envelope as Sentry does: a header, then items with their length; the event it holds.
fn event(seen: &Seen) -> Value {
    assert_eq!(seen.path, "/api/42/envelope/");
    assert_eq!(seen.header("content-type"), Some("application/x-sentry-envelope"));
    let auth = seen.header("x-sentry-auth").unwrap();
    assert!(auth.starts_with("Sentry "), "{auth}");
    for part in ["sentry_key=pub1ickey", "sentry_version=7", "sentry_client=tandem/"] {
        assert!(auth.contains(part), "{auth}");
    }
    let text = std::str::from_utf8(&seen.raw).unwrap();
    let (header, rest) = text.split_once('\n').unwrap();
    let header: Value = serde_json::from_str(header).unwrap();
    let (item, rest) = rest.split_once('\n').unwrap();
    let item: Value = serde_json::from_str(item).unwrap();
    assert_eq!(item["type"], "event");
    let length = usize::try_from(item["length"].as_u64().unwrap()).unwrap();
    let event: Value = serde_json::from_str(&rest[..length]).unwrap();
    assert_eq!(rest[length..].trim(), "", "one item");
    // What Sentry cannot be without.
    let id = event["event_id"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(header["event_id"].as_str().map(|id| id.replace('-', "")).as_deref(), Some(id));
    assert!(event["timestamp"].is_number() || event["timestamp"].is_string());
    assert_eq!(event["platform"], "native");
    assert_eq!(
        (&event["release"], &event["environment"]),
        (&"tandem@0.1.0+0123".into(), &"test".into())
    );
    assert!(3 <= event["fingerprint"].as_array().unwrap().len());
    event
}

fn until(what: &str, within_s: u64, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(within_s);
    while !is_so() {
        assert!(Instant::now() < until, "not in {within_s} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a service said yes so often.
fn messages(receiver: &Receiver) -> BTreeSet<String> {
    receiver
        .seen()
        .iter()
        .map(|seen| event(seen)["exception"]["values"][0]["value"].as_str().unwrap().to_owned())
        .collect()
}

/// The child of the next test: a process that reads a secret, and then goes wrong in every way.
#[test]
fn a_process_of_its_own_goes_wrong() {
    let Some(dir) = std::env::var_os("TANDEM_SENTRY_CHILD") else { return };
    spool::catch_panics();
    spool::begin(Path::new(&dir), "gateway kraken").unwrap();
    spool::conceal(&format!("environment = \"live\"\n[kraken]\napi_key = \"{CANARY}\"\n"));
    let chain =
        format!("sign: bad key: cannot parse `{CANARY}`: https://h/x?apiKey={CANARY}&sig=1");
    let fields =
        [("error", chain.clone()), ("secret", CANARY.to_owned()), ("venue", "kraken".to_owned())];
    spool::tell(What::Error, &format!("a request failed, {chain}"), "tandem_gateway", &fields);
    // At the edge of what is kept: what is cut must not leave half of it.
    spool::tell(What::Error, &format!("{}{CANARY}", "x".repeat(1_016)), "edge", &[]);
    for n in 0..5_000 {
        spool::tell(What::Error, &format!("storm {n} {CANARY}"), "storm", &[]);
    }
    let died = std::thread::Builder::new().name("signer".to_owned()).spawn(|| {
        std::thread::sleep(Duration::from_millis(1_100));
        panic!("no key like {CANARY} may be used");
    });
    assert!(died.unwrap().join().is_err());
}

#[test]
fn a_canary_leaves_by_no_way_and_the_rest_arrives() {
    let dir = Dir::new("canary");
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_of_its_own_goes_wrong", "--nocapture"])
        .env("TANDEM_SENTRY_CHILD", &dir.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.contains("thread 'signer' panicked at"), "{said}");
    let files = dir.files();
    assert_eq!(files.len(), 1);
    let text = fs::read_to_string(&files[0]).unwrap();
    for told in [&said, &text] {
        assert!(
            !told.contains("c4n4ry") && !told.contains("sEcReT") && !told.contains(CANARY),
            "{told}"
        );
    }
    let lines = text.lines().count();
    assert!(
        text.len() as u64 <= FILE_BYTES_MAX && lines <= 3 * PER_SECOND_MAX as usize,
        "{lines} lines"
    );
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);

    let receiver = Receiver::new();
    let (mut sink, status) = start(&dir.0, &receiver);
    until("every line is forwarded", 20, || status.look().written_rows == lines as u64);
    let seen = receiver.seen();
    let events: Vec<Value> = seen.iter().map(event).collect();
    assert!(seen.iter().all(|seen| !String::from_utf8_lossy(&seen.raw).contains("c4n4ry")));
    let first = &events[0];
    // Error is the level of an event that says none.
    assert!(first.get("level").is_none_or(|level| level == "error"), "{first}");
    assert_eq!(first["tags"]["role"], "gateway kraken");
    assert_eq!(first["extra"]["venue"], "kraken");
    assert!(first["extra"]["error"].as_str().unwrap().contains(spool::SCRUBBED));
    assert!(first["extra"].get("secret").is_none(), "only listed fields");
    let last = events.last().unwrap();
    assert_eq!(
        (&last["level"], &last["exception"]["values"][0]["type"]),
        (&"fatal".into(), &"panic".into())
    );
    assert!(last["culprit"].as_str().unwrap().contains("sentry.rs:"));
    // One trouble, one group: the storm's numbers differ.
    let storm = events.iter().filter(|event| event["culprit"] == "storm");
    let groups: BTreeSet<String> = storm.map(|event| event["fingerprint"].to_string()).collect();
    assert_eq!(groups.len(), 1);
    // Its process is gone and all of it was sent.
    until("the file is gone", 5, || dir.files().is_empty());
    println!("{lines} lines of 5,003, {} events", events.len());
    sink.close(Duration::from_secs(2));
}

#[test]
fn not_now_is_respected_and_nothing_is_sent_twice() {
    let dir = Dir::new("limits");
    let receiver = Receiver::new();
    dir.plant(1, &[line(1, "first"), line(2, "second")]);
    let say = |status, header, value: &str| {
        Mode::Say(status, vec![(header, value.to_owned())], String::new(), 1)
    };
    receiver.set(say(429, "Retry-After", "2"));
    let (mut sink, status) = start(&dir.0, &receiver);
    until("both are sent", 20, || status.look().written_rows == 2);
    let seen = receiver.seen();
    assert_eq!(seen.len(), 3);
    assert!(Duration::from_secs(2) <= seen[1].at - seen[0].at, "it came before it was asked for");
    assert_eq!(event(&seen[0])["event_id"], event(&seen[1])["event_id"], "the same event");
    // A limit with a yes: the event is there, the next one waits. One for other kinds is none of ours.
    receiver.set(say(200, "X-Sentry-Rate-Limits", "2:error;default:key, 2700:transaction:key"));
    dir.plant(2, &[line(3, "third"), line(4, "fourth")]);
    until("four are sent", 20, || status.look().written_rows == 4);
    let seen = receiver.seen();
    assert!(Duration::from_secs(2) <= seen[4].at - seen[3].at);
    assert_eq!(messages(&receiver).len(), 4);
    sink.close(Duration::from_secs(2));
    // A drain that starts again, with its memory: a live process's file is still there.
    let own = dir.0.join(spool::FOLDER).join(format!("engine.{}.9.jsonl", std::process::id()));
    fs::write(&own, line(5, "fifth")).unwrap();
    let (mut sink, status) = start(&dir.0, &receiver);
    until("the fifth is sent", 10, || status.look().written_rows == 1);
    sink.close(Duration::from_secs(2));
    fs::write(&own, line(5, "fifth") + &line(6, "sixth")).unwrap();
    let (mut sink, status) = start(&dir.0, &receiver);
    until("the sixth is sent", 10, || status.look().written_rows == 1);
    sink.close(Duration::from_secs(2));
    assert_eq!(receiver.seen().len(), 7);
    // And one that forgot: it is the same event, which Sentry knows by its id.
    fs::remove_file(dir.0.join(spool::FOLDER).join("sent.json")).unwrap();
    let (mut sink, status) = start(&dir.0, &receiver);
    until("both are sent again", 10, || status.look().written_rows == 2);
    sink.close(Duration::from_secs(2));
    let ids: BTreeSet<String> =
        receiver.seen().iter().map(|seen| event(seen)["event_id"].to_string()).collect();
    assert_eq!(ids.len(), 6);
}

#[test]
fn a_service_that_is_gone_costs_nobody_and_foreign_lines_are_passed_over() {
    let dir = Dir::new("faults");
    let receiver = Receiver::new();
    receiver.set(Mode::Hang);
    let hostile = [
        "not json\n".to_owned(),
        "{}\n".to_owned(),
        format!("{}\n", "[".repeat(100_000)),
        "\u{0}\u{1b}[31m\n".to_owned(),
        line(1, "it lives"),
        "{\"at_ns\":1,\"role\":\"x\",\"half of a line".to_owned(),
    ];
    dir.plant(1, &hostile);
    let (mut sink, status) = start(&dir.0, &receiver);
    until("the time-out is told", 10, || status.look().trouble.is_some());
    let begun = Instant::now();
    sink.look(&tandem_drain::Look::default());
    assert!(begun.elapsed() < Duration::from_millis(50));
    receiver.set(Mode::Close);
    std::thread::sleep(Duration::from_millis(300));
    receiver.set(Mode::Say(500, Vec::new(), String::new(), 1));
    until("it is sent in the end", 30, || status.look().written_rows == 1);
    let look = status.look();
    assert!(look.up && look.trouble.is_none() && 4 <= look.dead_letters, "{look:?}");
    assert_eq!(messages(&receiver), BTreeSet::from(["it lives".to_owned()]));
    // One that it never takes is put aside, and the next one arrives.
    receiver.set(Mode::Say(400, Vec::new(), String::new(), 1));
    dir.plant(2, &[line(2, "refused"), line(3, "taken")]);
    until("the next one arrives", 10, || status.look().written_rows == 2);
    receiver.set(Mode::Hang);
    dir.plant(3, &[line(4, "late")]);
    std::thread::sleep(Duration::from_millis(700));
    let begun = Instant::now();
    sink.close(Duration::from_millis(200));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!dir.files().is_empty(), "what was not sent waits for the next drain");
}

#[test]
fn files_are_as_many_as_they_may_be() {
    let dir = Dir::new("files");
    for n in 0..200 {
        dir.plant(n, &[]);
    }
    // A process of its own begins a file.
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_of_its_own_goes_wrong"])
        .env("TANDEM_SENTRY_CHILD", &dir.0)
        .output()
        .unwrap();
    assert!(out.status.success());
    let files = dir.files();
    assert_eq!(files.len(), FILES_MAX);
    assert!(
        files.last().unwrap().to_string_lossy().contains("gateway-kraken."),
        "the newest is ours"
    );
}

#[test]
fn a_key_that_makes_no_sense_is_refused_and_not_shown() {
    let dir = Dir::new("dsn");
    for dsn in ["", CANARY, "https://h.example/42", "https://key@h.example"] {
        let settings = SentrySettings {
            dsn: Secret::from(dsn),
            environment: "test".to_owned(),
            release: "x".to_owned(),
            run_dir: dir.0.clone(),
            ca_file: None,
            timeout: Duration::from_secs(1),
        };
        let error = Sentry::start(settings, Registry::default().register("sentry")).err();
        let error = error.unwrap_or_else(|| panic!("{dsn} was taken")).to_string();
        assert!(error.contains("dsn_file") && !error.contains("c4n4ry"), "{error}");
    }
}
