//! A simulator, and clients that share no code with it: a library's WebSocket client over plain TCP or
//! TLS, a few lines of HTTP, and exact decimals.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tandem_sim::config::Venue;
use tandem_sim::{SimConfig, SimHandle, start};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client::client_with_config};

pub struct Sim {
    pub handle: Option<SimHandle>,
    runtime: tokio::runtime::Runtime,
}

impl Sim {
    /// Starts a simulator on threads of its own.
    pub fn start(cfg: SimConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let dir = std::env::temp_dir();
        let unique = format!("tandem-sim-{}-{:?}.pem", std::process::id(), Instant::now());
        let unique: String =
            unique.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
        let cfg = SimConfig { ca_path: Some(dir.join(unique)), ..cfg };
        let handle = runtime.block_on(start(cfg)).unwrap();
        Self { handle: Some(handle), runtime }
    }

    pub fn plain(&self, venue: Venue) -> SocketAddr {
        self.handle.as_ref().unwrap().addresses().venue(venue).unwrap().plain
    }

    pub fn ws(&self, venue: Venue, path: &str, tls: bool) -> Client {
        let addresses = self.handle.as_ref().unwrap().addresses();
        let at = addresses.venue(venue).unwrap();
        let (at, ca) =
            if tls { (at.tls, Some(addresses.ca_path.as_path())) } else { (at.plain, None) };
        Client::connect(at, ca, path)
    }

    pub fn get(&self, venue: Venue, target: &str) -> Reply {
        http(self.plain(venue), "GET", target, "", "")
    }

    pub fn control(&self, method: &str, target: &str, body: &str) -> Value {
        let at = self.handle.as_ref().unwrap().addresses().control;
        let reply = http(at, method, target, "", body);
        assert_eq!(reply.status, 200, "{target}: {}", reply.body);
        serde_json::from_str(&reply.body).unwrap()
    }

    pub fn fault(&self, fault: Value) -> u64 {
        self.control("POST", "/fault", &fault.to_string())["id"].as_u64().unwrap()
    }

    /// Stops a book, so that clients can catch up with it.
    pub fn halt(&self, venue: &str, symbol: &str) {
        self.fault(json!({"kind": "halt", "venue": venue, "symbol": symbol, "seconds": 60}));
    }

    /// Both sides of the simulator's own book, best first, as text.
    pub fn truth(&self, venue: &str, symbol: &str, depth: usize) -> [Vec<(i128, i128)>; 2] {
        let target = format!("/truth/book?venue={venue}&symbol={symbol}&depth={depth}");
        let book = self.control("GET", &target, "");
        ["bids", "asks"].map(|side| {
            let rows = book[side].as_array().unwrap();
            rows.iter()
                .map(|r| (dec(r[0].as_str().unwrap()), dec(r[1].as_str().unwrap())))
                .collect()
        })
    }

    pub fn is_ended(&self, fault: u64) -> bool {
        let faults = self.control("GET", "/faults", "");
        faults["ended"].as_array().unwrap().iter().any(|f| f["id"] == fault)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            let ca = handle.addresses().ca_path.clone();
            self.runtime.block_on(handle.shutdown());
            let _ = std::fs::remove_file(ca);
        }
    }
}

/// Decimal text as units of 10^-12, exactly.
pub fn dec(text: &str) -> i128 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{part:0<12}").parse().unwrap_or_else(|_| panic!("{text}"))
}

pub enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(s) => s.read(buf),
            Self::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(s) => s.write(buf),
            Self::Tls(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(s) => s.flush(),
            Self::Tls(s) => s.flush(),
        }
    }
}

pub fn tls(tcp: TcpStream, ca: &Path) -> Wire {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    Wire::Tls(Box::new(rustls::StreamOwned::new(connection, tcp)))
}

/// What a client got.
#[derive(Debug, PartialEq)]
pub enum Got {
    Text(String),
    /// Code and reason.
    Close(u16, String),
    /// The connection ended without a close frame, or with bytes that are no frame.
    Broken(String),
    Nothing,
}

pub struct Client {
    ws: WebSocket<Wire>,
    /// Pings seen.
    pub pings: usize,
}

impl Client {
    pub fn connect(at: SocketAddr, ca: Option<&Path>, path: &str) -> Self {
        Self::try_connect(at, ca, path).unwrap()
    }

    pub fn try_connect(at: SocketAddr, ca: Option<&Path>, path: &str) -> Result<Self, String> {
        let tcp = TcpStream::connect(at).map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (wire, scheme) = match ca {
            Some(ca) => (tls(tcp, ca), "wss"),
            None => (Wire::Plain(tcp), "ws"),
        };
        let url = format!("{scheme}://localhost:{}{path}", at.port());
        let limits = WebSocketConfig::default()
            .max_message_size(Some(300 << 20))
            .max_frame_size(Some(300 << 20));
        let (ws, _) = client_with_config(url, wire, Some(limits)).map_err(|e| e.to_string())?;
        Ok(Self { ws, pings: 0 })
    }

    fn tcp(&self) -> &TcpStream {
        match self.ws.get_ref() {
            Wire::Plain(s) => s,
            Wire::Tls(s) => &s.sock,
        }
    }

    pub fn send(&mut self, value: &Value) {
        self.send_text(&value.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        // A connection that the server already ends is seen by the next read.
        let _ = self.ws.send(Message::text(text.to_owned()));
    }

    /// Returns the next text, close or end within `wait`.
    pub fn next(&mut self, wait: Duration) -> Got {
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Got::Nothing;
            }
            self.tcp().set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match self.ws.read() {
                Ok(Message::Text(text)) => return Got::Text(text.to_string()),
                Ok(Message::Close(Some(frame))) => {
                    return Got::Close(frame.code.into(), frame.reason.to_string());
                }
                Ok(Message::Close(None)) => return Got::Close(1005, String::new()),
                Ok(Message::Ping(_)) => self.pings += 1,
                Ok(_) => {}
                Err(tokio_tungstenite::tungstenite::Error::Io(e))
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    return Got::Nothing;
                }
                Err(e) => return Got::Broken(e.to_string()),
            }
        }
    }

    /// The next message as JSON; panics on anything else.
    pub fn json(&mut self) -> Value {
        match self.next(Duration::from_secs(5)) {
            Got::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// Texts that arrive within `wait`.
    pub fn texts(&mut self, wait: Duration) -> Vec<String> {
        let end = Instant::now() + wait;
        let mut all = Vec::new();
        while let Got::Text(text) = self.next(end.saturating_duration_since(Instant::now())) {
            all.push(text);
        }
        all
    }

    /// Reads until a message satisfies `wanted`.
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let value = self.json();
            if wanted(&value) {
                return value;
            }
        }
        panic!("no such message within 10 s");
    }

    /// Reads on until the connection ends, and says how.
    pub fn end(&mut self, wait: Duration) -> Got {
        let end = Instant::now() + wait;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Got::Text(_) => {}
                other => return other,
            }
        }
    }
}

pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, v) = line.split_once(": ")?;
            (n == name).then_some(v)
        })
    }
}

pub fn http(at: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Reply {
    let mut tcp = TcpStream::connect(at).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    tcp.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// A WebSocket by hand: the handshake done, the rest raw bytes.
pub fn raw_ws(at: SocketAddr, path: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(at).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    // The answer to the key of RFC 6455, section 1.3.
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    tcp
}

/// A configuration with one venue's few instruments, for short tests.
pub fn small(venue: Venue, symbols: &[&str]) -> SimConfig {
    let mut cfg = SimConfig::demo(11);
    cfg.binance.enabled = venue == Venue::Binance;
    cfg.coinbase.enabled = venue == Venue::Coinbase;
    cfg.kraken.enabled = venue == Venue::Kraken;
    let list = match venue {
        Venue::Binance => &mut cfg.binance.instruments,
        Venue::Coinbase => &mut cfg.coinbase.instruments,
        Venue::Kraken => &mut cfg.kraken.instruments,
    };
    list.retain(|i| symbols.contains(&i.symbol.as_str()));
    cfg.kraken.public_burst = 100.0;
    cfg
}
