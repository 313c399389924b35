//! Server side of WebSocket framing (RFC 6455), without extensions.
//!
//! Invariant: whatever a client sends, memory stays below [`MESSAGE_MAX`] plus one read, and a breach of
//! the protocol ends in a close code, never in a panic.
//!
//! Framing is written here, not taken from a library, because a venue that misbehaves must be able to
//! write frames that no correct library writes, between correct ones and without a second buffer. The
//! tests talk to it with a library's client, so each checks the other.

/// Largest client message.
pub(crate) const MESSAGE_MAX: usize = 256 * 1024;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// Why a connection must be closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    pub code: u16,
    pub reason: &'static str,
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Turns bytes from a client into messages.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buf: Vec<u8>,
    message: Vec<u8>,
    opcode: Option<u8>,
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Returns the next whole message, `None` if more bytes are needed.
    pub fn next(&mut self) -> Result<Option<Incoming>, Breach> {
        loop {
            let Some((fin, opcode, payload)) = self.frame()? else { return Ok(None) };
            if opcode >= CLOSE {
                if !fin || payload.len() > 125 {
                    return Err(Breach { code: 1002, reason: "bad control frame" });
                }
                return Ok(Some(match opcode {
                    CLOSE if payload.len() >= 2 => {
                        Incoming::Close(Some(u16::from_be_bytes([payload[0], payload[1]])))
                    }
                    CLOSE => Incoming::Close(None),
                    PING => Incoming::Ping(payload),
                    PONG => Incoming::Pong(payload),
                    _ => return Err(Breach { code: 1002, reason: "unknown opcode" }),
                }));
            }
            match (opcode, self.opcode) {
                (CONTINUATION, Some(_)) => {}
                (TEXT | BINARY, None) => self.opcode = Some(opcode),
                _ => return Err(Breach { code: 1002, reason: "bad fragmentation" }),
            }
            if self.message.len() + payload.len() > MESSAGE_MAX {
                return Err(Breach { code: 1009, reason: "message too big" });
            }
            self.message.extend_from_slice(&payload);
            if fin {
                let message = std::mem::take(&mut self.message);
                if self.opcode.take() == Some(BINARY) {
                    return Ok(Some(Incoming::Binary));
                }
                let text = String::from_utf8(message)
                    .map_err(|_| Breach { code: 1007, reason: "invalid UTF-8" })?;
                return Ok(Some(Incoming::Text(text)));
            }
        }
    }

    /// Takes one frame off the buffer and unmasks it.
    fn frame(&mut self) -> Result<Option<(bool, u8, Vec<u8>)>, Breach> {
        let [first, second, ..] = self.buf[..] else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Breach { code: 1002, reason: "reserved bits" });
        }
        if second & 0x80 == 0 {
            return Err(Breach { code: 1002, reason: "client frames must be masked" });
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let head = 2 + extended + 4;
        if self.buf.len() < head {
            return Ok(None);
        }
        let len = match extended {
            0 => usize::from(second & 0x7f),
            _ => self.buf[2..2 + extended]
                .iter()
                .fold(0usize, |len, b| len.saturating_mul(256).saturating_add(usize::from(*b))),
        };
        if len > MESSAGE_MAX {
            return Err(Breach { code: 1009, reason: "message too big" });
        }
        if self.buf.len() < head + len {
            return Ok(None);
        }
        let mask = [self.buf[head - 4], self.buf[head - 3], self.buf[head - 2], self.buf[head - 1]];
        let masked = self.buf[head..head + len].iter();
        let payload = masked.zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        self.buf.drain(..head + len);
        Ok(Some((first & 0x80 != 0, first & 0x0f, payload)))
    }
}

/// Appends one whole server frame.
pub(crate) fn encode(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(u8::try_from(len).unwrap_or(0)),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends one text frame.
pub(crate) fn encode_text(payload: &[u8], out: &mut Vec<u8>) {
    encode(TEXT, payload, out);
}

/// Appends a close frame.
pub(crate) fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let mut payload = code.to_be_bytes().to_vec();
    let room = reason.len().min(123);
    payload.extend_from_slice(&reason.as_bytes()[..room]);
    encode(CLOSE, &payload, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7u8, 1, 99, 200];
        let mut frame = vec![first];
        if payload.len() < 126 {
            frame.push(0x80 | u8::try_from(payload.len()).unwrap());
        } else {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k));
        frame
    }

    #[test]
    fn messages_survive_any_split() {
        let long = "x".repeat(300);
        let mut bytes = client(0x81, b"hello");
        bytes.extend(client(0x01, long.as_bytes()));
        bytes.extend(client(0x89, b"beat"));
        bytes.extend(client(0x80, b"tail"));
        bytes.extend(client(0x88, &[0x03, 0xe8]));
        let mut reader = Reader::default();
        let mut got = Vec::new();
        for byte in bytes {
            reader.push(&[byte]);
            got.extend(reader.next().unwrap());
        }
        let expected = [
            Incoming::Text("hello".to_owned()),
            Incoming::Ping(b"beat".to_vec()),
            Incoming::Text(format!("{long}tail")),
            Incoming::Close(Some(1000)),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn breaches_get_their_codes() {
        let check = |bytes: &[u8], code: u16| {
            let mut reader = Reader::default();
            reader.push(bytes);
            assert_eq!(reader.next().unwrap_err().code, code);
        };
        check(&[0x81, 0x01, b'x'], 1002);
        check(&client(0x80, b"x"), 1002);
        check(&client(0xc1, b"x"), 1002);
        check(&client(0x83, b"x"), 1002);
        check(&client(0x81, &[0xff, 0xfe]), 1007);
        check(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4], 1009);
    }
}
