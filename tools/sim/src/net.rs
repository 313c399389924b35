//! Sockets: accept, TLS, HTTP/1.1, and the pump of one WebSocket connection.
//!
//! Invariant: nothing here knows a venue. Bytes become requests and messages for the [`World`]; what
//! the world queues becomes bytes. Sizes are bounded and every wait has an end.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::config::Venue;
use crate::faults::Answer;
use crate::hub::{Out, Outbox};
use crate::observe::Mark;
use crate::ws;
use crate::{Shared, stopped};

/// Largest request head; Binance clients put many streams into one URI.
const HEAD_MAX: usize = 32 * 1024;
const BODY_MAX: usize = 256 * 1024;
const HEADERS_MAX: usize = 64;
/// Connections a listener serves at once.
const CONNECTIONS_MAX: usize = 1_024;
/// Bytes the pump takes from its queue before they are written.
const WRITE_BATCH: usize = 256 * 1024;

/// A request, parsed.
#[derive(Debug)]
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub peer: IpAddr,
    pub tls: bool,
    /// When its last bytes were read.
    pub read_at: std::time::Instant,
}

impl Request {
    /// Returns a header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Query parameters in order, percent-decoded.
    pub fn params(&self) -> Vec<(String, String)> {
        parse_query(&self.query)
    }

    fn upgrade_key(&self) -> Option<&str> {
        let upgrade = self.header("upgrade")?.to_ascii_lowercase();
        (upgrade.contains("websocket") && self.method == "GET")
            .then(|| self.header("sec-websocket-key"))?
    }
}

/// Splits and decodes a query string or form body.
pub(crate) fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

/// Decodes percent-encoding and `+` as a space; what is malformed stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    percent_decode_raw(&text.replace('+', " "))
}

/// Encodes as `urllib.parse.quote` does: all but letters, digits and `_.-~`.
pub(crate) fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Decodes percent-encoding and nothing else.
pub(crate) fn percent_decode_raw(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%' && at + 2 < bytes.len())
            .then(|| std::str::from_utf8(&bytes[at + 1..at + 3]).ok())
            .flatten()
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (hex, bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 3;
            }
            (None, byte) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// End the connection after the reply.
    pub close: bool,
}

impl Response {
    pub fn json(status: u16, body: String) -> Self {
        let kind = ("content-type".to_owned(), "application/json".to_owned());
        Self { status, headers: vec![kind], body: body.into_bytes(), close: false }
    }

    pub fn html(status: u16, body: &str) -> Self {
        let kind = ("content-type".to_owned(), "text/html".to_owned());
        Self { status, headers: vec![kind], body: body.as_bytes().to_vec(), close: false }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            409 => "Conflict",
            410 => "Gone",
            403 => "Forbidden",
            404 => "Not Found",
            418 => "I'm a teapot",
            429 => "Too Many Requests",
            500 => "Internal Server Error",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            _ => "Status",
        };
        out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", self.status).as_bytes());
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let connection = if self.close { "close" } else { "keep-alive" };
        let tail =
            format!("content-length: {}\r\nconnection: {connection}\r\n\r\n", self.body.len());
        out.extend_from_slice(tail.as_bytes());
        out.extend_from_slice(&self.body);
    }
}

/// Whom a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Venue(Venue),
    Control,
}

/// A client's socket, plain or TLS.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Makes closing send RST.
    fn reset_on_close(&self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        // Fails only on a socket that is already gone.
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// How new connections are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    None,
    /// Nothing listens.
    Closed,
    Reset,
    Http(u16),
}

/// Accepts until shutdown; a `refuse` fault can make the port vanish for a while.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    role: Role,
    listener: TcpListener,
    at: SocketAddr,
    tls: Option<TlsAcceptor>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = shared.stop.subscribe();
    let mut listener = Some(listener);
    loop {
        let refusal = match role {
            Role::Venue(venue) => shared.world().refusal(venue),
            Role::Control => Refusal::None,
        };
        if refusal == Refusal::Closed {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(at).await.ok();
        }
        let Some(open) = &listener else {
            tokio::select! {
                () = sleep(Duration::from_millis(20)) => continue,
                () = stopped(&mut stop) => return,
            }
        };
        let accepted = tokio::select! {
            accepted = open.accept() => accepted,
            // Looks for a new `refuse` fault.
            () = sleep(Duration::from_millis(50)) => continue,
            () = stopped(&mut stop) => return,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of descriptors or the like: later is better.
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let refusal = match role {
            Role::Venue(venue) => shared.world().refusal(venue),
            Role::Control => Refusal::None,
        };
        let slot = Arc::clone(&slots).try_acquire_owned();
        if matches!(refusal, Refusal::Reset | Refusal::Closed) || slot.is_err() {
            let _ = tcp.set_zero_linger();
            continue;
        }
        let _ = tcp.set_nodelay(true);
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let mut stop = shared.stop.subscribe();
            tokio::select! {
                () = connection(&shared, role, tcp, peer, tls) => {}
                () = stopped(&mut stop) => {}
            }
        });
    }
}

async fn connection(
    shared: &Arc<Shared>,
    role: Role,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
) {
    let is_tls = tls.is_some();
    let stream = match tls {
        None => Stream::Plain(tcp),
        Some(acceptor) => match timeout(Duration::from_secs(10), acceptor.accept(tcp)).await {
            Ok(Ok(tls)) => Stream::Tls(Box::new(tls)),
            _ => return,
        },
    };
    serve(shared, role, stream, peer.ip(), is_tls).await;
}

/// Answers requests until the connection ends or becomes a WebSocket.
async fn serve(shared: &Arc<Shared>, role: Role, mut stream: Stream, peer: IpAddr, tls: bool) {
    let mut buf = Vec::new();
    loop {
        let request =
            match timeout(Duration::from_secs(90), read_request(&mut stream, &mut buf)).await {
                Ok(Ok(Some((request, used)))) => {
                    buf.drain(..used);
                    Request { peer, tls, read_at: std::time::Instant::now(), ..request }
                }
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(status)) => {
                    let mut out = Vec::new();
                    Response { close: true, ..Response::html(status, "") }.encode(&mut out);
                    let _ = stream.write_all(&out).await;
                    return;
                }
            };
        if let (Role::Venue(venue), Some(key)) = (role, request.upgrade_key()) {
            let accepted = shared.world().upgrade(venue, &request);
            match accepted {
                Ok(outbox) => {
                    let head = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                         connection: Upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
                        derive_accept_key(key.as_bytes())
                    );
                    let id = outbox.id;
                    pump(shared, stream, head.into_bytes(), buf, outbox).await;
                    shared.world().closed(id);
                }
                Err(refused) => {
                    let mut out = Vec::new();
                    Response { close: true, ..refused }.encode(&mut out);
                    let _ = stream.write_all(&out).await;
                    let _ = stream.shutdown().await;
                }
            }
            return;
        }
        let response = match role {
            Role::Venue(venue) => answer(shared, venue, &request).await,
            Role::Control => Ok(crate::control::handle(shared, &request)),
        };
        let mut response = match response {
            Ok(response) => response,
            Err(Silence::Reset) => {
                stream.reset_on_close();
                return;
            }
            Err(Silence::Close) => return,
            Err(Silence::Hang) => {
                // The client gives up first; bytes it may still send change nothing.
                let mut sink = [0u8; 4_096];
                while !matches!(stream.read(&mut sink).await, Ok(0) | Err(_)) {}
                return;
            }
        };
        response.close |=
            request.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        if request.method == "HEAD" {
            response.body.clear();
        }
        let mut out = Vec::with_capacity(response.body.len() + 512);
        response.encode(&mut out);
        let written = timeout(Duration::from_secs(30), async {
            stream.write_all(&out).await?;
            stream.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) || response.close {
            let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
            return;
        }
    }
}

/// How a request stays unanswered.
pub(crate) enum Silence {
    Reset,
    Close,
    Hang,
}

/// Answers one request of a venue's client, as late and as wrongly as its fate wants.
async fn answer(
    shared: &Arc<Shared>,
    venue: Venue,
    request: &Request,
) -> Result<Response, Silence> {
    let fate = shared.world().rest_fate(venue, request);
    if fate.before_ns > 0 {
        sleep(Duration::from_nanos(fate.before_ns)).await;
    }
    let response = shared.world().rest(venue, request, &fate);
    if fate.after_ns > 0 {
        sleep(Duration::from_nanos(fate.after_ns)).await;
    }
    match fate.answer {
        Answer::None => Err(Silence::Hang),
        Answer::Reset { close: true } => Err(Silence::Close),
        Answer::Reset { close: false } => Err(Silence::Reset),
        _ => Ok(response),
    }
}

/// Reads one request; returns it with the bytes it took, `None` at a clean end, or an HTTP status.
async fn read_request(
    stream: &mut Stream,
    buf: &mut Vec<u8>,
) -> Result<Option<(Request, usize)>, u16> {
    loop {
        if let Some((request, head, body)) = parse_head(buf)? {
            while buf.len() < head + body {
                if !read_more(stream, buf).await {
                    return Ok(None);
                }
            }
            let body = buf[head..head + body].to_vec();
            let used = head + body.len();
            return Ok(Some((Request { body, ..request }, used)));
        }
        if buf.len() > HEAD_MAX {
            return Err(431);
        }
        if !read_more(stream, buf).await {
            return Ok(None);
        }
    }
}

async fn read_more(stream: &mut Stream, buf: &mut Vec<u8>) -> bool {
    let mut chunk = [0u8; 4_096];
    match stream.read(&mut chunk).await {
        Ok(0) | Err(_) => false,
        Ok(n) => {
            buf.extend_from_slice(&chunk[..n]);
            true
        }
    }
}

/// Parses a head; returns the request with the sizes of head and body.
fn parse_head(buf: &[u8]) -> Result<Option<(Request, usize, usize)>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(buf) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(400),
    };
    let target = parsed.path.ok_or(400u16)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|h| {
            let value = String::from_utf8_lossy(h.value).trim().to_owned();
            (h.name.to_ascii_lowercase(), value)
        })
        .collect();
    let length = headers.iter().find(|(n, _)| n == "content-length");
    let body = length.map_or(Ok(0), |(_, v)| v.parse::<usize>()).map_err(|_| 400u16)?;
    if headers.iter().any(|(n, _)| n == "transfer-encoding") {
        return Err(411);
    }
    if body > BODY_MAX {
        return Err(413);
    }
    let request = Request {
        method: parsed.method.ok_or(400u16)?.to_owned(),
        path: percent_decode(path),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        peer: IpAddr::from([127, 0, 0, 1]),
        tls: false,
        read_at: std::time::Instant::now(),
    };
    Ok(Some((request, head, body)))
}

/// How a pump ends.
#[derive(PartialEq, Eq)]
enum End {
    No,
    /// Write what is there, then FIN.
    Drain,
    Reset,
}

/// Moves bytes of one WebSocket connection both ways until one side ends it.
async fn pump(
    shared: &Arc<Shared>,
    stream: Stream,
    head: Vec<u8>,
    early: Vec<u8>,
    mut outbox: Outbox,
) {
    let id = outbox.id;
    let (mut rd, mut wr) = tokio::io::split(stream);
    let mut incoming = ws::Reader::default();
    incoming.push(&early);
    let mut chunk = vec![0u8; 16 * 1024];
    let (mut out, mut done) = (head, 0usize);
    let mut flush = false;
    let mut next: Option<crate::hub::Item> = None;
    let mut end = End::No;
    // Where in `out` marked messages end, to note when their bytes were handed over.
    let mut marks: VecDeque<(usize, Mark)> = VecDeque::new();
    while end != End::Reset {
        if outbox.queued.load(Ordering::Relaxed) > usize::MAX / 4 {
            end = End::Reset;
            break;
        }
        let pending = done < out.len();
        if end == End::Drain && !pending && !flush {
            break;
        }
        // An item that is due is framed at once; a late one waits for its time.
        if let Some(item) = next.take_if(|i| i.at.is_none_or(|at| at <= std::time::Instant::now()))
        {
            outbox.queued.fetch_sub(item.bytes, Ordering::Relaxed);
            end = frame(item.out, &mut out);
            if let Some(mark) = item.mark {
                marks.push_back((out.len(), mark));
            }
            continue;
        }
        let room = out.len() - done < WRITE_BATCH && end == End::No;
        let due = next.as_ref().and_then(|i| i.at).map_or_else(Instant::now, Instant::from_std);
        tokio::select! {
            biased;
            () = sleep_until(due), if next.is_some() && end == End::No => {}
            item = outbox.rx.recv(), if next.is_none() && room => match item {
                Some(item) => next = Some(item),
                None => end = End::Drain,
            },
            wrote = write_or_flush(&mut wr, &out[done..]), if pending || flush => match wrote {
                Ok(None) => flush = false,
                Ok(Some(0)) | Err(_) => end = End::Reset,
                Ok(Some(n)) => {
                    done += n;
                    flush = true;
                    if marks.front().is_some_and(|(at, _)| *at <= done) {
                        shared.note_sent(id, &mut marks, done);
                    }
                    if done == out.len() {
                        out.clear();
                        done = 0;
                        // A multi-megabyte snapshot must not pin its buffer for hours.
                        if out.capacity() > 4 * WRITE_BATCH {
                            out = Vec::new();
                        }
                    }
                }
            },
            read = rd.read(&mut chunk), if end == End::No => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    let read_at = std::time::Instant::now();
                    incoming.push(&chunk[..n]);
                    if !deliver(shared, id, &mut incoming, read_at) {
                        end = End::Drain;
                    }
                }
            },
        }
    }
    let stream = rd.unsplit(wr);
    finish(stream, end).await;
}

/// Writes what there is, or flushes TLS when there is nothing (`None`).
async fn write_or_flush(wr: &mut WriteHalf<Stream>, out: &[u8]) -> io::Result<Option<usize>> {
    if out.is_empty() {
        return wr.flush().await.map(|()| None);
    }
    wr.write(out).await.map(Some)
}

async fn finish(mut stream: Stream, end: End) {
    if end == End::Reset {
        stream.reset_on_close();
        return;
    }
    // After our close frame, the client's bytes are read and dropped until it ends too: unread
    // bytes would turn our FIN into RST and could destroy the close frame on its way.
    let _ = timeout(Duration::from_millis(500), async {
        let _ = stream.shutdown().await;
        let mut sink = [0u8; 4_096];
        while let Ok(n) = stream.read(&mut sink).await {
            if n == 0 {
                break;
            }
        }
    })
    .await;
}

/// Appends one item's bytes.
fn frame(item: Out, out: &mut Vec<u8>) -> End {
    match item {
        Out::Text(body) => ws::encode_text(&body, out),
        Out::Ping(body) => ws::encode(ws::PING, &body, out),
        Out::Pong(body) => ws::encode(ws::PONG, &body, out),
        Out::Raw(bytes) => out.extend_from_slice(&bytes),
        Out::Close(code, reason) => {
            ws::encode_close(code, &reason, out);
            return End::Drain;
        }
        Out::Abrupt => return End::Drain,
        Out::Reset => return End::Reset,
    }
    End::No
}

/// Hands whole messages to the world; `false` ends reading.
fn deliver(
    shared: &Arc<Shared>,
    id: u64,
    incoming: &mut ws::Reader,
    read_at: std::time::Instant,
) -> bool {
    loop {
        match incoming.next() {
            Ok(Some(message)) => {
                let wait = shared.world().message(id, message, read_at);
                if let Some(wait) = wait {
                    wake(shared, wait);
                }
            }
            Ok(None) => return true,
            Err(breach) => {
                shared.world().breach(id, breach);
                return true;
            }
        }
    }
}

/// Runs what the world deferred, when it is due.
fn wake(shared: &Arc<Shared>, wait: Duration) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        sleep(wait).await;
        shared.world().run_deferred();
    });
}
