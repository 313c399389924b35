//! The dashboard's server against those who mean no good: twelve abuses over raw sockets, and who is served.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tandem_core::level::Level;
use tandem_drain::alerts::board::Board;
use tandem_drain::model::Model;
use tandem_drain::plan::Names;
use tandem_drain::status::Registry;
use tandem_drain::web::{Operator, Web, WebSettings};
use tandem_drain::{Plan, Sink};
use tandem_gateway::keys::Secret;

const TOKEN: &str = "canary-0123456789-token";

fn plan() -> Plan {
    Plan {
        dir: PathBuf::from("/nowhere"),
        journal: PathBuf::from("/nowhere/journal"),
        segments_max: 4,
        segment_frames: 1_000,
        trades: true,
        is_live: false,
        venues: Vec::new(),
        parts: Vec::new(),
        names: Names {
            engine_stats: "engine_stats".to_owned(),
            journal_full: String::new(),
            outputs_lost: String::new(),
            overruns: String::new(),
            exposure_ppm: String::new(),
            warden_stats: "warden_stats".to_owned(),
            warden_verdict: BTreeMap::new(),
        },
        read_run: |_| Err("no run here".to_owned()),
        instruments: BTreeMap::new(),
    }
}

#[derive(Clone, Default)]
struct Hand(Arc<Mutex<Vec<(Level, String)>>>);

impl Operator for Hand {
    fn raise(&self, level: Level, reason: &str) -> Result<bool, String> {
        self.0.lock().expect("a hand").push((level, reason.to_owned()));
        Ok(true)
    }
}

struct Server {
    web: Web,
    hand: Hand,
}

impl Server {
    fn start() -> Server {
        Server::with(Some(TOKEN))
    }

    fn with(token: Option<&str>) -> Server {
        let hand = Hand::default();
        let settings = WebSettings {
            listen: "127.0.0.1:0".parse().expect("an address"),
            hosts: vec!["tunnel.example".to_owned()],
            token: token.map(Secret::from),
            operator: Some(Box::new(hand.clone())),
            board: Board::default(),
            registry: Registry::default(),
            metrics: None,
            build: "test".to_owned(),
        };
        let web = Web::start(Model::new(&plan()), settings).expect("it starts");
        Server { web, hand }
    }

    fn at(&self) -> SocketAddr {
        self.web.address()
    }

    fn acts(&self) -> Vec<(Level, String)> {
        self.hand.0.lock().expect("a hand").clone()
    }

    /// Sends bytes and returns the whole answer; empty where the server only hung up.
    fn raw(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(self.at()).expect("connects");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        // A server that refuses early may be gone before everything is sent.
        let _ = socket.write_all(request.as_bytes());
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no end of the answer: {error}"),
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request with our own Host and further lines.
    fn ask(&self, line: &str, headers: &[&str], body: &str) -> (u16, String) {
        let port = self.at().port();
        let mut request =
            format!("{line} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body);
        let answer = self.raw(&request);
        (status(&answer), answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.web.close(Duration::from_secs(2));
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

const JSON: &str = "Content-Type: application/json";
const BODY: &str = "{\"reason\":\"a test\"}";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn who_is_ours_is_served_and_dressed() {
    let server = Server::start();
    let (code, answer) = server.ask("GET /api/v1/overview", &[], "");
    assert_eq!(code, 200, "{answer}");
    let answer = answer.to_lowercase();
    for header in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-store",
    ] {
        assert!(answer.contains(header), "{header}\n{answer}");
    }
    assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    let tunnel = server
        .raw("GET /api/v1/topics HTTP/1.1\r\nHost: tunnel.example\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&tunnel), 200, "{tunnel}");
    assert_eq!(server.ask("GET /", &[], "").0, 200);
    let (code, answer) = server.ask("POST /api/v1/pause", &[JSON, &bearer(TOKEN)], BODY);
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = server.ask("POST /api/v1/kill", &[JSON, &bearer(TOKEN)], BODY);
    assert_eq!(code, 200, "{answer}");
    let told = |level| (level, "a test".to_owned());
    assert_eq!(server.acts(), [told(Level::Pause), told(Level::Kill)]);
}

#[test]
fn a_public_address_is_refused() {
    let settings = |listen: &str| WebSettings {
        listen: listen.parse().expect("an address"),
        hosts: Vec::new(),
        token: None,
        operator: None,
        board: Board::default(),
        registry: Registry::default(),
        metrics: None,
        build: String::new(),
    };
    let error = Web::start(Model::new(&plan()), settings("0.0.0.0:0")).err().expect("refused");
    assert!(error.to_string().contains("loopback"), "{error}");
}

/// 1: a stranger's name that points at loopback (DNS rebinding), no name, two names, an absolute target.
/// Row SEC-11.
#[test]
fn abuse_1_another_host() {
    let server = Server::start();
    let port = server.at().port();
    for request in [
        "GET /api/v1/overview HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
            .to_owned(),
        format!(
            "GET /api/v1/overview HTTP/1.1\r\nHost: evil.example:{port}\r\nConnection: close\r\n\r\n"
        ),
        format!(
            "GET /api/v1/overview HTTP/1.1\r\nHost: localhost:{port}.evil.example\r\nConnection: close\r\n\r\n"
        ),
        "GET /api/v1/overview HTTP/1.0\r\n\r\n".to_owned(),
        format!(
            "GET /api/v1/overview HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        ),
        format!(
            "GET http://evil.example/api/v1/overview HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
        ),
    ] {
        let answer = server.raw(&request);
        assert!(matches!(status(&answer), 400 | 421), "{request}\n{answer}");
        assert!(!answer.contains("counts"), "{answer}");
    }
}

/// 2: another page's script reads or acts.
/// Row SEC-11.
#[test]
fn abuse_2_another_origin() {
    let server = Server::start();
    let origin = "Origin: http://evil.example";
    assert_eq!(server.ask("GET /api/v1/overview", &[origin], "").0, 403);
    assert_eq!(server.ask("GET /api/v1/overview", &["Origin: null"], "").0, 403);
    let post = [JSON, origin, &bearer(TOKEN)];
    assert_eq!(server.ask("POST /api/v1/kill", &post, BODY).0, 403);
    let (code, answer) = server.ask("OPTIONS /api/v1/kill", &[origin], "");
    assert_eq!(code, 403);
    assert!(!answer.to_lowercase().contains("access-control-allow"), "{answer}");
    assert!(server.acts().is_empty());
}

/// 3: a form or an image of another site, which sends no Origin but says where it is from.
/// Row SEC-11.
#[test]
fn abuse_3_cross_site() {
    let server = Server::start();
    for site in ["cross-site", "same-site"] {
        let site = format!("Sec-Fetch-Site: {site}");
        let image = [site.as_str(), "Sec-Fetch-Mode: no-cors"];
        assert_eq!(server.ask("GET /api/v1/overview", &image, "").0, 403);
        let form = [site.as_str(), "Sec-Fetch-Mode: navigate", JSON, &bearer(TOKEN)];
        assert_eq!(server.ask("POST /api/v1/kill", &form, BODY).0, 403);
        // Following a link to it is harmless.
        let link = [site.as_str(), "Sec-Fetch-Mode: navigate"];
        assert_eq!(server.ask("GET /", &link, "").0, 200);
    }
    assert!(server.acts().is_empty());
}

/// 4: acting without the token, with a wrong one, in the address, or where there is none.
/// Row SEC-11.
#[test]
fn abuse_4_no_token() {
    let server = Server::start();
    assert_eq!(server.ask("POST /api/v1/kill", &[JSON], BODY).0, 401);
    assert_eq!(server.ask("POST /api/v1/kill", &[JSON, &bearer("")], BODY).0, 401);
    assert_eq!(server.ask("POST /api/v1/kill", &[JSON, &bearer(&TOKEN[1..])], BODY).0, 401);
    let basic = format!("Authorization: Basic {TOKEN}");
    assert_eq!(server.ask("POST /api/v1/kill", &[JSON, &basic], BODY).0, 401);
    assert!(server.acts().is_empty());
    let only_shows = Server::with(None);
    assert_eq!(only_shows.ask("POST /api/v1/kill", &[JSON, &bearer("")], BODY).0, 403);
    assert!(only_shows.acts().is_empty());
}

/// 5: trying tokens until one fits; after five even the right one waits.
/// Row SEC-11.
#[test]
fn abuse_5_guessing() {
    let server = Server::start();
    let mut codes = BTreeMap::new();
    for guess in 0..50 {
        let (code, answer) =
            server.ask("POST /api/v1/kill", &[JSON, &bearer(&format!("guess-{guess:020}"))], BODY);
        assert!(!answer.contains(TOKEN));
        *codes.entry(code).or_insert(0) += 1;
    }
    assert_eq!(codes, BTreeMap::from([(401, 5), (429, 45)]));
    assert_eq!(server.ask("POST /api/v1/kill", &[JSON, &bearer(TOKEN)], BODY).0, 429);
    assert!(server.acts().is_empty());
}

/// 6: reading files of the host.
/// Row SEC-11.
#[test]
fn abuse_6_other_files() {
    let server = Server::start();
    for path in [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/assets/../../../etc/passwd",
        "/assets/..%5c..%5cetc%5cpasswd",
        "/index.html%00.png",
        "/.git/config",
    ] {
        let (code, answer) = server.ask(&format!("GET {path}"), &[], "");
        assert!(matches!(code, 400 | 404), "{path}: {code}");
        assert!(!answer.contains("root:"), "{path}");
    }
}

/// 7: what would loosen, or act by reading.
/// Row SEC-11.
#[test]
fn abuse_7_loosening() {
    let server = Server::start();
    for what in ["arm", "resume", "lower", "unkill", "config", "order"] {
        let (code, _) = server.ask(&format!("POST /api/v1/{what}"), &[JSON, &bearer(TOKEN)], BODY);
        assert!(matches!(code, 404 | 405), "{what}: {code}");
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH"] {
        let (code, _) =
            server.ask(&format!("{method} /api/v1/kill"), &[JSON, &bearer(TOKEN)], BODY);
        assert_eq!(code, 405, "{method}");
    }
    assert!(server.acts().is_empty());
}

/// 8: methods that nobody needs.
/// Row SEC-11.
#[test]
fn abuse_8_methods() {
    let server = Server::start();
    for method in ["TRACE", "PUT", "DELETE", "PATCH", "PROPFIND", "MADEUP"] {
        for path in ["/", "/api/v1/overview", "/metrics"] {
            let (code, answer) = server.ask(&format!("{method} {path}"), &["Cookie: canary"], "");
            assert_eq!(code, 405, "{method} {path}");
            assert!(!answer.contains("canary"), "{method} {path} echoes");
        }
    }
    let connect = server.raw("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    assert!(matches!(status(&connect), 400..=499), "{connect}");
}

/// 9: too much: long targets, many or long headers, large bodies, no JSON, no reason, control characters.
/// Row SEC-11.
#[test]
fn abuse_9_too_much() {
    let server = Server::start();
    let (code, _) = server.ask(&format!("GET /api/v1/overview?{}", "a".repeat(4_000)), &[], "");
    assert_eq!(code, 414);
    let long = format!("X-Long: {}", "a".repeat(64 << 10));
    assert!(matches!(server.ask("GET /", &[&long], "").0, 0 | 431));
    let many: Vec<String> = (0..500).map(|idx| format!("X-{idx}: a")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(server.ask("GET /", &many, "").0, 0 | 431));
    let token = bearer(TOKEN);
    let acts = [JSON, token.as_str()];
    let large = format!("{{\"reason\":\"{}\"}}", "a".repeat(1 << 20));
    assert_eq!(server.ask("POST /api/v1/kill", &acts, &large).0, 413);
    for body in [
        "{}",
        "[]",
        "nonsense",
        "{\"reason\":\"\"}",
        "{\"reason\":\"a\\nb\"}",
        "{\"reason\":7}",
        "{\"reason\":\"a\",\"level\":\"ARMED\"}",
    ] {
        assert_eq!(server.ask("POST /api/v1/kill", &acts, body).0, 400, "{body}");
    }
    let long = format!("{{\"reason\":\"{}\"}}", "ä".repeat(201));
    assert_eq!(server.ask("POST /api/v1/kill", &acts, &long).0, 400);
    assert_eq!(server.ask("POST /api/v1/kill", &["Content-Type: text/plain", &token], BODY).0, 415);
    assert!(server.acts().is_empty());
}

/// 10: a request that two readers would cut differently (smuggling).
/// Row SEC-11.
#[test]
fn abuse_10_smuggling() {
    let server = Server::start();
    let port = server.at().port();
    let hidden = format!(
        "POST /api/v1/kill HTTP/1.1\r\nHost: localhost:{port}\r\n{JSON}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    for framing in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", 5 + hidden.len()),
        format!("Content-Length: 5\r\nContent-Length: {}\r\n", 5 + hidden.len()),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
    ] {
        let request = format!(
            "GET /api/v1/topics HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n{framing}\r\n0\r\n\r\n{hidden}"
        );
        let answer = server.raw(&request);
        assert!(matches!(status(&answer), 0 | 200 | 400), "{framing}\n{answer}");
        assert!(server.acts().is_empty(), "{framing}: a hidden request was obeyed");
    }
}

/// 11: connections that say nothing, or say it slowly, do not keep others out.
/// Row SEC-11.
#[test]
fn abuse_11_slow_heads() {
    let server = Server::start();
    let mut slow: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut socket = TcpStream::connect(server.at()).expect("connects");
            socket.write_all(b"GET / HTTP/1.1\r\nHost: lo").expect("writes");
            socket
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(server.ask("GET /api/v1/topics", &[], "").0, 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // They are hung up on: the head was not there in time.
    let mut first = slow.remove(0);
    first.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    let mut rest = Vec::new();
    assert!(first.read_to_end(&mut rest).is_ok(), "still open after ten seconds");
    // A body that never ends is waited for no longer than a head.
    let port = server.at().port();
    let begun = Instant::now();
    let answer = server.raw(&format!(
        "POST /api/v1/kill HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n{JSON}\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
    ));
    assert_eq!(status(&answer), 413, "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// 12: streams without end, unknown topics and parameters.
/// Row SEC-11.
#[test]
fn abuse_12_streams() {
    let server = Server::start();
    let port = server.at().port();
    let open = || {
        let mut socket = TcpStream::connect(server.at()).expect("connects");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        let request = format!(
            "GET /api/v1/stream?topics=overview HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("writes");
        let mut head = [0; 64];
        let read = socket.read(&mut head).expect("an answer");
        (status(&String::from_utf8_lossy(&head[..read])), socket)
    };
    let streams: Vec<_> = (0..20).map(|_| open()).collect();
    let codes = |code| streams.iter().filter(|(found, _)| *found == code).count();
    assert_eq!((codes(200), codes(503)), (16, 4));
    drop(streams);
    // A client that left gives its place back with the next write to it.
    let until = Instant::now() + Duration::from_secs(10);
    while open().0 != 200 {
        assert!(Instant::now() < until, "places of streams are not given back");
        std::thread::sleep(Duration::from_millis(100));
    }
    for path in [
        "stream",
        "stream?topics=",
        "stream?topics=nothing",
        "stream?topics=overview&x=1",
        "opportunities?after=-1",
        "opportunities?after=x",
        "opportunity/x/y",
    ] {
        let (code, _) = server.ask(&format!("GET /api/v1/{path}"), &[], "");
        assert_eq!(code, 400, "{path}");
    }
    let (code, answer) = server.ask("GET /api/v1/stream?topics=%3Cscript%3E%1b%5B2J", &[], "");
    assert_eq!(code, 400);
    assert!(!answer.contains('\u{1b}'), "{answer}");
}
