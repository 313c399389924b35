//! A byte stream to a venue: TCP, or TLS over TCP, never blocking.
//!
//! Invariant: [`Read`] and [`Write`] give `WouldBlock` where they would wait. What was accepted by
//! `write` leaves with the next `flush` that finds room. The stamps are those of the last kernel read,
//! so they are never earlier than the arrival of any byte handed out.
//!
//! Not here: what the bytes mean (`ws`, `http`).

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tandem_shm::tsc;

use super::sockopt;

/// When the last bytes came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStamp {
    /// The kernel's stamp, UNIX ns; 0 where it gave none.
    pub kernel_ns: i64,
    /// TSC when the read returned.
    pub tsc: u64,
}

/// The socket with its stamps.
#[derive(Debug)]
pub struct StampedTcp {
    stream: TcpStream,
    stamp: ReadStamp,
}

impl Read for StampedTcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (bytes, kernel_ns) = sockopt::recv_stamped(self.stream.as_raw_fd(), buffer)?;
        self.stamp = ReadStamp { kernel_ns: kernel_ns.unwrap_or(0), tsc: tsc() };
        Ok(bytes)
    }
}

impl Write for StampedTcp {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection's byte stream.
#[derive(Debug)]
pub struct Transport {
    tcp: StampedTcp,
    tls: Option<Box<ClientConnection>>,
    /// Plain bytes put ready by [`Transport::stage`]; with TLS they wait inside it, encrypted.
    staged: Vec<u8>,
}

impl Transport {
    /// Begins to connect. The socket becomes writable when it is connected; the TLS handshake is driven
    /// by the reads and writes after that.
    pub fn connect(
        address: SocketAddr,
        tls: Option<(&Arc<ClientConfig>, ServerName<'static>)>,
    ) -> io::Result<Transport> {
        let stream = TcpStream::connect(address)?;
        let fd = stream.as_raw_fd();
        // Options are a help, not a need: a host that refuses one still trades.
        for outcome in [sockopt::tune(fd), sockopt::stamp_receives(fd)] {
            if let Err(err) = outcome {
                tracing::warn!(%address, %err, "socket option refused");
            }
        }
        let tls = match tls {
            Some((config, name)) => {
                let client = ClientConnection::new(Arc::clone(config), name);
                Some(Box::new(client.map_err(io::Error::other)?))
            }
            None => None,
        };
        let tcp = StampedTcp { stream, stamp: ReadStamp::default() };
        Ok(Transport { tcp, tls, staged: Vec::with_capacity(4 << 10) })
    }

    /// Returns when the other side's certificate ends, UNIX seconds; nothing without TLS or before it was shown.
    #[must_use]
    pub fn certificate_ends_s(&self) -> Option<i64> {
        let chain = self.tls.as_ref()?.peer_certificates()?;
        super::certificate::ends_s(chain.first()?.as_ref())
    }

    /// Puts bytes ready, encrypted, without a system call: what is left to do is [`Transport::commit`].
    /// Refused with `WouldBlock` while earlier bytes wait, so that nothing leaves later than it was
    /// decided.
    pub fn stage(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.wants_write() || !self.staged.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match &mut self.tls {
            None => self.staged.extend_from_slice(bytes),
            Some(tls) if tls.is_handshaking() => return Err(io::ErrorKind::WouldBlock.into()),
            Some(tls) => tls.writer().write_all(bytes)?,
        }
        Ok(())
    }

    /// Hands what was staged to the socket: the first thing it does is the system call. An error, also
    /// `WouldBlock`, means that some or all of it did not leave: the connection is of no more use.
    pub fn commit(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                while tls.wants_write() {
                    tls.write_tls(&mut self.tcp)?;
                }
            }
            None => {
                let written = self.tcp.write(&self.staged)?;
                if written < self.staged.len() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.staged.clear();
            }
        }
        Ok(())
    }

    /// Returns the socket, to register it.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.tcp.stream
    }

    /// Returns whether the TCP connection stands: `Ok(false)` while it is being made.
    pub fn connected(&self) -> io::Result<bool> {
        if let Some(err) = self.tcp.stream.take_error()? {
            return Err(err);
        }
        match self.tcp.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(err) if err.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Returns when the last bytes came.
    #[must_use]
    pub fn stamp(&self) -> ReadStamp {
        self.tcp.stamp
    }

    /// Makes dropping it a reset.
    pub fn reset(&self) {
        if let Err(err) = sockopt::reset_on_close(self.tcp.stream.as_raw_fd()) {
            tracing::debug!(%err, "no reset on close");
        }
    }

    /// Returns whether encrypted bytes wait for room in the socket.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            // The handshake, and answers to key updates, need writing while we read.
            while tls.wants_write() {
                match tls.write_tls(&mut self.tcp) {
                    Ok(_) => {}
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                    Err(err) => return Err(err),
                }
            }
            if tls.read_tls(&mut self.tcp)? == 0 {
                // The end of the socket; the reader knows whether TLS was closed before it.
                return tls.reader().read(buffer);
            }
            tls.process_new_packets()
                .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
        }
    }
}

impl Write for Transport {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.write(buffer),
            Some(tls) => tls.writer().write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}
