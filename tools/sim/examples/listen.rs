//! Subscribes to every book of a running simulator and counts: `listen endpoints.json [seconds]`.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use tandem_sim::{Addresses, SimConfig, Venue};
use tokio_tungstenite::tungstenite::{Message, client::client};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("which endpoints.json?")?;
    let seconds: u64 = arguments.next().map_or(Ok(10), |s| s.parse())?;
    let addresses: Addresses = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let cfg = SimConfig::default();
    let mut threads = Vec::new();
    for (venue, at) in addresses.venues {
        let symbols: Vec<String> = match venue {
            Venue::Binance => &cfg.binance.instruments,
            Venue::Coinbase => &cfg.coinbase.instruments,
            Venue::Kraken => &cfg.kraken.instruments,
        }
        .iter()
        .map(|i| i.symbol.clone())
        .collect();
        let (url, first) = request(venue, &at.ws, &symbols);
        threads.push(std::thread::spawn(move || {
            let (messages, bytes) =
                count(at.plain, &url, first, Duration::from_secs(seconds)).unwrap_or_default();
            println!(
                "{venue}: {} messages/s, {} kB/s",
                messages / seconds,
                bytes / seconds / 1_000
            );
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Where to connect, and what to say first.
fn request(venue: Venue, ws: &str, symbols: &[String]) -> (String, Option<String>) {
    match venue {
        Venue::Binance => {
            let streams: Vec<String> = symbols
                .iter()
                .map(|s| s.to_lowercase())
                .map(|s| format!("{s}@bookTicker/{s}@depth@100ms/{s}@trade"))
                .collect();
            (format!("{ws}?streams={}", streams.join("/")), None)
        }
        Venue::Coinbase => {
            let ask =
                serde_json::json!({"type":"subscribe","product_ids":symbols,"channel":"level2"});
            (ws.to_owned(), Some(ask.to_string()))
        }
        Venue::Kraken => {
            let params = serde_json::json!({"channel":"book","symbol":symbols,"depth":10});
            let ask = serde_json::json!({"method":"subscribe","params":params});
            (ws.to_owned(), Some(ask.to_string()))
        }
    }
}

fn count(
    at: std::net::SocketAddr,
    url: &str,
    first: Option<String>,
    time: Duration,
) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let (mut ws, _) = client(url, TcpStream::connect(at)?).map_err(|e| e.to_string())?;
    if let Some(text) = first {
        ws.send(Message::text(text))?;
    }
    let end = Instant::now() + time;
    let (mut messages, mut bytes) = (0, 0);
    while Instant::now() < end {
        let message = ws.read()?;
        messages += 1;
        bytes += message.len() as u64;
    }
    Ok((messages, bytes))
}
