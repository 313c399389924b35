//! Clients that misbehave: the simulator answers, closes, and goes on serving the others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Client, Sim, http, raw_ws, small};
use tandem_sim::config::Venue;

fn sim() -> Sim {
    Sim::start(small(Venue::Binance, &["BTCUSDT"]))
}

/// Sends bytes and returns all that comes back until the end.
fn answer(mut tcp: TcpStream, bytes: &[u8]) -> Vec<u8> {
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The server may close while a too long request is still on its way.
    let _ = tcp.write_all(bytes);
    let mut all = Vec::new();
    let _ = tcp.read_to_end(&mut all);
    all
}

#[test]
fn bad_requests_get_a_status_and_an_end() {
    let sim = sim();
    let at = sim.plain(Venue::Binance);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(40_000));
    let cases: [(&str, &str); 5] = [
        ("\x16\x03\x01 not http\r\n\r\n", "400"),
        ("GET /api/v3/ping HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "400"),
        ("GET /api/v3/ping HTTP/1.1\r\ncontent-length: 999999999\r\n\r\n", "413"),
        ("GET /api/v3/ping HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "411"),
        (&long, "431"),
    ];
    for (request, status) in cases {
        let got =
            String::from_utf8_lossy(&answer(TcpStream::connect(at).unwrap(), request.as_bytes()))
                .into_owned();
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {got}");
    }
    assert_eq!(http(at, "GET", "/api/v3/ping", "", "{}").status, 200, "a body on GET is fine");
}

#[test]
fn requests_share_a_connection() {
    let sim = sim();
    let two =
        "GET /api/v3/ping HTTP/1.1\r\n\r\nGET /api/v3/ping HTTP/1.1\r\nconnection: close\r\n\r\n";
    let got = answer(TcpStream::connect(sim.plain(Venue::Binance)).unwrap(), two.as_bytes());
    assert_eq!(String::from_utf8(got).unwrap().matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn frames_that_break_the_protocol_are_closed_with_a_code() {
    let sim = sim();
    let at = sim.plain(Venue::Binance);
    let cases: [(&[u8], u16); 4] = [
        (&[0x81, 0x01, b'x'], 1002),
        (&[0xf1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007),
        (&[0x81, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1009),
    ];
    for (bytes, code) in cases {
        let got = answer(raw_ws(at, "/ws"), bytes);
        assert_eq!((got[0], &got[2..4]), (0x88, &code.to_be_bytes()[..]), "{code}");
    }
    // Half a frame, then silence, must not hold up anyone.
    let mut half = raw_ws(at, "/ws");
    half.write_all(&[0x81]).unwrap();
    Client::connect(at, None, "/ws/btcusdt@bookTicker").json();
}
