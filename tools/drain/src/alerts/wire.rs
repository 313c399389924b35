//! How each service wants a message, and what its answers mean.
//!
//! Invariant: pure functions. Every text that goes out is escaped as the service's own documentation says
//! and cut to its limits at a whole alert or a whole character; at least one alert is in every message.
//! What a service answers is never repeated: only the words that its documentation lists are.
//!
//! Read on 2026-11-29:
//! - Slack, incoming webhooks: `text` and `blocks`; `&`, `<`, `>` are escaped as entities; a section's text
//!   holds 3,000 characters and a message 50 blocks; about one message a second, HTTP 429 with
//!   `Retry-After` above; errors are words with 400, 403, 404, 410 and 500 (change log of 2016-05-17).
//! - Telegram, Bot API `sendMessage`: `text` of 1 to 4,096 characters after entities parsing, HTML mode
//!   with `&lt;`, `&gt;`, `&amp;`; `link_preview_options`; HTTP 429 with `parameters.retry_after` seconds;
//!   one message a second in a chat, twenty a minute in a group (Bots FAQ).

use std::fmt::Write;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tandem_gateway::keys::Secret;

use super::http::{Answer, wait};
use super::{Notice, Severity, State};

/// Slack: characters of a section's text.
const SLACK_SECTION_MAX: usize = 3_000;
/// Slack: blocks of a message.
const SLACK_BLOCKS_MAX: usize = 50;
/// Telegram: characters of a message, in UTF-16 units as it counts them.
const TELEGRAM_MAX: usize = 4_096;
/// Alerts of a message to a webhook.
const WEBHOOK_MAX: usize = 100;
/// Characters of what an alert says exactly; the journal has the rest.
const DETAIL_MAX: usize = 600;

/// A service and what is needed to post there.
#[derive(Clone, Debug)]
pub enum Service {
    /// Slack's incoming webhook.
    Slack {
        /// Its address, which is its key.
        url: Secret,
    },
    /// A Telegram bot.
    Telegram {
        /// Where the Bot API is.
        api_url: String,
        /// The bot's token.
        token: Secret,
        /// The chat.
        chat_id: String,
    },
    /// A webhook of our own form.
    Webhook {
        /// Its address.
        url: Secret,
        /// Signs the body.
        hmac_key: Option<Secret>,
    },
    /// Who calls for help when he hears nothing: gets the watchdog and no alerts.
    Heartbeat {
        /// Its address.
        url: Secret,
    },
}

/// A request that is ready to go.
pub struct Request {
    /// Where.
    pub url: Secret,
    /// Headers besides the usual.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Delivered,
    /// Not now; perhaps after this time.
    Later(Option<Duration>, String),
    /// It will never be taken: the key, the channel, the form.
    Refused(String),
}

/// Who we are, in every message.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Name of the system.
    pub system: String,
    /// What stands before a runbook's page.
    pub runbook_url: String,
}

impl Sender {
    fn runbook(&self, page: &str) -> String {
        format!("{}/{page}.md", self.runbook_url.trim_end_matches('/'))
    }
}

/// UTC to the second, as people read it.
pub(crate) fn utc(ns: i64) -> String {
    let seconds = ns.div_euclid(1_000_000_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The Gregorian date of a day counted from 1970-01-01 (Howard Hinnant's public-domain algorithm).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let of_year_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_year_era + of_year_era / 4 - of_year_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = of_year_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Cuts a text at a whole character.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// Escapes what Slack and Telegram's HTML mode give a meaning, and takes out control characters.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// An alert as people read it; `bold` are the marks around its first line.
fn told(sender: &Sender, notice: &Notice, bold: (&str, &str)) -> String {
    let (open, close) = bold;
    let state = match notice.state {
        State::Firing | State::Event => "",
        State::Again => " (again)",
        State::Resolved => " RESOLVED",
    };
    let severity = notice.severity.name();
    let mut text =
        format!("{open}[{severity}]{state} {}: {}{close}\n", escape(&sender.system), notice.title);
    if !notice.detail.is_empty() {
        let _ = writeln!(text, "{}", escape(&cut(&notice.detail, DETAIL_MAX)));
    }
    let _ = write!(text, "{} · since {}", escape(&notice.fingerprint), utc(notice.first_ns));
    if 1 < notice.count {
        let _ = write!(text, " · {} times, last {}", notice.count, utc(notice.last_ns));
    }
    let _ = write!(text, "\n{}", escape(&sender.runbook(notice.runbook)));
    text
}

fn utf16(text: &str) -> usize {
    text.encode_utf16().count()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Service {
    /// Returns its kind as configured.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Service::Slack { .. } => "slack",
            Service::Telegram { .. } => "telegram",
            Service::Webhook { .. } => "webhook",
            Service::Heartbeat { .. } => "heartbeat",
        }
    }

    /// Returns a message of the first of these alerts, and how many are in it.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn message(&self, sender: &Sender, notices: &[Notice], now_ns: i64) -> (Request, usize) {
        assert!(!notices.is_empty(), "a message tells something");
        match self {
            Service::Slack { url } => {
                let (value, count) = slack(sender, notices);
                (request(url, &value), count)
            }
            Service::Telegram { chat_id, .. } => {
                let (value, count) = telegram(sender, notices, chat_id);
                (request(&self.method("sendMessage"), &value), count)
            }
            Service::Webhook { .. } | Service::Heartbeat { .. } => {
                let count = notices.len().min(WEBHOOK_MAX);
                let alerts: Vec<Value> =
                    notices[..count].iter().map(|notice| alert(sender, notice)).collect();
                let value = json!({
                    "version": 1, "type": "alerts", "system": sender.system, "sent_ns": now_ns,
                    "alerts": alerts,
                });
                (self.signed(&value, now_ns), count)
            }
        }
    }

    /// Returns a request that proves the channel without telling anybody anything.
    ///
    /// Slack has no such request of its own: a message without text is refused as such (400), while a
    /// webhook, team or channel that is gone is refused with 403, 404 or 410.
    #[must_use]
    pub fn probe(&self, sender: &Sender, now_ns: i64) -> Request {
        match self {
            Service::Slack { url } => request(url, &json!({ "text": "" })),
            Service::Telegram { chat_id, .. } => {
                request(&self.method("getChat"), &json!({ "chat_id": chat_id }))
            }
            Service::Webhook { .. } | Service::Heartbeat { .. } => {
                let value = json!({
                    "version": 1, "type": "watchdog", "system": sender.system, "sent_ns": now_ns,
                });
                self.signed(&value, now_ns)
            }
        }
    }

    fn method(&self, name: &str) -> Secret {
        let Service::Telegram { api_url, token, .. } = self else {
            unreachable!("only Telegram has methods");
        };
        let mut url = format!("{}/bot", api_url.trim_end_matches('/')).into_bytes();
        url.extend_from_slice(token.reveal());
        url.extend_from_slice(format!("/{name}").as_bytes());
        Secret::new(url)
    }

    /// A body of our own form, signed where there is a key: HMAC-SHA256 over `timestamp.body`.
    fn signed(&self, value: &Value, now_ns: i64) -> Request {
        let (url, key) = match self {
            Service::Webhook { url, hmac_key } => (url, hmac_key.as_ref()),
            Service::Heartbeat { url } | Service::Slack { url } => (url, None),
            Service::Telegram { .. } => unreachable!("Telegram has a form of its own"),
        };
        let mut request = request(url, value);
        if let Some(key) = key {
            let stamp = (now_ns / 1_000_000_000).to_string();
            let mut signed = stamp.clone().into_bytes();
            signed.push(b'.');
            signed.extend_from_slice(&request.body);
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.reveal());
            let tag = hmac::sign(&key, &signed);
            request.headers.push(("X-Tandem-Timestamp", stamp));
            request.headers.push(("X-Tandem-Signature", format!("sha256={}", hex(tag.as_ref()))));
        }
        request
    }

    /// Returns what the answer to a message means.
    #[must_use]
    pub fn judge(&self, answer: &Answer) -> Verdict {
        let later = |why: String| Verdict::Later(answer.retry_after, why);
        match (self, answer.status) {
            (Service::Telegram { .. }, _) => judge_telegram(answer),
            (_, 200..=299) => Verdict::Delivered,
            (_, 429) => later("HTTP 429: too many messages".to_owned()),
            (_, 408 | 425 | 500..) => later(format!("HTTP {}", answer.status)),
            (Service::Slack { .. }, status) => Verdict::Refused(known(status, &answer.body)),
            (_, status) => Verdict::Refused(format!("HTTP {status}")),
        }
    }

    /// Returns what the answer to a probe means.
    #[must_use]
    pub fn judge_probe(&self, answer: &Answer) -> Verdict {
        match (self, answer.status) {
            (Service::Slack { .. }, 400) => Verdict::Delivered,
            _ => self.judge(answer),
        }
    }
}

fn request(url: &Secret, value: &Value) -> Request {
    Request { url: url.clone(), headers: Vec::new(), body: value.to_string().into_bytes() }
}

fn alert(sender: &Sender, notice: &Notice) -> Value {
    json!({
        "state": notice.state.name(),
        "severity": notice.severity.name(),
        "fingerprint": notice.fingerprint,
        "title": notice.title,
        "detail": cut(&notice.detail, DETAIL_MAX),
        "runbook": sender.runbook(notice.runbook),
        "first_ns": notice.first_ns,
        "last_ns": notice.last_ns,
        "count": notice.count,
    })
}

fn slack(sender: &Sender, notices: &[Notice]) -> (Value, usize) {
    let count = notices.len().min(SLACK_BLOCKS_MAX);
    let mut blocks = Vec::with_capacity(count);
    for notice in &notices[..count] {
        let mut text = told(sender, notice, ("*", "*"));
        if SLACK_SECTION_MAX < text.chars().count() {
            // Escapes made it longer than it may be: without what it says exactly it is short.
            let short = Notice { detail: String::new(), ..notice.clone() };
            text = cut(&told(sender, &short, ("*", "*")), SLACK_SECTION_MAX);
        }
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } }));
    }
    // What notifications show.
    let first = &notices[0];
    let more = if 1 < count { format!(" and {} more", count - 1) } else { String::new() };
    let text = format!(
        "[{}] {}: {} {}{more}",
        first.severity.name(),
        escape(&sender.system),
        first.title,
        if first.state == State::Resolved { "(resolved)" } else { "" },
    );
    (json!({ "text": text.trim_end(), "blocks": blocks, "unfurl_links": false }), count)
}

fn telegram(sender: &Sender, notices: &[Notice], chat_id: &str) -> (Value, usize) {
    let bold = ("<b>", "</b>");
    let mut text = told(sender, &notices[0], bold);
    if TELEGRAM_MAX < utf16(&text) {
        let short = Notice { detail: String::new(), ..notices[0].clone() };
        text = told(sender, &short, bold);
    }
    let mut count = 1;
    for notice in &notices[1..] {
        let next = told(sender, notice, bold);
        // Counted with its marks and entities: what Telegram counts is less.
        if TELEGRAM_MAX < utf16(&text) + 2 + utf16(&next) {
            break;
        }
        text.push_str("\n\n");
        text.push_str(&next);
        count += 1;
    }
    let is_quiet = notices[..count].iter().all(|notice| notice.severity == Severity::Info);
    let value = json!({
        "chat_id": chat_id,
        "text": text,
        "parse_mode": "HTML",
        "link_preview_options": { "is_disabled": true },
        "disable_notification": is_quiet,
    });
    (value, count)
}

fn judge_telegram(answer: &Answer) -> Verdict {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        200 if value["ok"] == true => Verdict::Delivered,
        429 => {
            let told = value["parameters"]["retry_after"].as_u64().map(wait);
            Verdict::Later(told.or(answer.retry_after), "HTTP 429: too many messages".to_owned())
        }
        408 | 500.. => Verdict::Later(answer.retry_after, format!("HTTP {}", answer.status)),
        status => Verdict::Refused(known(status, &answer.body)),
    }
}

/// Words that the services document; what else they say may be anything, our own address too.
const KNOWN: [&str; 17] = [
    "invalid_payload",
    "user_not_found",
    "action_prohibited",
    "channel_not_found",
    "channel_is_archived",
    "no_service",
    "no_active_hooks",
    "no_team",
    "team_disabled",
    "invalid_token",
    "no_text",
    "Unauthorized",
    "chat not found",
    "bot was blocked by the user",
    "bot was kicked",
    "bot is not a member",
    "can't parse entities",
];

fn known(status: u16, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let word = KNOWN.iter().find(|word| body.contains(**word));
    word.map_or_else(|| format!("HTTP {status}"), |word| format!("HTTP {status}: {word}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Rule;
    use super::*;

    fn sender() -> Sender {
        Sender { system: "desk <1> & co".to_owned(), runbook_url: "https://x/runbooks/".to_owned() }
    }

    fn notice(detail: &str) -> Notice {
        Notice {
            state: State::Firing,
            severity: Severity::Page,
            fingerprint: "unknown-order/kraken".to_owned(),
            title: Rule::UNKNOWN.title,
            detail: detail.to_owned(),
            runbook: Rule::UNKNOWN.runbook,
            first_ns: 1_700_000_000_000_000_000,
            last_ns: 1_700_000_012_000_000_000,
            count: 3,
        }
    }

    fn services() -> [Service; 3] {
        [
            Service::Slack { url: Secret::from("https://s/") },
            Service::Telegram {
                api_url: "https://t".to_owned(),
                token: Secret::from("1:x"),
                chat_id: "-100".to_owned(),
            },
            Service::Webhook { url: Secret::from("https://w/"), hmac_key: None },
        ]
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, limits: None, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_slack_message_is_what_slack_documents() {
        let (request, count) = services()[0].message(&sender(), &[notice("a < b & c > d")], 0);
        let value: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(count, 1);
        assert_eq!(value["text"], "[PAGE] desk &lt;1&gt; &amp; co: an order's outcome is unknown");
        assert_eq!(
            value["blocks"][0],
            json!({"type": "section", "text": {"type": "mrkdwn", "text":
                "*[PAGE] desk &lt;1&gt; &amp; co: an order's outcome is unknown*\n\
                 a &lt; b &amp; c &gt; d\n\
                 unknown-order/kraken · since 2023-11-14 22:13:20 UTC · 3 times, last 2023-11-14 22:13:32 \
                 UTC\nhttps://x/runbooks/unknown-order.md"}})
        );
    }

    #[test]
    fn a_telegram_message_is_what_telegram_documents() {
        let (request, _) = services()[1].message(&sender(), &[notice("<i>&")], 0);
        assert_eq!(request.url.reveal(), b"https://t/bot1:x/sendMessage");
        let value: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!((&value["chat_id"], &value["parse_mode"]), (&json!("-100"), &json!("HTML")));
        assert_eq!(value["link_preview_options"]["is_disabled"], true);
        assert_eq!(value["disable_notification"], false);
        let text = value["text"].as_str().expect("text");
        assert!(text.starts_with("<b>[PAGE] desk &lt;1&gt; &amp; co: "), "{text}");
        assert!(text.contains("\n&lt;i&gt;&amp;\n"), "{text}");
    }

    /// The signature is checked with another implementation, from the definition of HMAC (RFC 2104).
    #[test]
    fn a_signed_webhook_can_be_checked() {
        use sha2::{Digest, Sha256};
        let key = b"a key of a webhook";
        let service = Service::Webhook {
            url: Secret::from("https://w/"),
            hmac_key: Some(Secret::new(key.to_vec())),
        };
        let (request, _) = service.message(&sender(), &[notice("x")], 1_700_000_000_000_000_000);
        let value = |name: &str| {
            let header = request.headers.iter().find(|header| header.0 == name);
            header.expect(name).1.clone()
        };
        assert_eq!(value("X-Tandem-Timestamp"), "1700000000");
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
            block
        };
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(b"1700000000.")
            .chain_update(&request.body)
            .finalize();
        let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        assert_eq!(value("X-Tandem-Signature"), format!("sha256={}", hex(&outer)));
    }

    #[test]
    fn answers_mean_what_the_services_document() {
        let [slack, telegram, webhook] = services();
        let refused = |text: &str| Verdict::Refused(text.to_owned());
        assert_eq!(slack.judge(&answer(200, "ok")), Verdict::Delivered);
        assert_eq!(slack.judge(&answer(404, "no_service")), refused("HTTP 404: no_service"));
        assert_eq!(
            slack.judge(&answer(410, "channel_is_archived")),
            refused("HTTP 410: channel_is_archived")
        );
        assert_eq!(slack.judge(&answer(302, "https://s/secret")), refused("HTTP 302"));
        assert!(matches!(slack.judge(&answer(500, "rollup_error")), Verdict::Later(None, _)));
        let wait = Answer { retry_after: Some(Duration::from_secs(7)), ..answer(429, "") };
        assert!(matches!(slack.judge(&wait), Verdict::Later(Some(d), _) if d.as_secs() == 7));
        assert_eq!(slack.judge_probe(&answer(400, "no_text")), Verdict::Delivered);
        assert_eq!(slack.judge_probe(&answer(404, "no_service")), refused("HTTP 404: no_service"));

        assert_eq!(telegram.judge(&answer(200, r#"{"ok":true,"result":{}}"#)), Verdict::Delivered);
        assert_eq!(telegram.judge(&answer(200, "<html>")), refused("HTTP 200"));
        let body = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 9","parameters":{"retry_after":9}}"#;
        assert!(
            matches!(telegram.judge(&answer(429, body)), Verdict::Later(Some(d), _) if d.as_secs() == 9)
        );
        let body = r#"{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}"#;
        assert_eq!(telegram.judge(&answer(400, body)), refused("HTTP 400: chat not found"));
        assert_eq!(telegram.judge(&answer(401, "1:x")), refused("HTTP 401"));

        assert_eq!(webhook.judge(&answer(204, "")), Verdict::Delivered);
        assert!(matches!(webhook.judge(&answer(503, "")), Verdict::Later(..)));
        assert_eq!(webhook.judge(&answer(401, "")), refused("HTTP 401"));
    }

    proptest! {
        /// Whatever an alert says and however many there are: every message keeps the service's limits, is
        /// well-formed, and all of them together hold every alert once.
        #[test]
        fn messages_keep_the_limits(details in prop::collection::vec("(?s).{0,900}", 1..80)) {
            let notices: Vec<Notice> = details.iter().map(|text| notice(text)).collect();
            for service in services() {
                let mut told = 0;
                while told < notices.len() {
                    let (request, count) = service.message(&sender(), &notices[told..], 0);
                    prop_assert!(0 < count);
                    told += count;
                    let value: Value = serde_json::from_slice(&request.body).expect("JSON");
                    match service {
                        Service::Slack { .. } => {
                            let blocks = value["blocks"].as_array().expect("blocks");
                            prop_assert!(blocks.len() == count && count <= SLACK_BLOCKS_MAX);
                            for block in blocks {
                                let text = block["text"]["text"].as_str().expect("text");
                                prop_assert!(text.chars().count() <= SLACK_SECTION_MAX);
                                prop_assert!(!text.contains(['<', '>']));
                            }
                        }
                        Service::Telegram { .. } => {
                            let text = value["text"].as_str().expect("text");
                            prop_assert!(utf16(text) <= TELEGRAM_MAX);
                            prop_assert_eq!(text.matches('<').count(), 2 * count, "only our own marks");
                        }
                        _ => prop_assert_eq!(value["alerts"].as_array().map(Vec::len), Some(count)),
                    }
                }
                prop_assert_eq!(told, notices.len());
            }
        }
    }
}
