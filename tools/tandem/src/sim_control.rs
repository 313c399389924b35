//! The simulator's control port, asked from another process or thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(10);

fn ask(control: SocketAddr, head: &str, body: &str) -> io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&control, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    stream.write_all(
        format!(
            "{head} HTTP/1.1\r\nhost: {control}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("the control port's answer is no HTTP"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("the control port refuses: {body}")));
    }
    serde_json::from_str(body).map_err(io::Error::other)
}

/// Asks for `path`.
pub fn get(control: SocketAddr, path: &str) -> io::Result<Value> {
    ask(control, &format!("GET {path}"), "")
}

/// Posts a JSON body to `path`.
pub fn post(control: SocketAddr, path: &str, body: &Value) -> io::Result<Value> {
    ask(control, &format!("POST {path}"), &body.to_string())
}
