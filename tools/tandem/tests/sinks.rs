//! The drain's binary with Redis and Sentry: closed files, real servers on loopback, every log switched on.
//!
//! Secrets here are canaries: they are looked for in everything that the process shows of itself.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../drain/tests/support/receiver.rs"]
mod receiver;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use receiver::{Mode, Receiver};
use support::{RunDir, signal, wait_for};
use tandem_drain::spool;

const SAMPLE: &str = include_str!("../../../deploy/tandem.toml");
/// No text of any secret may be shown anywhere.
const CANARY: &str = "c4n4ry-Secret";

fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    path
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_secret_of_a_sink_is_shown_and_errors_of_others_are_forwarded() {
    let dir = RunDir::new("sinks");
    let (run, state) = (dir.path().join("run"), dir.path().join("state"));
    let sentry = Receiver::new();
    // The service throws the key back at us, as some do: it must not be in a log.
    let body = format!("{{\"detail\": \"bad key {CANARY}k3y\"}}");
    sentry.set(Mode::Say(403, Vec::new(), body, 2));
    let dsn = format!("http://{CANARY}k3y@127.0.0.1:{}/7", sentry.address.port());
    let dsn = secret(dir.path(), "dsn", &dsn);
    let password = secret(dir.path(), "password", &format!("{CANARY}-redis"));
    let sock = dir.path().join("sock");
    let text = SAMPLE.replacen("/dev/shm/tandem", &run.display().to_string(), 1).replacen(
        "/var/lib/tandem",
        &state.display().to_string(),
        1,
    );
    let text = format!(
        "{text}\n[redis]\nurl = \"unix://{}\"\nuser = \"tandem\"\npassword_file = \"{}\"\n\
         [sentry]\ndsn_file = \"{}\"\nenvironment = \"test\"\n",
        sock.display(),
        password.display(),
        dsn.display()
    );
    let config = dir.path().join("tandem.toml");
    fs::write(&config, text).unwrap();
    // What a gateway wrote before it died, and did not know of this secret.
    let folder = run.join(spool::FOLDER);
    fs::create_dir_all(&folder).unwrap();
    let line = format!(
        "{{\"at_ns\":1,\"role\":\"gateway kraken\",\"pid\":1,\"what\":\"panic\",\"message\":\"it \
         died of {CANARY}-redis\",\"place\":\"x.rs:1:1\",\"fields\":[]}}\n"
    );
    fs::write(folder.join("gateway-kraken.4999999.1.jsonl"), line).unwrap();
    let log = dir.path().join("log");
    let drain = Command::new(dir.program())
        .args(["drain", "--config"])
        .arg(&config)
        .env("TANDEM_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut drain = Process(drain);
    let arrived = || {
        sentry
            .seen()
            .iter()
            .any(|seen| String::from_utf8_lossy(&seen.raw).contains("it died of [scrubbed]"))
    };
    assert!(wait_for(Duration::from_secs(20), arrived), "{}", fs::read_to_string(&log).unwrap());
    if Command::new("redis-server").arg("--version").output().is_ok() {
        // The server comes later than the drain, and knows another password: that is told, and no secret.
        let acl = dir.path().join("users.acl");
        fs::write(
            &acl,
            "user default on nopass ~* &* +@all\nuser tandem on >another ~tandem:* +@all\n",
        )
        .unwrap();
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&sock)
            .arg("--aclfile")
            .arg(&acl)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let _server = Process(server);
        let told = || {
            fs::read_to_string(&log).unwrap().contains("authentication failed; check redis.user")
        };
        assert!(wait_for(Duration::from_secs(20), told), "{}", fs::read_to_string(&log).unwrap());
    } else {
        println!("SKIPPED in part: redis-server is not installed; run scripts/setup");
    }
    signal(drain.0.id(), 15);
    assert!(drain.0.wait().unwrap().success());
    let mut shown = vec![fs::read(&log).unwrap()];
    for path in spool::files(&folder).unwrap() {
        // What the gateway wrote is the test's; ours are the drain's own.
        if !path.to_string_lossy().contains("gateway-kraken") {
            shown.push(fs::read(path).unwrap());
        }
    }
    shown.extend(sentry.seen().into_iter().map(|seen| seen.raw));
    for text in shown {
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            !text.contains("c4n4ry"),
            "{}",
            text.lines().find(|l| l.contains("c4n4ry")).unwrap()
        );
    }
}
