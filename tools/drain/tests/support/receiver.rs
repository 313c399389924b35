//! Services on loopback that take messages, and misbehave as told.
//!
//! The fault model: whoever is to be told does not listen, takes the connection and says nothing, answers
//! slowly, says "not now", says "never", answers with what is no HTTP, or shows a wrong certificate. Each of
//! these must cost only its own channel.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How a receiver answers.
#[derive(Clone, Debug)]
pub enum Mode {
    /// As its service does.
    Well,
    /// As its service does, so much later.
    Slow(Duration),
    /// Takes the connection, reads, and says nothing.
    Hang,
    /// Closes the connection.
    Close,
    /// A status, headers and a body, whatever is asked; so many times, then as its service does.
    Say(u16, Vec<(&'static str, String)>, String, usize),
    /// Something that is no HTTP.
    Garbage,
}

/// One request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub raw: Vec<u8>,
    pub body: Value,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it tells people something: it is no probe and no watchdog.
    pub fn is_message(&self) -> bool {
        !self.path.ends_with("/getChat")
            && self.body["text"] != ""
            && self.body["type"] != "watchdog"
    }
}

struct State {
    seen: Mutex<Vec<Seen>>,
    mode: Mutex<Mode>,
    stop: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A service.
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn new() -> Receiver {
        Receiver::with(None)
    }

    pub fn with(tls: Option<Arc<rustls::ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            seen: Mutex::default(),
            mode: Mutex::new(Mode::Well),
            stop: AtomicBool::new(false),
            tls,
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), state) = (stream, Arc::clone(&shared)) else { continue };
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Receiver { address, state, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.state.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.address.port())
    }

    pub fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// What told people something.
    pub fn messages(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(Seen::is_message).collect()
    }

    /// Waits for a request that is wanted.
    pub fn wait(&self, within: Duration, wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let until = Instant::now() + within;
        loop {
            if let Some(seen) = self.seen().into_iter().find(&wanted) {
                return Some(seen);
            }
            if until < Instant::now() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, state: &State) {
    let limit = Some(Duration::from_secs(20));
    let _ = (stream.set_read_timeout(limit), stream.set_write_timeout(limit));
    match &state.tls {
        None => exchange(stream, state),
        Some(config) => {
            let Ok(connection) = rustls::ServerConnection::new(Arc::clone(config)) else { return };
            exchange(rustls::StreamOwned::new(connection, stream), state);
        }
    }
}

fn exchange(mut stream: impl Read + Write, state: &State) {
    let Some(seen) = request(&mut stream) else { return };
    let mode = {
        let mut mode = state.mode.lock().unwrap();
        let now = mode.clone();
        if let Mode::Say(_, _, _, times) = &mut *mode {
            *times -= 1;
            if *times == 0 {
                *mode = Mode::Well;
            }
        }
        now
    };
    state.seen.lock().unwrap().push(seen.clone());
    let (status, headers, body) = match mode {
        Mode::Well => well(&seen),
        Mode::Slow(pause) => {
            std::thread::sleep(pause);
            well(&seen)
        }
        Mode::Hang => {
            // Until the client gives up, or the time of the read is up.
            let _ = stream.read_to_end(&mut Vec::new());
            return;
        }
        Mode::Close => return,
        Mode::Say(status, headers, body, _) => (status, headers, body),
        Mode::Garbage => {
            let _ = stream.write_all(b"\x00\x01\x02 no such thing\r\n\r\n");
            return;
        }
    };
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all((text + "Connection: close\r\n\r\n" + &body).as_bytes());
    let _ = stream.flush();
}

/// What the services answer by their documentation.
fn well(seen: &Seen) -> (u16, Vec<(&'static str, String)>, String) {
    if seen.path.ends_with("/sendMessage") || seen.path.ends_with("/getChat") {
        return (200, Vec::new(), json!({"ok": true, "result": {}}).to_string());
    }
    match seen.body["text"].as_str() {
        Some("") => (400, Vec::new(), "no_text".to_owned()),
        _ => (200, Vec::new(), "ok".to_owned()),
    }
}

fn request(stream: &mut impl Read) -> Option<Seen> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut part = [0; 4_096];
        let count = stream.read(&mut part).ok().filter(|count| *count != 0)?;
        bytes.extend_from_slice(&part[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        bytes.drain(..end + 4);
        break (head, length?);
    };
    while bytes.len() < length {
        let mut part = [0; 4_096];
        let count = stream.read(&mut part).ok().filter(|count| *count != 0)?;
        bytes.extend_from_slice(&part[..count]);
    }
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    // An envelope is no JSON.
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Some(Seen { at: Instant::now(), path, headers, raw: bytes, body })
}
