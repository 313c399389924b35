//! `keys check`: what each venue says that our keys may do.

use clap::Subcommand;
use serde::Serialize;
use tandem_core::record::Venue;
use tandem_gateway::client;
use tandem_gateway::keys::KeyReport;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json, roles};
use crate::config::Config;

/// What is done with keys.
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// Asks every venue what the gateways' and the warden's keys may do.
    #[command(after_help = "Example:
  tandem keys check --config deploy/tandem.toml")]
    Check {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct KeyText {
    venue: String,
    process: String,
    trade: bool,
    withdraw: bool,
    transfer: bool,
    ip_restricted: Option<bool>,
    refused: Option<String>,
}

/// Returns why a key is not taken, if it is not.
pub fn judge(config: &Config, venue: Venue, report: &KeyReport) -> Result<(), String> {
    let name = venue.name();
    if report.withdraw {
        return Err(format!(
            "{name}: this key may withdraw: whoever steals it steals the money; make one that may only read \
             and trade"
        ));
    }
    if report.transfer {
        return Err(format!(
            "{name}: this key may transfer between accounts; make one that may only read and trade"
        ));
    }
    if !report.trade {
        return Err(format!("{name}: this key may not trade; give it the right to place orders"));
    }
    let waived =
        config.secrets.as_ref().is_some_and(|secrets| secrets.no_ip_restriction.contains_key(name));
    if report.ip_restricted == Some(false) && !waived {
        return Err(format!(
            "{name}: this key works from every address; restrict it to this host's at the venue, or say in \
             secrets.no_ip_restriction.{name} why not"
        ));
    }
    Ok(())
}

/// `tandem keys …`.
pub fn run(command: &KeysCommand) -> Done {
    let KeysCommand::Check { config, json } = command;
    let config = config.load()?;
    roles::prepare(&config)?;
    let mut all = Vec::new();
    for (process, of) in [
        ("gateway", (|places| &places.gateway) as fn(&crate::config::Secrets) -> &String),
        ("warden", |places| &places.warden),
    ] {
        let file = roles::key_file(&config, of)?;
        for (venue, _) in config.venues() {
            let credentials = roles::credentials(&config, &file, venue, "check")?;
            let endpoint = roles::order_endpoint(&config, venue)?;
            let report = client::check(&credentials, &endpoint)
                .map_err(|error| Failure::unreachable(format!("{}: {error}", venue.name())))?;
            all.push(KeyText {
                venue: venue.name().to_owned(),
                process: process.to_owned(),
                trade: report.trade,
                withdraw: report.withdraw,
                transfer: report.transfer,
                ip_restricted: report.ip_restricted,
                refused: judge(&config, venue, &report).err(),
            });
        }
    }
    let good = all.iter().all(|key| key.refused.is_none());
    if *json {
        print_json(&all);
    } else {
        for key in &all {
            let restricted = match key.ip_restricted {
                Some(true) => "restricted to addresses",
                Some(false) => "from any address",
                None => "addresses unknown",
            };
            print(format_args!(
                "{:<9} {:<8} trade {} · withdraw {} · transfer {} · {restricted}{}",
                key.venue,
                key.process,
                key.trade,
                key.withdraw,
                key.transfer,
                key.refused.as_ref().map_or(String::new(), |why| format!("\n  REFUSED {why}")),
            ));
        }
    }
    if good { Ok(Outcome::Ok) } else { Err(Failure::refused("at least one key is refused")) }
}
