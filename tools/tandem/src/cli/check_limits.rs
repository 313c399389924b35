//! `config check --against-venues`: the limits beside what the accounts hold and the markets trade.

use std::collections::BTreeMap;
use std::thread;

use num_rational::BigRational;
use tandem_core::record::Venue;
use tandem_gateway::client;
use tandem_gateway::kraken::wire::common_asset;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json, roles};
use crate::config::Config;
use crate::identity;
use crate::sanity::{self, Traded};
use crate::table::{self, Table};

/// What a venue told: what is traded, and what is held, by asset.
type Told = (Vec<Traded>, Vec<(String, BigRational)>);

/// Returns what an account holds, by asset.
fn held(config: &Config, venue: Venue) -> Result<Vec<(String, BigRational)>, Failure> {
    let file = roles::key_file(config, |places| &places.gateway)?;
    let credentials = roles::credentials(config, &file, venue, "check")?;
    let endpoint = roles::order_endpoint(config, venue)?;
    let unreachable =
        |error: &dyn std::fmt::Display| Failure::unreachable(format!("{}: {error}", venue.name()));
    let mut client =
        client::connect(&credentials, &endpoint, &[]).map_err(|error| unreachable(&error))?;
    let mut all = Vec::new();
    for balance in client.balances().map_err(|error| unreachable(&error))? {
        let no_number =
            || unreachable(&format!("{} {} {}", balance.asset, balance.free, balance.held));
        let free = sanity::number(&balance.free).ok_or_else(no_number)?;
        // Kraken tells all of it, the others what is free.
        let (asset, total) = match venue {
            Venue::Kraken => (common_asset(&balance.asset).map(str::to_owned), free),
            _ => {
                let held = sanity::number(&balance.held).ok_or_else(no_number)?;
                (Some(balance.asset.clone()), free + held)
            }
        };
        // Staked and the like cannot be traded, so it is not counted.
        all.extend(asset.map(|asset| (asset, total)));
    }
    Ok(all)
}

/// `tandem config check --against-venues`.
pub fn run(config: &ConfigArg, understood: &[String], json: bool) -> Done {
    let config = config.load()?;
    let limits =
        config.limits.as_ref().ok_or_else(|| Failure::refused("there is no [limits] to check"))?;
    roles::prepare(&config)?;
    // Of this configuration, whatever the run's directory was made from.
    let setup = table::ask_venues(&config).map_err(Failure::unreachable)?;
    let table = Table::build(setup, "the venues").map_err(Failure::unreachable)?;
    // The venues are asked side by side: each has its own pace.
    let asked: Vec<Result<Told, Failure>> = thread::scope(|scope| {
        let ask = |venue| {
            let (config, table) = (&config, &table);
            scope.spawn(move || {
                let traded = sanity::traded(config, table, venue).map_err(Failure::unreachable)?;
                Ok((traded, held(config, venue)?))
            })
        };
        let all: Vec<_> = config.venues().into_iter().map(|(venue, _)| ask(venue)).collect();
        let gone = |_| Err(Failure::failed("asking a venue ended without an answer"));
        all.into_iter().map(|asked| asked.join().unwrap_or_else(gone)).collect()
    });
    let (mut traded, mut holdings) = (Vec::new(), BTreeMap::new());
    for answer in asked {
        let (of_venue, balances) = answer?;
        traded.extend(of_venue);
        for (asset, total) in balances {
            let sum = holdings
                .remove(&asset)
                .map_or_else(|| total.clone(), |sum: BigRational| sum + &total);
            holdings.insert(asset, sum);
        }
    }
    let found = sanity::judge(limits, &holdings, &traded);
    let (waived, open) = sanity::waive(found, understood).map_err(Failure::usage)?;
    if open.is_empty() {
        let hash = identity::config_hash(&config).map_err(Failure::failed)?;
        sanity::keep(&config.run.state_dir, hash, understood).map_err(Failure::failed)?;
    }
    if json {
        print_json(
            &serde_json::json!({ "ok": open.is_empty(), "findings": open, "waived": waived }),
        );
    } else {
        for it in &waived {
            print(format_args!("waived   {} = {}: {}", it.key, it.value, it.why));
        }
        for it in &open {
            print(format_args!("ABSURD   {} = {}: {}", it.key, it.value, it.why));
        }
        print(format_args!(
            "{} instruments and {} assets looked at, {} findings open",
            traded.len(),
            holdings.len(),
            open.len()
        ));
    }
    match open.first() {
        None => Ok(Outcome::Ok),
        Some(first) => Err(Failure::refused(format!(
            "{} limits look absurd: lower them, or say --i-understand {}={} for each that is meant",
            open.len(),
            first.key,
            first.value
        ))),
    }
}
