//! The floor beside our figures: a raw TCP echo on loopback, measured in the same run.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::demo::{Percentiles, percentiles};

/// About the size of an order.
const BYTES: usize = 256;
const WITHIN: Duration = Duration::from_secs(5);

/// Returns round trips of `count` messages over one connection, ns.
pub fn tcp(count: usize) -> io::Result<Percentiles> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let server = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WITHIN))?;
        let mut buffer = [0u8; BYTES];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer)?;
        }
        Ok(())
    });
    let mut times = hdrhistogram::Histogram::<u64>::new(3).map_err(io::Error::other)?;
    {
        let mut stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WITHIN))?;
        let mut buffer = [7u8; BYTES];
        for _ in 0..count {
            let begun = Instant::now();
            stream.write_all(&buffer)?;
            stream.read_exact(&mut buffer)?;
            let _ = times.record(begun.elapsed().as_nanos() as u64);
        }
    }
    server.join().map_err(|_| io::Error::other("the echo's thread panicked"))??;
    Ok(percentiles(&times))
}
