//! The demo's configuration: the simulated venues' addresses, institutional fees, limits for its accounts.
//!
//! Invariant: it is a file like any other, complete and checked like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tandem_sim::{Addresses, SimConfig};

use crate::config::Mode;
use crate::demo_keys::DemoKeys;

/// Fees of an institutional tier: at retail fees of 60 bp a leg no dislocation of a sane size would pay.
const FEES_PPM: [(&str, u32, &str); 3] =
    [("binance", 200, "received"), ("coinbase", 400, "quote"), ("kraken", 400, "quote")];

/// Sets the simulator's fees to those the configuration names.
pub fn set_fees(config: &mut SimConfig) {
    let [binance, coinbase, kraken] = FEES_PPM.map(|(_, ppm, _)| ppm.into());
    config.binance.taker_fee_ppm = binance;
    config.coinbase.taker_fee_ppm = coinbase;
    config.kraken.taker_fee_ppm = kraken;
}

/// Gives the simulator the keys of a run.
pub fn set_keys(config: &mut SimConfig, keys: &DemoKeys) -> std::io::Result<()> {
    config.keys = tandem_sim::Keys::from_json(&keys.for_simulator.to_string())
        .map_err(std::io::Error::other)?;
    Ok(())
}

/// Returns the assets that a simulator's symbols name.
fn assets(config: &SimConfig) -> BTreeSet<String> {
    [&config.binance.instruments, &config.coinbase.instruments, &config.kraken.instruments]
        .into_iter()
        .flatten()
        .flat_map(|instrument| [instrument.base.clone(), instrument.quote.clone()])
        .collect()
}

/// Where a run's dashboard is, and what its buttons need.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The token's file.
    pub token: PathBuf,
}

impl Dashboard {
    /// Chooses the usual port where it is free, else any, and makes a token.
    pub fn make(dir: &Path) -> std::io::Result<Dashboard> {
        let usual = SocketAddr::from(([127, 0, 0, 1], 7411));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = if TcpListener::bind(usual).is_ok() { usual } else { any };
        Ok(Dashboard { listen, token: crate::demo_keys::token(dir)? })
    }
}

/// Returns the configuration. Without keys the run observes; with them it trades as `mode` says.
#[must_use]
pub fn text(
    dir: &Path,
    addresses: &Addresses,
    sim: &SimConfig,
    symbols: &BTreeMap<String, Vec<String>>,
    trading: Option<(Mode, &DemoKeys)>,
    web: &Dashboard,
) -> String {
    let mode = trading.map_or(Mode::Observe, |(mode, _)| mode);
    let mut text = format!(
        "[run]\ndir = \"{}\"\nmode = \"{}\"\nstate_dir = \"{}\"\n\n\
         [engine]\nwait = \"park\"\nedge_min_ppm = 50\nedge_max_ppm = 30000\nedge_max_halt_s = 5\n\
         basis_ppm = 0\nnumeraires = [\"USD\", \"USDT\", \"USDC\"]\nlegs_max = 3\ncycles_max = 20000\n\
         window_levels = 100\nflicker_ms = 5\ndenial_ms = 1000\nupdate_ms = 10\ntimer_ms = 10\n\n\
         [journal]\nsegment_mib = 32\nsegments_max = 40\n",
        dir.display(),
        mode.name(),
        dir.join("state").display(),
    );
    if let Some((_, keys)) = trading.filter(|(mode, _)| *mode != Mode::Observe) {
        let _ = write!(
            text,
            "\n[secrets]\ngateway = \"{}\"\nwarden = \"{}\"\n",
            keys.gateway.display(),
            keys.warden.display()
        );
        limits(&mut text, sim);
    }
    let (listen, token) = (web.listen, web.token.display());
    let _ = write!(text, "\n[web]\nlisten = \"{listen}\"\ntoken_file = \"{token}\"\n");
    for venue in tandem_sim::Venue::ALL {
        let (Some(at), Some((_, fee, fee_in)), Some(symbols)) = (
            addresses.venue(venue),
            FEES_PPM.iter().find(|fee| fee.0 == venue.name()),
            symbols.get(venue.name()),
        ) else {
            continue;
        };
        let port = at.tls.port();
        let _ = write!(
            text,
            "\n[venue.{}]\nws_url = \"wss://127.0.0.1:{port}\"\nrest_url = \"https://127.0.0.1:{port}\"\n\
             order_url = \"wss://127.0.0.1:{port}\"\n\
             tls_ca_file = \"{}\"\nsymbols = {symbols:?}\ntaker_fee_ppm = {fee}\nfee_in = \"{fee_in}\"\n\
             notional_max = {{ USD = \"20000\", USDT = \"20000\", USDC = \"20000\", BTC = \"0.4\" }}\n\
             slippage_ppm = 20\nstaleness_ppm_per_s = 200\nage_max_ms = 1500\norder_latency_ms = 20\n\
             wait = \"park\"\n{}",
            venue.name(),
            addresses.ca_path.display(),
            // The tier of the simulator's accounts.
            if venue == tandem_sim::Venue::Kraken { "rate_tier = \"pro\"\n" } else { "" },
        );
    }
    text
}

fn limits(text: &mut String, sim: &SimConfig) {
    text.push_str(
        "\n[limits]\nnumeraire = \"USD\"\nrounds_max = 8\norder_ttl_ms = 500\nack_timeout_ms = 2000\n\
         query_wait_ms = 200\nquery_wait_max_ms = 2000\nunknown_max_ms = 15000\nhedge_ms = 1500\n\
         unwind_ms = 3000\nhedge_slippage_ppm = 3000\nunwind_slippage_ppm = 6000\nhedge_wait_ms = 20\n\
         hedges_max = 12\nround_loss_max = \"60\"\nnotional_min_buffer_ppm = 50000\n\
         rules_age_max_s = 900\nmove_1s_ppm_max = 30000\nmove_60s_ppm_max = 200000\n\
         notional_max = \"2000\"\nexposure_max = \"40000\"\norders_max = 24\nunknown_max = 3\n\
         losing_rounds_max = 25\nedge_min_ppm = 50\nedge_max_ppm = 20000\ndepth_ppm_max = 600000\n\
         loss_5min_max = \"500\"\nloss_day_max = \"1000\"\ndrawdown_max = \"1500\"\n\
         shortfall_ppm_max = 3000\nclock_offset_max_ms = 250\nclock_bound_max_ms = 50\n\
         session_orders_max = 100000\nsession_notional_max = \"100000000\"\n\
         session_fees_max = \"100000\"\ndenials_1s_max = 2000\nretry_ms = 50\ndrift_max_ms = 5000\n\
         own_interest_ms = 250\nskew_ppm = 100\nramp_rounds = 3\n\n\
         [limits.instrument]\ncollar_ppm = 20000\nhedge_collar_ppm = 30000\norders_max = 8\n\
         fills_10s_max = 500\nfills_1h_max = 100000\nloss_max = \"500\"\n",
    );
    for venue in tandem_sim::Venue::ALL {
        // Below what the gateways' budgets let through: half of the venue's limit, less the reserve for hedges.
        let (per_s, burst) = match venue {
            tandem_sim::Venue::Binance => (2, 5),
            tandem_sim::Venue::Coinbase => (8, 8),
            tandem_sim::Venue::Kraken => (4, 8),
        };
        let _ = write!(
            text,
            "\n[limits.venue.{}]\nstream_age_max_ms = 2000\nexposure_max = \"30000\"\norders_max = 12\n\
             unknown_max = 2\norders_per_s = {per_s}\norders_burst = {burst}\nqueries_per_s = 5\n\
             age_max_ms = 1500\nlag_max_ms = 1000\nack_max_ms = 2000\nsingle_legs_max = 25\n\
             paper_latency_us = 1000\npaper_response_us = 1000\nfee_error_ppm_max = 50\n",
            venue.name()
        );
    }
    for asset in assets(sim) {
        // Worst-case exposure of about 20,000 USD and orders of at most 3,000, in each asset.
        let usd = sim.market.assets.get(&asset).map_or(1.0, |known| known.usd);
        let of = |worth: f64| format!("{:.8}", worth / usd);
        let _ = write!(
            text,
            "\n[limits.asset.{asset}]\nexposure_max = \"{}\"\norder_max = \"{}\"\ndust_max = \"{}\"\n\
             drift_max = \"{}\"\n",
            of(20_000.0),
            of(3_000.0),
            of(50.0),
            of(0.1),
        );
        let venues = tandem_sim::Venue::ALL;
        let opening = |venue| sim.opening(venue).get(&asset).map(ToString::to_string);
        let bands: Vec<String> = venues
            .iter()
            .filter_map(|venue| {
                let opening = opening(*venue)?;
                let most = 10.0 * opening.parse::<f64>().unwrap_or(0.0);
                Some(format!("{} = [\"0\", \"{opening}\", \"{most:.5}\"]", venue.name()))
            })
            .collect();
        let openings: Vec<String> = venues
            .iter()
            .filter_map(|venue| Some(format!("{} = \"{}\"", venue.name(), opening(*venue)?)))
            .collect();
        let _ = write!(
            text,
            "band = {{ {} }}\npaper_opening = {{ {} }}\n",
            bands.join(", "),
            openings.join(", ")
        );
    }
}
