//! Names to addresses, off the hot thread.
//!
//! Invariant: the tile never waits for a name server. A helper thread asks; the answers are kept, and an
//! old answer is used while a new one is not there, so a failing name server does not take a venue away.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};

/// Requests under way; a tile has a handful of hosts.
const QUEUE: usize = 16;
/// An answer older than this is asked for again when it is used.
const FRESH: Duration = Duration::from_secs(60);

struct Answer {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
}

struct Known {
    addresses: Vec<SocketAddr>,
    next: usize,
    asked: Instant,
}

/// Hosts often have IPv6 addresses that colocated machines cannot reach: they are used only where there
/// is nothing else, so that no attempt is wasted on them.
fn reachable(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv4);
    if v4.is_empty() { v6 } else { v4 }
}

/// A tile's view of the helper.
pub struct Resolver {
    ask: Producer<(String, u16)>,
    answers: Consumer<Answer>,
    known: HashMap<(String, u16), Known>,
}

impl Resolver {
    /// Starts the helper. It ends when the resolver is dropped.
    #[must_use]
    pub fn start() -> Resolver {
        let (ask, mut asked) = RingBuffer::<(String, u16)>::new(QUEUE);
        let (mut answer, answers) = RingBuffer::new(QUEUE);
        thread::spawn(move || {
            while !asked.is_abandoned() {
                match asked.pop() {
                    Ok((host, port)) => {
                        let found = (host.as_str(), port).to_socket_addrs();
                        let addresses = found.map(reachable).unwrap_or_default();
                        // The queue is as deep as the one of the questions.
                        let _ = answer.push(Answer { host, port, addresses });
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Resolver { ask, answers, known: HashMap::new() }
    }

    /// Returns an address of a host, a different one each time where it has several; nothing while the
    /// name is being asked for.
    pub fn address(&mut self, host: &str, port: u16) -> Option<SocketAddr> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(SocketAddr::new(ip, port));
        }
        while let Ok(answer) = self.answers.pop() {
            if let Some(known) = self.known.get_mut(&(answer.host, answer.port))
                && !answer.addresses.is_empty()
            {
                known.addresses = answer.addresses;
            }
        }
        let now = Instant::now();
        let known = self.known.entry((host.to_owned(), port)).or_insert_with(|| Known {
            addresses: Vec::new(),
            next: 0,
            // Long ago, so that the question is asked below.
            asked: now.checked_sub(FRESH * 2).unwrap_or(now),
        });
        let wanted = if known.addresses.is_empty() { Duration::from_secs(1) } else { FRESH };
        if wanted < now.duration_since(known.asked) {
            known.asked = now;
            let _ = self.ask.push((host.to_owned(), port));
        }
        let count = known.addresses.len();
        known.next = known.next.wrapping_add(1);
        (count != 0).then(|| known.addresses[known.next % count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_no_helper_and_names_come_later() {
        let mut resolver = Resolver::start();
        assert_eq!(resolver.address("127.0.0.1", 80), Some(([127, 0, 0, 1], 80).into()));
        let until = Instant::now() + Duration::from_secs(10);
        let found = loop {
            match resolver.address("localhost", 81) {
                Some(address) => break address,
                None => assert!(Instant::now() < until, "localhost has an address"),
            }
            thread::sleep(Duration::from_millis(2));
        };
        assert!(found.ip().is_loopback());
        assert_eq!(resolver.address("no.such.host.invalid", 81), None);
    }
}
