//! HTTP/1.1 requests over one kept-alive connection, never blocking.
//!
//! Invariant: requests are answered in the order they were asked, each exactly once: with the venue's
//! answer, or with a failure when the connection is lost or the time is up. A body is bounded by
//! [`BODY_BYTES_MAX`]; anything that is not HTTP ends the connection. Only a request that its asker
//! called repeatable is ever written twice.
//!
//! Not here: which paths and when (the machines and their budgets).

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use super::transport::{ReadStamp, Transport};

/// Largest body taken: Coinbase's whole product list is about 2 MB, a 5,000-level depth 400 kB.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Largest head taken.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A request without its answer for this long has failed (Binance itself gives up after 10 s).
pub const TIMEOUT_NS: i64 = 10_000_000_000;

/// The connection and what is asked on it.
pub struct Client {
    transport: Option<Transport>,
    host: String,
    queue: VecDeque<Asked>,
    /// Received and not understood yet.
    inbox: Vec<u8>,
    /// Written and not sent yet.
    outbox: Vec<u8>,
    /// Answers that came over this connection.
    answers: u64,
}

struct Asked {
    request: u32,
    /// Head and body; empty where they were staged.
    bytes: Vec<u8>,
    repeatable: bool,
    sent_ns: i64,
    /// It was asked on a connection that the peer had just given up, and is asked again.
    retried: bool,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Which request.
    pub request: u32,
    /// Status, `Retry-After` and Binance's used weight.
    pub head: Head,
    /// Body.
    pub body: Vec<u8>,
    /// When its last bytes came.
    pub stamp: ReadStamp,
}

/// What is used of an answer's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u32>,
    /// `X-MBX-USED-WEIGHT-1M`.
    pub used_weight: Option<u32>,
    /// Whether the peer closes after this answer.
    pub close: bool,
}

/// What the client has to say.
#[derive(Debug)]
pub enum Event {
    /// An answer.
    Answered(Answer),
    /// A request failed.
    Failed(u32),
    /// Nothing for now.
    Idle,
}

impl Client {
    /// Returns a client without connection; `host` goes into the `Host` header.
    #[must_use]
    pub fn new(host: String) -> Client {
        Client {
            transport: None,
            host,
            queue: VecDeque::with_capacity(16),
            inbox: Vec::new(),
            outbox: Vec::new(),
            answers: 0,
        }
    }

    /// Asks for a path. Only one request is on the wire at a time: venues do not pipeline.
    pub fn get(&mut self, request: u32, path: String) {
        let bytes = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tandem/{}\r\nAccept: application/json\r\n\
             Connection: keep-alive\r\n\r\n",
            self.host,
            env!("CARGO_PKG_VERSION")
        );
        self.ask(request, bytes.into_bytes(), true);
    }

    /// Asks with a head and body made by the caller. A request that is not `repeatable` is written at
    /// most once, whatever happens to its connection.
    pub fn ask(&mut self, request: u32, bytes: Vec<u8>, repeatable: bool) {
        self.queue.push_back(Asked { request, bytes, repeatable, sent_ns: 0, retried: false });
    }

    /// Returns whether a request could be written at once: connected, proven by an answer, nothing asked.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.transport.is_some() && self.answers != 0 && self.queue.is_empty()
    }

    /// Puts a request ready without a system call; [`Client::commit`] sends it. It is written at most
    /// once. Refused with `WouldBlock` unless the connection is warm.
    pub fn stage(&mut self, request: u32, bytes: &[u8], now_ns: i64) -> io::Result<()> {
        if !self.is_warm() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(transport) = &mut self.transport else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        transport.stage(bytes)?;
        let (bytes, repeatable) = (Vec::new(), false);
        self.queue.push_back(Asked { request, bytes, repeatable, sent_ns: now_ns, retried: false });
        Ok(())
    }

    /// Hands what was staged to the socket. An error means that the connection is of no more use.
    pub fn commit(&mut self) -> io::Result<()> {
        match &mut self.transport {
            Some(transport) => transport.commit(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Drops the connection by a reset, and with it what was staged: its request is forgotten, not failed.
    pub fn discard(&mut self) {
        if let Some(transport) = self.transport.take() {
            transport.reset();
        }
        self.queue.pop_back();
    }

    /// Returns whether a connection should be made.
    #[must_use]
    pub fn wants_connection(&self) -> bool {
        self.transport.is_none() && !self.queue.is_empty()
    }

    /// Takes a connection that is being made.
    pub fn attach(&mut self, transport: Transport) {
        self.inbox.clear();
        self.outbox.clear();
        self.answers = 0;
        // Nothing that may be written once only is in the queue and sent: losing its connection failed it.
        self.queue.iter_mut().for_each(|asked| asked.sent_ns = 0);
        self.transport = Some(transport);
    }

    /// Returns the socket of the connection, to register it.
    pub fn socket(&mut self) -> Option<&mut mio::net::TcpStream> {
        self.transport.as_mut().map(Transport::socket)
    }

    /// Fails the oldest request, as when no connection could be made.
    pub fn fail_first(&mut self) -> Event {
        self.transport = None;
        self.queue.pop_front().map_or(Event::Idle, |asked| Event::Failed(asked.request))
    }

    /// Does what can be done now and returns the next thing that happened.
    pub fn poll(&mut self, now_ns: i64) -> Event {
        if self.transport.is_none() || (self.queue.is_empty() && self.inbox.is_empty()) {
            return self.poll_idle();
        }
        match self.exchange(now_ns) {
            Ok(Some(answer)) => {
                self.queue.pop_front();
                self.answers += 1;
                if answer.head.close {
                    self.transport = None;
                }
                Event::Answered(answer)
            }
            Ok(None) => Event::Idle,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                let waited = self.queue.front().map_or(0, |asked| match asked.sent_ns {
                    0 => 0,
                    sent_ns => now_ns - sent_ns,
                });
                if TIMEOUT_NS < waited { self.fail_first() } else { Event::Idle }
            }
            Err(err) => {
                tracing::debug!(host = self.host, %err, "REST connection");
                // A kept connection that ends before a byte of the answer was given up while we asked:
                // what is repeatable may be asked again, once, on a new one.
                match self.queue.front_mut() {
                    Some(asked)
                        if self.answers != 0
                            && self.inbox.is_empty()
                            && asked.repeatable
                            && !asked.retried =>
                    {
                        (asked.retried, asked.sent_ns) = (true, 0);
                        self.transport = None;
                        Event::Idle
                    }
                    _ => self.fail_first(),
                }
            }
        }
    }

    /// A connection that nobody uses is watched for its end.
    fn poll_idle(&mut self) -> Event {
        if let Some(transport) = &mut self.transport {
            let mut byte = [0u8; 64];
            let gone = match transport.read(&mut byte) {
                Ok(_) => true,
                Err(err) => {
                    err.kind() != io::ErrorKind::WouldBlock
                        && err.kind() != io::ErrorKind::NotConnected
                }
            };
            if gone {
                self.transport = None;
            }
        }
        Event::Idle
    }

    fn exchange(&mut self, now_ns: i64) -> io::Result<Option<Answer>> {
        let (Some(transport), Some(asked)) = (&mut self.transport, self.queue.front_mut()) else {
            return Ok(None);
        };
        if asked.sent_ns == 0 {
            asked.sent_ns = now_ns;
            self.outbox.extend_from_slice(&asked.bytes);
        }
        if !transport.connected()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        while !self.outbox.is_empty() {
            let written = transport.write(&self.outbox)?;
            self.outbox.drain(..written);
        }
        match transport.flush() {
            Err(err) if err.kind() != io::ErrorKind::WouldBlock => return Err(err),
            _ => {}
        }
        // All that is there is read before it is looked at: a long answer is parsed a few times, not once
        // a read.
        let mut chunk = [0u8; 64 << 10];
        let end = loop {
            match transport.read(&mut chunk) {
                Ok(0) => break io::ErrorKind::UnexpectedEof.into(),
                Ok(bytes) => self.inbox.extend_from_slice(&chunk[..bytes]),
                Err(err) => break err,
            }
            if BODY_BYTES_MAX + HEAD_BYTES_MAX < self.inbox.len() {
                break invalid("answer too long");
            }
        };
        match parse(&mut self.inbox)? {
            Some((head, body)) => {
                let (request, stamp) = (asked.request, transport.stamp());
                Ok(Some(Answer { request, head, body, stamp }))
            }
            None => Err(end),
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Takes one whole answer off the front of the inbox, if it is there.
fn parse(inbox: &mut Vec<u8>) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(inbox) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if HEAD_BYTES_MAX < inbox.len() => {
            return Err(invalid("head too long"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(invalid("not HTTP")),
    };
    let mut head = Head { status: response.code.unwrap_or(0), ..Head::default() };
    let mut length: Option<usize> = None;
    let mut chunked = false;
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            length = Some(value.parse().map_err(|_| invalid("content-length"))?);
        } else if is("transfer-encoding") {
            chunked = value.to_ascii_lowercase().contains("chunked");
        } else if is("retry-after") {
            head.retry_after_s = value.parse().ok();
        } else if is("x-mbx-used-weight-1m") {
            head.used_weight = value.parse().ok();
        } else if is("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        }
    }
    let rest = &inbox[head_bytes..];
    let (body, used) = if chunked {
        match dechunk(rest)? {
            Some(done) => done,
            None => return Ok(None),
        }
    } else {
        let length = match (length, head.status) {
            (_, 204 | 304) => 0,
            (Some(length), _) => length,
            (None, _) => return Err(invalid("neither content-length nor chunked")),
        };
        if BODY_BYTES_MAX < length {
            return Err(invalid("body too long"));
        }
        match rest.get(..length) {
            Some(body) => (body.to_vec(), length),
            None => return Ok(None),
        }
    };
    inbox.drain(..head_bytes + used);
    Ok(Some((head, body)))
}

/// Returns a chunked body and the bytes it took, once it is whole.
fn dechunk(bytes: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (start, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((start, size))) => (start, size as usize),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(invalid("chunk size")),
        };
        if BODY_BYTES_MAX - body.len() < size {
            return Err(invalid("body too long"));
        }
        at += start;
        if size == 0 {
            // No trailers are expected; the empty line ends the body.
            return match bytes.get(at..at + 2) {
                Some(b"\r\n") => Ok(Some((body, at + 2))),
                Some(_) => Err(invalid("trailers")),
                None => Ok(None),
            };
        }
        match bytes.get(at..at + size + 2) {
            Some(chunk) => body.extend_from_slice(&chunk[..size]),
            None => return Ok(None),
        }
        at += size + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<(Head, Vec<u8>)> {
        parse(&mut text.as_bytes().to_vec()).expect("HTTP")
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-MBX-USED-WEIGHT-1M: 250\r\n\r\nbody";
        for cut in 0..text.len() {
            assert!(whole(&text[..cut]).is_none(), "{cut}");
        }
        let (head, body) = whole(text).unwrap();
        assert_eq!(
            (head.status, head.used_weight, body.as_slice()),
            (200, Some(250), &b"body"[..])
        );
        let text = "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for cut in 0..text.len() {
            assert!(whole(&text[..cut]).is_none(), "{cut}");
        }
        let (head, body) = whole(text).unwrap();
        assert_eq!(
            (head.status, head.retry_after_s, body.as_slice()),
            (429, Some(7), &b"abcde"[..])
        );
    }

    #[test]
    fn two_answers_in_one_read_are_two() {
        let one = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
        let mut inbox = format!("{one}a{one}b").into_bytes();
        assert_eq!(parse(&mut inbox).unwrap().unwrap().1, b"a");
        assert_eq!(parse(&mut inbox).unwrap().unwrap().1, b"b");
        assert!(inbox.is_empty());
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for text in [
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nbody without length",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        ] {
            assert!(parse(&mut text.as_bytes().to_vec()).is_err(), "{text}");
        }
        assert!(parse(&mut vec![b'H'; HEAD_BYTES_MAX + 1]).is_err());
    }
}
