//! Runs a simulator until `POST /shutdown`: `serve [seed | config.json]`. Prints its addresses.

use tandem_sim::{SimConfig, serve_forever};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "1".to_owned());
    let cfg = match argument.parse() {
        Ok(seed) => SimConfig::demo(seed),
        Err(_) => serde_json::from_str(&std::fs::read_to_string(&argument)?)?,
    };
    serve_forever(cfg, |handle| println!("{}", handle.endpoints_json())).await?;
    Ok(())
}
