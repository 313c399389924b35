//! A small blocking client of each venue, for processes that are no gateway: warden and command line.
//!
//! Invariant: it can look and cancel, and has no function that could place an order. It keeps nothing of
//! orders, shares no state with the tile, and needs neither universe nor engine: amounts are the venue's
//! decimal text. Every call ends within [`PATIENCE`]; its connection is kept and pinged, so that a cancel
//! pays no handshake.
//!
//! Not here: when to cancel (`warden`), order entry (`gateway`).

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::ServerName;
use tandem_core::record::Venue;
use tandem_feeds::binance::wire::percent;
use tandem_feeds::json::Type;
use tandem_feeds::net::http::{Client, Event};
use tandem_feeds::net::transport::Transport;
use tandem_feeds::tile::Endpoint;

use crate::json::Value;
use crate::keys::{Credentials, KeyError, KeyReport};
use crate::text::Text;
use crate::{binance, coinbase, kraken};

/// The longest that one request takes.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Orders of one Coinbase cancel.
const BATCH: usize = 100;
/// Pages of one list: 100,000 orders. A venue that has more, or that never ends, is not believed.
const PAGES_MAX: usize = 400;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No connection, or it was lost.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer within {PATIENCE:?}")]
    Late,
    /// The venue refused.
    #[error("status {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The venue's words, cut.
        text: String,
    },
    /// An answer that could not be read.
    #[error("unreadable answer to {what}")]
    Unreadable {
        /// What was asked.
        what: &'static str,
    },
}

/// An open order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenView {
    /// The venue's symbol.
    pub symbol: String,
    /// The venue's id.
    pub venue_id: String,
    /// The client id; empty where it has none.
    pub client_id: String,
    /// Quantity, decimal text.
    pub qty: String,
    /// Filled of it, decimal text.
    pub filled: String,
}

/// A trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradeView {
    /// The venue's symbol.
    pub symbol: String,
    /// The venue's id of the order.
    pub order_id: String,
    /// The venue's id of the trade.
    pub trade_id: String,
    /// Price, decimal text.
    pub px: String,
    /// Quantity, decimal text.
    pub qty: String,
}

/// A balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceView {
    /// The venue's name of the asset.
    pub asset: String,
    /// What is not held for orders, decimal text; at Kraken all of it.
    pub free: String,
    /// What is held for orders, decimal text.
    pub held: String,
}

/// What a warden needs of a venue.
pub trait VenueClient {
    /// Returns the venue.
    fn venue(&self) -> Venue;
    /// Asks the venue what the key may do; proves that it is accepted.
    fn authenticate(&mut self) -> Result<KeyReport, ClientError>;
    /// Keeps the connection warm.
    fn ping(&mut self) -> Result<(), ClientError>;
    /// Cancels every open order; returns how many the venue says it cancelled, as far as it says.
    fn cancel_all(&mut self) -> Result<usize, ClientError>;
    /// Returns every open order.
    fn open_orders(&mut self) -> Result<Vec<OpenView>, ClientError>;
    /// Cancels one order; an order that is open no more is no error.
    fn cancel(&mut self, order: &OpenView) -> Result<(), ClientError>;
    /// Returns trades since a UNIX time, at most a page of each symbol.
    fn trades_since(&mut self, unix_ns: i64) -> Result<Vec<TradeView>, ClientError>;
    /// Returns balances.
    fn balances(&mut self) -> Result<Vec<BalanceView>, ClientError>;
    /// Arms the venue's dead-man switch for this many seconds, 0 disarms; `false` where it has none.
    fn deadman(&mut self, seconds: u32) -> Result<bool, ClientError>;
}

/// Returns a venue's client. `symbols` are those that may have orders of ours, as orders name them (Binance
/// cancels by symbol).
pub fn connect(
    credentials: &Credentials,
    endpoint: &Endpoint,
    symbols: &[String],
) -> Result<Box<dyn VenueClient>, ClientError> {
    let line = Line::new(endpoint)?;
    let symbols = symbols.to_vec();
    Ok(match credentials {
        Credentials::BinanceHmac { .. } | Credentials::BinanceEd25519 { .. } => {
            let signer = binance::sign::Signer::new(credentials)?;
            Box::new(BinanceClient { line, signer, symbols })
        }
        Credentials::Coinbase { .. } => {
            Box::new(CoinbaseClient { line, signer: coinbase::sign::Signer::new(credentials)? })
        }
        Credentials::Kraken { nonce_file, .. } => {
            let nonces = kraken::sign::Nonces::open(nonce_file, unix_ns())?;
            let signer = kraken::sign::Signer::new(credentials)?;
            Box::new(KrakenClient { line, signer, nonces })
        }
    })
}

/// Asks a venue what a key may do.
pub fn check(credentials: &Credentials, endpoint: &Endpoint) -> Result<KeyReport, ClientError> {
    connect(credentials, endpoint, &[])?.authenticate()
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// One kept connection and its poller.
struct Line {
    client: Client,
    endpoint: Endpoint,
    host: String,
    poll: Poll,
    events: Events,
    next: u32,
}

impl Line {
    fn new(endpoint: &Endpoint) -> Result<Line, ClientError> {
        let host = match endpoint.rest_port {
            443 => endpoint.rest_host.clone(),
            port => format!("{}:{port}", endpoint.rest_host),
        };
        Ok(Line {
            client: Client::new(host.clone()),
            endpoint: endpoint.clone(),
            host,
            poll: Poll::new()?,
            events: Events::with_capacity(4),
            next: 0,
        })
    }

    fn dial(&mut self) -> Result<(), ClientError> {
        let at = (self.endpoint.rest_host.as_str(), self.endpoint.rest_port);
        let found: Vec<SocketAddr> = at.to_socket_addrs()?.collect();
        let address = found.iter().find(|a| a.is_ipv4()).or(found.first());
        let address = *address.ok_or(io::ErrorKind::AddrNotAvailable).map_err(io::Error::from)?;
        let tls = match &self.endpoint.tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from(self.endpoint.rest_host.clone());
                Some((config, name.map_err(io::Error::other)?))
            }
        };
        let mut transport = Transport::connect(address, tls)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(transport.socket(), Token(0), interest)?;
        self.client.attach(transport);
        Ok(())
    }

    /// Sends a request and waits for its answer.
    fn ask(&mut self, bytes: Vec<u8>, repeatable: bool) -> Result<(u16, Vec<u8>), ClientError> {
        let end = Instant::now() + PATIENCE;
        // A connection that the peer has closed meanwhile is seen before it is used.
        let _ = self.client.poll(unix_ns());
        self.next = self.next.wrapping_add(1);
        self.client.ask(self.next, bytes, repeatable);
        loop {
            if self.client.wants_connection() {
                self.dial()?;
            }
            match self.client.poll(unix_ns()) {
                Event::Answered(answer) => return Ok((answer.head.status, answer.body)),
                Event::Failed(_) => {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                }
                Event::Idle => {}
            }
            let now = Instant::now();
            if end <= now {
                // The answer may still come: the connection goes, so that it answers nothing else.
                self.client.discard();
                return Err(ClientError::Late);
            }
            let wait = (end - now).min(Duration::from_millis(5));
            match self.poll.poll(&mut self.events, Some(wait)) {
                Err(err) if err.kind() != io::ErrorKind::Interrupted => return Err(err.into()),
                _ => {}
            }
        }
    }
}

fn refused(status: u16, body: &[u8]) -> ClientError {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    ClientError::Refused { status, text }
}

fn text_of(value: Option<Value<'_>>) -> String {
    let word = value.and_then(Value::word).unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}

struct BinanceClient {
    line: Line,
    signer: binance::sign::Signer,
    symbols: Vec<String>,
}

impl BinanceClient {
    fn call(&mut self, method: &str, path: &str, params: &str) -> Result<Vec<u8>, ClientError> {
        let query = self.signer.query(&format!("{params}timestamp={}", unix_ns() / 1_000_000));
        let (host, key) = (self.line.host.clone(), self.signer.api_key());
        let bytes = binance::wire::http(method, &host, &format!("{path}?{query}"), key);
        match self.line.ask(bytes, true)? {
            (200, body) => Ok(body),
            (status, body) => Err(refused(status, &body)),
        }
    }
}

/// Whether a refusal says that there was nothing to cancel (-2011).
fn is_nothing(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: 400, text } if text.contains("-2011"))
}

impl VenueClient for BinanceClient {
    fn venue(&self) -> Venue {
        Venue::Binance
    }

    fn authenticate(&mut self) -> Result<KeyReport, ClientError> {
        let body = self.call("GET", "/sapi/v1/account/apiRestrictions", "")?;
        let unreadable = ClientError::Unreadable { what: "apiRestrictions" };
        let value = Value::parse(&body).ok_or(unreadable)?;
        let [trade, withdraw, internal, universal, ip] = value
            .pick([
                "enableSpotAndMarginTrading",
                "enableWithdrawals",
                "enableInternalTransfer",
                "permitsUniversalTransfer",
                "ipRestrict",
            ])
            .map(|value| value.and_then(Value::bool));
        // What is not told to be false counts as granted.
        Ok(KeyReport {
            trade: trade == Some(true),
            withdraw: withdraw != Some(false),
            transfer: internal != Some(false) || universal != Some(false),
            ip_restricted: ip,
        })
    }

    fn ping(&mut self) -> Result<(), ClientError> {
        let host = self.line.host.clone();
        let bytes = binance::wire::http("GET", &host, "/api/v3/ping", self.signer.api_key());
        self.line.ask(bytes, true).map(|_| ())
    }

    fn cancel_all(&mut self) -> Result<usize, ClientError> {
        let mut count = 0;
        let mut failed = None;
        for symbol in self.symbols.clone() {
            match self.call("DELETE", "/api/v3/openOrders", &format!("symbol={symbol}&")) {
                Ok(body) => count += Value::parse(&body).and_then(Value::count).unwrap_or(0),
                Err(error) if is_nothing(&error) => {}
                // The other symbols are cancelled nevertheless.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(count), Err)
    }

    fn open_orders(&mut self) -> Result<Vec<OpenView>, ClientError> {
        let body = self.call("GET", "/api/v3/openOrders", "")?;
        let list = Value::parse(&body).filter(|v| v.count().is_some());
        let list = list.ok_or(ClientError::Unreadable { what: "openOrders" })?;
        let mut orders = Vec::new();
        list.each(|order| {
            let [symbol, id, client, qty, filled] =
                order.pick(["symbol", "orderId", "clientOrderId", "origQty", "executedQty"]);
            orders.push(OpenView {
                symbol: text_of(symbol),
                venue_id: text_of(id),
                client_id: text_of(client),
                qty: text_of(qty),
                filled: text_of(filled),
            });
        });
        Ok(orders)
    }

    fn cancel(&mut self, order: &OpenView) -> Result<(), ClientError> {
        let params = format!("symbol={}&orderId={}&", order.symbol, order.venue_id);
        match self.call("DELETE", "/api/v3/order", &params) {
            Err(error) if !is_nothing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn trades_since(&mut self, unix_ns: i64) -> Result<Vec<TradeView>, ClientError> {
        let mut trades = Vec::new();
        for symbol in self.symbols.clone() {
            let params = format!("symbol={symbol}&startTime={}&limit=1000&", unix_ns / 1_000_000);
            let body = self.call("GET", "/api/v3/myTrades", &params)?;
            let list = Value::parse(&body).filter(|v| v.count().is_some());
            list.ok_or(ClientError::Unreadable { what: "myTrades" })?.each(|trade| {
                let [order, id, px, qty] = trade.pick(["orderId", "id", "price", "qty"]);
                trades.push(TradeView {
                    symbol: symbol.clone(),
                    order_id: text_of(order),
                    trade_id: text_of(id),
                    px: text_of(px),
                    qty: text_of(qty),
                });
            });
        }
        Ok(trades)
    }

    fn balances(&mut self) -> Result<Vec<BalanceView>, ClientError> {
        let body = self.call("GET", "/api/v3/account", "omitZeroBalances=true&")?;
        let list = Value::parse(&body).and_then(|v| v.get("balances"));
        let mut balances = Vec::new();
        list.ok_or(ClientError::Unreadable { what: "account" })?.each(|balance| {
            let [asset, free, held] = balance.pick(["asset", "free", "locked"]);
            let (asset, free, held) = (text_of(asset), text_of(free), text_of(held));
            balances.push(BalanceView { asset, free, held });
        });
        Ok(balances)
    }

    fn deadman(&mut self, _seconds: u32) -> Result<bool, ClientError> {
        Ok(false)
    }
}

struct CoinbaseClient {
    line: Line,
    signer: coinbase::sign::Signer,
}

impl CoinbaseClient {
    fn call(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        body: &str,
    ) -> Result<Vec<u8>, ClientError> {
        let host = self.line.host.clone();
        let uri = format!("{method} {host}{path}");
        let token = self.signer.token(Some(&uri), unix_ns() / 1_000_000_000);
        let question = if query.is_empty() { "" } else { "?" };
        let path = format!("{path}{question}{query}");
        let bytes = coinbase::wire::http(method, &host, &path, Some(&token), body);
        match self.line.ask(bytes, false)? {
            (200, body) => Ok(body),
            (status, body) => Err(refused(status, &body)),
        }
    }

    /// Reads a list to its end, page by page; `what` is its member. What cannot be read to the end is no
    /// list: one that ends too early looks like a clean account.
    fn pages(
        &mut self,
        path: &str,
        query: &str,
        what: &'static str,
        mut take: impl FnMut(Value<'_>),
    ) -> Result<(), ClientError> {
        let mut at = query.to_owned();
        for _ in 0..PAGES_MAX {
            let unreadable = ClientError::Unreadable { what };
            let body = self.call("GET", path, &at, "")?;
            let Some(value) = Value::parse(&body) else { return Err(unreadable) };
            let [list, has_next, cursor] = value.pick([what, "has_next", "cursor"]);
            let Some(list) = list.filter(|list| list.count().is_some()) else {
                return Err(unreadable);
            };
            list.each(&mut take);
            let cursor = percent(&text_of(cursor));
            if !has_next.and_then(Value::bool).unwrap_or(!cursor.is_empty()) {
                return Ok(());
            }
            let next = format!("{query}&cursor={cursor}");
            if cursor.is_empty() || next == at {
                return Err(unreadable);
            }
            at = next;
        }
        Err(ClientError::Unreadable { what })
    }

    fn cancel_ids(&mut self, ids: &[String]) -> Result<usize, ClientError> {
        let list = ids.join("\",\"");
        let body = format!("{{\"order_ids\":[\"{list}\"]}}");
        let body = self.call("POST", coinbase::wire::CANCEL, "", &body)?;
        let results = Value::parse(&body).and_then(|v| v.get("results"));
        let mut count = 0;
        results.ok_or(ClientError::Unreadable { what: "batch_cancel" })?.each(|result| {
            count += usize::from(result.get("success").and_then(Value::bool) == Some(true));
        });
        Ok(count)
    }
}

impl VenueClient for CoinbaseClient {
    fn venue(&self) -> Venue {
        Venue::Coinbase
    }

    fn authenticate(&mut self) -> Result<KeyReport, ClientError> {
        let body = self.call("GET", "/api/v3/brokerage/key_permissions", "", "")?;
        let unreadable = ClientError::Unreadable { what: "key_permissions" };
        let value = Value::parse(&body).ok_or(unreadable)?;
        let [trade, transfer] =
            value.pick(["can_trade", "can_transfer"]).map(|value| value.and_then(Value::bool));
        // The transfer scope is the one that withdraws.
        let moves = transfer != Some(false);
        Ok(KeyReport {
            trade: trade == Some(true),
            withdraw: moves,
            transfer: moves,
            ip_restricted: None,
        })
    }

    fn ping(&mut self) -> Result<(), ClientError> {
        let host = self.line.host.clone();
        let bytes = coinbase::wire::http("GET", &host, coinbase::wire::TIME, None, "");
        self.line.ask(bytes, true).map(|_| ())
    }

    fn cancel_all(&mut self) -> Result<usize, ClientError> {
        let ids: Vec<String> =
            self.open_orders()?.into_iter().map(|order| order.venue_id).collect();
        let mut count = 0;
        for batch in ids.chunks(BATCH) {
            count += self.cancel_ids(batch)?;
        }
        Ok(count)
    }

    fn open_orders(&mut self) -> Result<Vec<OpenView>, ClientError> {
        let mut orders = Vec::new();
        // OPEN gives neither what is PENDING nor QUEUED.
        for status in ["OPEN", "PENDING", "QUEUED"] {
            let path = format!("{}/batch", coinbase::wire::HISTORICAL);
            let query = format!("order_status={status}&limit=250");
            self.pages(&path, &query, "orders", |order| {
                let [product, id, client, filled, terms] = order.pick([
                    "product_id",
                    "order_id",
                    "client_order_id",
                    "filled_size",
                    "order_configuration",
                ]);
                let mut qty = String::new();
                if let Some(terms) = terms {
                    terms.each_member(|_, terms| qty = text_of(terms.get("base_size")));
                }
                orders.push(OpenView {
                    symbol: text_of(product),
                    venue_id: text_of(id),
                    client_id: text_of(client),
                    qty,
                    filled: text_of(filled),
                });
            })?;
        }
        Ok(orders)
    }

    fn cancel(&mut self, order: &OpenView) -> Result<(), ClientError> {
        self.cancel_ids(std::slice::from_ref(&order.venue_id)).map(|_| ())
    }

    fn trades_since(&mut self, unix_ns: i64) -> Result<Vec<TradeView>, ClientError> {
        let mut since = Text::default();
        since.time(unix_ns);
        let since = String::from_utf8_lossy(since.bytes().unwrap_or_default()).into_owned();
        let path = format!("{}/fills", coinbase::wire::HISTORICAL);
        let query = format!("start_sequence_timestamp={since}&limit=100");
        let body = self.call("GET", &path, &query, "")?;
        let list = Value::parse(&body).and_then(|v| v.get("fills"));
        let mut trades = Vec::new();
        list.ok_or(ClientError::Unreadable { what: "fills" })?.each(|fill| {
            let [symbol, order, id, px, qty] =
                fill.pick(["product_id", "order_id", "entry_id", "price", "size"]);
            trades.push(TradeView {
                symbol: text_of(symbol),
                order_id: text_of(order),
                trade_id: text_of(id),
                px: text_of(px),
                qty: text_of(qty),
            });
        });
        Ok(trades)
    }

    fn balances(&mut self) -> Result<Vec<BalanceView>, ClientError> {
        let mut balances = Vec::new();
        self.pages(coinbase::wire::ACCOUNTS, "limit=250", "accounts", |account| {
            let [asset, free, held] = account.pick(["currency", "available_balance", "hold"]);
            balances.push(BalanceView {
                asset: text_of(asset),
                free: text_of(free.and_then(|v| v.get("value"))),
                held: text_of(held.and_then(|v| v.get("value"))),
            });
        })?;
        Ok(balances)
    }

    fn deadman(&mut self, _seconds: u32) -> Result<bool, ClientError> {
        Ok(false)
    }
}

struct KrakenClient {
    line: Line,
    signer: kraken::sign::Signer,
    nonces: kraken::sign::Nonces,
}

impl KrakenClient {
    /// Calls a private method; `read` sees its result.
    fn call<T>(
        &mut self,
        method: &'static str,
        params: &str,
        read: impl FnOnce(Value<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        let nonce = self.nonces.take()?.to_string();
        let path = format!("/0/private/{method}");
        let separator = if params.is_empty() { "" } else { "&" };
        let body = format!("nonce={nonce}{separator}{params}");
        let signature = self.signer.sign(&path, &nonce, &body);
        let host = self.line.host.clone();
        let bytes = kraken::wire::post(&host, &path, &body, self.signer.api_key(), &signature);
        let (status, body) = self.line.ask(bytes, false)?;
        let unreadable = ClientError::Unreadable { what: method };
        let Some(value) = Value::parse(&body) else {
            return Err(if status == 200 { unreadable } else { refused(status, &body) });
        };
        let [errors, result] = value.pick(["error", "result"]);
        let mut error = None;
        if let Some(errors) = errors {
            errors.each(|text| {
                let text = text_of(Some(text));
                if text.starts_with('E') {
                    error.get_or_insert(text);
                }
            });
        }
        match (error, result) {
            (Some(text), _) => Err(ClientError::Refused { status, text }),
            (None, Some(result)) => read(result).ok_or(unreadable),
            (None, None) => Err(unreadable),
        }
    }
}

impl VenueClient for KrakenClient {
    fn venue(&self) -> Venue {
        Venue::Kraken
    }

    fn authenticate(&mut self) -> Result<KeyReport, ClientError> {
        self.call("GetApiKeyInfo", "", |result| {
            let [permissions, addresses] = result.pick(["permissions", "ip_allowlist"]);
            let mut report = KeyReport {
                trade: false,
                withdraw: false,
                transfer: false,
                ip_restricted: addresses.and_then(Value::count).map(|count| 0 < count),
            };
            // Without the list nothing is known: the caller gets an error, not a harmless report.
            permissions.filter(|list| list.count().is_some())?.each(|permission| {
                let name = text_of(Some(permission));
                report.trade |= name == "modify-trades";
                report.withdraw |= name.contains("withdraw");
                report.transfer |= name.contains("transfer");
            });
            Some(report)
        })
    }

    fn ping(&mut self) -> Result<(), ClientError> {
        let host = &self.line.host;
        let bytes = format!(
            "GET /0/public/Time HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tandem/{}\r\nConnection: keep-alive\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        );
        self.line.ask(bytes.into_bytes(), true).map(|_| ())
    }

    fn cancel_all(&mut self) -> Result<usize, ClientError> {
        self.call("CancelAll", "", |result| {
            result.get("count")?.u64().and_then(|count| usize::try_from(count).ok())
        })
    }

    fn open_orders(&mut self) -> Result<Vec<OpenView>, ClientError> {
        self.call("OpenOrders", "", |result| {
            let mut orders = Vec::new();
            let open = result.get("open").filter(|open| open.kind() == Some(Type::Object));
            open?.each_member(|id, order| {
                let [descr, client, qty, filled] =
                    order.pick(["descr", "cl_ord_id", "vol", "vol_exec"]);
                orders.push(OpenView {
                    symbol: text_of(descr.and_then(|descr| descr.get("pair"))),
                    venue_id: String::from_utf8_lossy(id).into_owned(),
                    client_id: text_of(client),
                    qty: text_of(qty),
                    filled: text_of(filled),
                });
            });
            Some(orders)
        })
    }

    fn cancel(&mut self, order: &OpenView) -> Result<(), ClientError> {
        match self.call("CancelOrder", &format!("txid={}", order.venue_id), |_| Some(())) {
            Err(ClientError::Refused { text, .. }) if text.starts_with("EOrder:Unknown order") => {
                Ok(())
            }
            done => done,
        }
    }

    fn trades_since(&mut self, unix_ns: i64) -> Result<Vec<TradeView>, ClientError> {
        self.call("TradesHistory", &format!("start={}", unix_ns / 1_000_000_000), |result| {
            let mut trades = Vec::new();
            result.get("trades")?.each_member(|id, trade| {
                let [pair, order, px, qty] = trade.pick(["pair", "ordertxid", "price", "vol"]);
                trades.push(TradeView {
                    symbol: text_of(pair),
                    order_id: text_of(order),
                    trade_id: String::from_utf8_lossy(id).into_owned(),
                    px: text_of(px),
                    qty: text_of(qty),
                });
            });
            Some(trades)
        })
    }

    fn balances(&mut self) -> Result<Vec<BalanceView>, ClientError> {
        self.call("BalanceEx", "", |result| {
            let mut balances = Vec::new();
            result.each_member(|asset, balance| {
                let [free, held] = balance.pick(["balance", "hold_trade"]);
                balances.push(BalanceView {
                    asset: String::from_utf8_lossy(asset).into_owned(),
                    free: text_of(free),
                    held: text_of(held),
                });
            });
            Some(balances)
        })
    }

    fn deadman(&mut self, seconds: u32) -> Result<bool, ClientError> {
        self.call("CancelAllOrdersAfter", &format!("timeout={seconds}"), |_| Some(true))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A venue that gives these answers, one after the other; returns its client, and what it was asked.
    fn venue(
        credentials: &Credentials,
        answers: &'static [&'static str],
    ) -> (Box<dyn VenueClient>, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = Endpoint {
            ws_host: String::new(),
            ws_port: 0,
            ws_prefix: String::new(),
            rest_host: "127.0.0.1".to_owned(),
            rest_port: listener.local_addr().expect("an address").port(),
            tls: None,
        };
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
            let (mut asked, mut bytes) = (Vec::new(), [0; 4096]);
            for answer in answers {
                // A request of these is one segment; none in time is one too few, which the test counts.
                let Ok(count @ 1..) = socket.read(&mut bytes) else { break };
                let head = String::from_utf8_lossy(&bytes[..count]).into_owned();
                asked.push(head.split(' ').nth(1).unwrap_or_default().to_owned());
                let length = answer.len();
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}");
                socket.write_all(text.as_bytes()).expect("answered");
            }
            asked
        });
        (connect(credentials, &endpoint, &[]).expect("connects with the first request"), server)
    }

    fn coinbase(
        answers: &'static [&'static str],
    ) -> (Box<dyn VenueClient>, thread::JoinHandle<Vec<String>>) {
        let credentials = Credentials::Coinbase {
            api_key: "organizations/o/apiKeys/k".into(),
            private_key_pem: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(),
        };
        venue(&credentials, answers)
    }

    const NONE: &str = r#"{"orders":[],"has_next":false,"cursor":""}"#;

    /// Row OP-03. A list that does not say all is no clean account.
    #[test]
    fn a_list_without_its_end_is_no_list() {
        let cut: [&'static [&'static str]; 4] = [
            // There is more, and no way to it.
            &[r#"{"orders":[],"has_next":true,"cursor":""}"#],
            &[r#"{"orders":[],"has_next":true}"#],
            // The same page for ever.
            &[
                r#"{"orders":[],"has_next":true,"cursor":"a"}"#,
                r#"{"orders":[],"has_next":true,"cursor":"a"}"#,
            ],
            // No list at all.
            &[r#"{"orders":null,"has_next":false,"cursor":""}"#, NONE, NONE],
        ];
        for answers in cut {
            let (mut client, server) = coinbase(answers);
            let found = client.open_orders();
            drop(client);
            assert!(matches!(found, Err(ClientError::Unreadable { .. })), "{answers:?}: {found:?}");
            assert!(!server.join().expect("the venue ends").is_empty());
        }
    }

    #[test]
    fn a_list_is_read_to_its_end_whatever_the_cursor_is_made_of() {
        let (mut client, server) = coinbase(&[
            r#"{"orders":[{"order_id":"1"}],"has_next":true,"cursor":"a+b&order_status=X"}"#,
            r#"{"orders":[{"order_id":"2"}],"has_next":false,"cursor":"ignored"}"#,
            r#"{"orders":[{"order_id":"3"}],"cursor":"more"}"#,
            r#"{"orders":[{"order_id":"4"}]}"#,
            NONE,
        ]);
        let found = client.open_orders().expect("readable");
        drop(client);
        let ids: Vec<_> = found.iter().map(|order| order.venue_id.as_str()).collect();
        assert_eq!(ids, ["1", "2", "3", "4"]);
        let asked = server.join().expect("the venue ends");
        assert!(asked[1].ends_with("&cursor=a%2Bb%26order_status%3DX"), "{asked:?}");
    }
}
