//! One WebSocket connection, never blocking.
//!
//! Invariant: it goes from connecting to open to gone and never back; being gone is told once, with its
//! cause. A message is handed out whole, at most [`MESSAGE_BYTES_MAX`] long, with the stamp of the read
//! that completed it. Pings of the peer are answered here.
//!
//! Not here: what is subscribed and what messages mean (the machines), reconnecting (theirs too).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tungstenite::handshake::client::{ClientHandshake, Request};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

use super::backoff::Random;
use super::transport::{ReadStamp, Transport};
use crate::machine::CloseCause;

/// Largest message taken. Coinbase's BTC-USD snapshot is several MB; ccxt settled on 100 MiB
/// (`protocols/coinbase.md` section 13).
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Read from the socket at once.
const READ_BYTES: usize = 256 << 10;

enum State {
    Connecting(Box<(Transport, Request)>),
    Handshake(Box<MidHandshake<ClientHandshake<Transport>>>),
    Open(Box<WebSocket<Transport>>),
    Gone,
}

/// What a connection has to say.
#[derive(Debug)]
pub enum Event {
    /// It is open.
    Opened,
    /// A text or binary message.
    Message(Frame, ReadStamp),
    /// A pong.
    Pong,
    /// It is gone.
    Gone(CloseCause),
    /// Nothing more for now.
    Idle,
}

/// The payload of a message, as the library holds it.
#[derive(Debug)]
pub enum Frame {
    /// Text, checked to be UTF-8.
    Text(Utf8Bytes),
    /// Anything.
    Binary(Bytes),
}

impl Frame {
    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Frame::Text(text) => text.as_bytes(),
            Frame::Binary(bytes) => bytes,
        }
    }
}

/// A connection.
pub struct Connection {
    state: State,
    /// Where a staged frame is made: kept, so that staging allocates nothing.
    frame: Vec<u8>,
    masks: Random,
}

/// Largest payload of a staged frame: its length is two bytes.
pub const STAGED_BYTES_MAX: usize = u16::MAX as usize;

impl Connection {
    /// Begins to connect. `url` is the whole `ws://` or `wss://` address that the request names.
    pub fn connect(
        address: SocketAddr,
        url: &str,
        tls: Option<(&Arc<ClientConfig>, ServerName<'static>)>,
    ) -> io::Result<Connection> {
        let request = tungstenite::client::IntoClientRequest::into_client_request(url)
            .map_err(io::Error::other)?;
        let transport = Transport::connect(address, tls)?;
        // Masks keep proxies from being fooled by what we send; under TLS there is none to fool.
        let seed = RandomState::new().build_hasher().finish();
        Ok(Connection {
            state: State::Connecting(Box::new((transport, request))),
            frame: Vec::with_capacity(4 << 10),
            masks: Random::new(seed),
        })
    }

    /// Puts a text frame ready without a system call; [`Connection::commit`] sends it. Refused with
    /// `WouldBlock` while anything earlier waits for room.
    pub fn stage(&mut self, payload: &[u8]) -> io::Result<()> {
        let State::Open(socket) = &mut self.state else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        assert!(payload.len() <= STAGED_BYTES_MAX, "a staged frame is short");
        match socket.flush() {
            Ok(()) => {}
            Err(Error::Io(err)) => return Err(err),
            Err(_) => return Err(io::ErrorKind::NotConnected.into()),
        }
        let mask = (self.masks.bits() as u32).to_le_bytes();
        text_frame(&mut self.frame, payload, mask);
        socket.get_mut().stage(&self.frame)
    }

    /// Hands the staged frame to the socket. An error means that the connection is of no more use.
    pub fn commit(&mut self) -> io::Result<()> {
        match &mut self.state {
            State::Open(socket) => socket.get_mut().commit(),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Returns the socket, to register it; nothing once it is gone or mid-handshake (registered before).
    pub fn socket(&mut self) -> Option<&mut TcpStream> {
        match &mut self.state {
            State::Connecting(connecting) => Some(connecting.0.socket()),
            State::Open(socket) => Some(socket.get_mut().socket()),
            State::Handshake(middle) => Some(middle.get_mut().get_mut().socket()),
            State::Gone => None,
        }
    }

    /// Returns when the other side's certificate ends, UNIX seconds; nothing without TLS or before it is open.
    #[must_use]
    pub fn certificate_ends_s(&self) -> Option<i64> {
        match &self.state {
            State::Open(socket) => socket.get_ref().certificate_ends_s(),
            _ => None,
        }
    }

    /// Returns whether messages can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Does what can be done now and returns the next thing that happened.
    pub fn poll(&mut self) -> Event {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Connecting(connecting) => match connecting.0.connected() {
                Ok(false) => {
                    self.state = State::Connecting(connecting);
                    Event::Idle
                }
                Ok(true) => {
                    let (transport, request) = *connecting;
                    let config = WebSocketConfig::default()
                        .read_buffer_size(READ_BYTES)
                        .max_message_size(Some(MESSAGE_BYTES_MAX))
                        .max_frame_size(Some(MESSAGE_BYTES_MAX));
                    let begun = ClientHandshake::start(transport, request, Some(config));
                    match begun {
                        Ok(middle) => self.shake(middle),
                        Err(err) => {
                            tracing::warn!(%err, "WebSocket request");
                            Event::Gone(CloseCause::Failed)
                        }
                    }
                }
                Err(err) => {
                    tracing::debug!(%err, "connect");
                    Event::Gone(CloseCause::Failed)
                }
            },
            State::Handshake(middle) => self.shake(*middle),
            State::Open(socket) => self.receive(socket),
            State::Gone => Event::Idle,
        }
    }

    fn shake(&mut self, middle: MidHandshake<ClientHandshake<Transport>>) -> Event {
        match middle.handshake() {
            Ok((socket, _response)) => {
                self.state = State::Open(Box::new(socket));
                Event::Opened
            }
            Err(HandshakeError::Interrupted(middle)) => {
                self.state = State::Handshake(Box::new(middle));
                Event::Idle
            }
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let retry_after_s = response
                    .headers()
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok()?.trim().parse().ok());
                let status = response.status().as_u16();
                Event::Gone(CloseCause::Refused { status, retry_after_s })
            }
            Err(HandshakeError::Failure(err)) => {
                tracing::debug!(%err, "handshake");
                Event::Gone(CloseCause::Failed)
            }
        }
    }

    fn receive(&mut self, mut socket: Box<WebSocket<Transport>>) -> Event {
        loop {
            let event = match socket.read() {
                Ok(Message::Text(text)) => {
                    Event::Message(Frame::Text(text), socket.get_ref().stamp())
                }
                Ok(Message::Binary(payload)) => {
                    Event::Message(Frame::Binary(payload), socket.get_ref().stamp())
                }
                Ok(Message::Pong(_)) => Event::Pong,
                // The answer is queued by the library; it leaves with the next flush.
                Ok(Message::Ping(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(frame)) => {
                    let code = frame.map_or(1005, |frame: CloseFrame| u16::from(frame.code));
                    let _ = socket.flush();
                    return Event::Gone(CloseCause::Closed { code });
                }
                Err(Error::Io(err)) if err.kind() == io::ErrorKind::WouldBlock => {
                    match socket.flush() {
                        Ok(()) => Event::Idle,
                        Err(Error::Io(err)) if err.kind() == io::ErrorKind::WouldBlock => {
                            Event::Idle
                        }
                        Err(err) => return Event::Gone(cause(&err)),
                    }
                }
                Err(err) => return Event::Gone(cause(&err)),
            };
            self.state = State::Open(socket);
            return event;
        }
    }

    /// Sends a text frame; what does not fit into the socket now leaves with a later poll.
    pub fn send(&mut self, text: String) -> Result<(), CloseCause> {
        self.write(Message::text(text))
    }

    /// Sends a ping.
    pub fn ping(&mut self) -> Result<(), CloseCause> {
        self.write(Message::Ping(Bytes::new()))
    }

    fn write(&mut self, message: Message) -> Result<(), CloseCause> {
        let State::Open(socket) = &mut self.state else { return Err(CloseCause::Local) };
        match socket.send(message) {
            Ok(()) => Ok(()),
            Err(Error::Io(err)) if err.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(err) => Err(cause(&err)),
        }
    }

    /// Closes it: with a close frame, or by a reset.
    pub fn close(&mut self, reset: bool) {
        match &mut self.state {
            State::Open(socket) if reset => socket.get_ref().reset(),
            State::Open(socket) => {
                // One try: we do not wait for the peer's answer.
                let _ = socket.close(None);
                let _ = socket.flush();
            }
            State::Connecting(_) | State::Handshake(_) | State::Gone => {}
        }
        self.state = State::Gone;
    }
}

/// One whole masked text frame (RFC 6455 section 5.2), in place of what the buffer held.
fn text_frame(frame: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    frame.clear();
    frame.push(0x81);
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

fn cause(err: &Error) -> CloseCause {
    match err {
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) | Error::Tls(_) => {
            CloseCause::Reset
        }
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            CloseCause::Reset
        }
        _ => CloseCause::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of RFC 6455 section 5.7, and both forms of the length.
    #[test]
    fn a_staged_frame_is_what_the_standard_says() {
        let mut frame = Vec::new();
        text_frame(&mut frame, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(frame, hello);
        for (len, head) in [(125, 2), (126, 4), (STAGED_BYTES_MAX, 4)] {
            text_frame(&mut frame, &vec![b'x'; len], [0; 4]);
            assert_eq!(frame.len(), head + 4 + len);
        }
    }
}
