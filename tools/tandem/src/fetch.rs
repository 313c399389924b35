//! One question to a venue's REST interface before anything runs: its instruments.
//!
//! Invariant: bounded in time and tries; what the venue answers is told word for word when it is no
//! answer to the question.

use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tandem_core::record::Venue;
use tandem_feeds::net::http::{Client, Event};
use tandem_feeds::net::resolve::Resolver;
use tandem_feeds::net::tls::{self, TlsError};
use tandem_feeds::net::transport::Transport;
use tandem_feeds::spec::InstrumentRules;

use crate::config::VenueConfig;
use crate::time::now_ns;
use crate::venues;

/// Tries of one path; venues answer 429 or 5xx for a moment.
const TRIES: u32 = 4;
/// Between two questions: the feed that starts after us shares the venue's budget with us.
const BETWEEN: Duration = Duration::from_millis(250);
const ANSWER_WITHIN: Duration = Duration::from_secs(12);

/// Why a venue did not tell its instruments.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Its host cannot be reached.
    #[error("{host}:{port} cannot be reached: check rest_url, the network and tls_ca_file")]
    Unreachable {
        /// Host.
        host: String,
        /// Port.
        port: u16,
    },
    /// It answered with an error.
    #[error("{path}: HTTP {status}: {body}")]
    Status {
        /// What was asked.
        path: String,
        /// The status.
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The answer is not what the venue documents.
    #[error("{path}: {detail}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong.
        detail: String,
    },
}

/// Asks a venue for the rules of its configured symbols.
pub fn metadata(venue: Venue, config: &VenueConfig) -> Result<Vec<InstrumentRules>, FetchError> {
    let mut rules = Vec::new();
    for (idx, path) in venues::metadata_paths(venue, &config.symbols).into_iter().enumerate() {
        if idx != 0 {
            std::thread::sleep(BETWEEN);
        }
        let mut body = get(config, &path)?;
        let answer = venues::parse_metadata(venue, &mut body);
        let found = answer.map_err(|error| FetchError::Answer {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        rules.extend(found);
    }
    Ok(rules)
}

/// Asks a venue's public REST interface; the answer's body.
pub fn get(config: &VenueConfig, path: &str) -> Result<Vec<u8>, FetchError> {
    let mut pause = Duration::from_millis(200);
    let mut last = None;
    for attempt in 0..TRIES {
        if attempt != 0 {
            std::thread::sleep(pause);
            pause *= 3;
        }
        match get_once(config, path) {
            Err(error @ FetchError::Status { status: 400..=417 | 419..=428 | 430..=499, .. }) => {
                return Err(error);
            }
            Err(error) => last = Some(error),
            done => return done,
        }
    }
    // TRIES is not 0, so there was an error.
    Err(last.unwrap_or(FetchError::Unreachable { host: config.rest_url.clone(), port: 0 }))
}

fn get_once(config: &VenueConfig, path: &str) -> Result<Vec<u8>, FetchError> {
    let Some((_, address)) = config.addresses() else {
        return Err(FetchError::Unreachable { host: config.rest_url.clone(), port: 0 });
    };
    let unreachable = || FetchError::Unreachable { host: address.host.clone(), port: address.port };
    let tls = match address.tls {
        true => Some(tls::client_config(config.tls_ca_file.as_deref())?),
        false => None,
    };
    let until = Instant::now() + ANSWER_WITHIN;
    let nap = || std::thread::sleep(Duration::from_millis(1));
    let mut resolver = Resolver::start();
    let socket = loop {
        if let Some(socket) = resolver.address(&address.host, address.port) {
            break socket;
        }
        if until < Instant::now() {
            return Err(unreachable());
        }
        nap();
    };
    let name = ServerName::try_from(address.host.clone()).map_err(|_| unreachable())?;
    let transport = Transport::connect(socket, tls.as_ref().map(|config| (config, name)))
        .map_err(|_| unreachable())?;
    let mut client = Client::new(format!("{}:{}", address.host, address.port));
    client.get(0, format!("{}{path}", address.prefix));
    client.attach(transport);
    loop {
        match client.poll(now_ns()) {
            Event::Answered(answer) if answer.head.status == 200 => return Ok(answer.body),
            Event::Answered(answer) => {
                let begin = &answer.body[..answer.body.len().min(200)];
                let body = String::from_utf8_lossy(begin).into_owned();
                let path = path.to_owned();
                return Err(FetchError::Status { path, status: answer.head.status, body });
            }
            Event::Failed(_) => return Err(unreachable()),
            Event::Idle if until < Instant::now() => return Err(unreachable()),
            Event::Idle => nap(),
        }
    }
}
