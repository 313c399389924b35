//! `alerts`: whether anybody would hear.

use clap::Subcommand;
use serde::Serialize;
use tandem_drain::alerts::path::{self, Tested};

use super::{ConfigArg, Done, Failure, Outcome, print, print_json, roles};

/// What to do with the channels of alerts.
#[derive(Subcommand, Debug)]
pub enum AlertsCommand {
    /// Sends one of each severity to every channel, and a heartbeat.
    #[command(after_help = "Examples:
  tandem alerts test
  tandem alerts test --json

Exit code 3 where a channel did not take everything.")]
    Test {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    messages: Vec<MessageText>,
}

#[derive(Serialize)]
struct MessageText {
    channel: String,
    service: &'static str,
    severity: Option<&'static str>,
    delivered: bool,
    why_not: Option<String>,
    ms: u128,
}

impl MessageText {
    fn new(tested: Tested) -> MessageText {
        MessageText {
            channel: tested.channel,
            service: tested.kind,
            severity: tested.severity.map(|severity| severity.name()),
            delivered: tested.failed.is_none(),
            why_not: tested.failed,
            ms: tested.took.as_millis(),
        }
    }
}

/// `tandem alerts …`.
pub fn run(command: &AlertsCommand) -> Done {
    let AlertsCommand::Test { config, json } = command;
    let config = config.load()?;
    tandem_shm::forbid_dumps().map_err(Failure::failed)?;
    let settings = roles::alert_settings(&config)?;
    let tested = path::test(&settings.path).map_err(Failure::usage)?;
    let messages: Vec<MessageText> = tested.into_iter().map(MessageText::new).collect();
    let report = Report { ok: messages.iter().all(|message| message.delivered), messages };
    if *json {
        print_json(&report);
    } else {
        for message in &report.messages {
            print(format_args!(
                "{:<16} {:<10} {:<9} {} in {} ms",
                message.channel,
                message.service,
                message.severity.unwrap_or("heartbeat"),
                message.why_not.as_deref().unwrap_or("delivered"),
                message.ms,
            ));
        }
    }
    match report.ok {
        true => Ok(Outcome::Ok),
        false => Err(Failure::unreachable("not every channel took every message; see above")),
    }
}
