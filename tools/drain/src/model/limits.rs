//! How much of each limit is used, as far as the journal and the stats tell it.

use serde::Serialize;
use serde_json::Value;
use tandem_core::instrument::AssetId;
use tandem_core::round::Stage;

use super::{Model, views};

/// A limit of the run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitView {
    /// What is limited.
    pub name: &'static str,
    /// How much is used, for reading; nothing where it is not known.
    pub used: Option<f64>,
    /// The limit as configured.
    pub limit: String,
    /// Asset of both, empty for counts.
    pub unit: String,
    /// The share that is used.
    pub ppm: Option<i64>,
}

impl Model {
    /// Returns the limits of the run; none where it only observes.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitView> {
        let Some(run) = self.run() else { return Vec::new() };
        let text: Value = serde_json::from_str(&run.text).unwrap_or(Value::Null);
        let limits = &text["limits"];
        let money = |key: &str| -> Option<(String, f64)> {
            let text = limits[key].as_str()?;
            Some((text.to_owned(), text.parse().ok()?))
        };
        let count = |key: &str| limits[key].as_u64().map(|most| (most.to_string(), most as f64));
        let asset = run.numeraire.unwrap_or(AssetId(u16::MAX));
        let pnl = self.pnl().map(|(pnl, _)| pnl).unwrap_or_default();
        let loss = views::number(run, asset, (-pnl.realised.min(pnl.marked)).max(0));
        let drawdown = views::number(run, asset, (pnl.peak - pnl.marked).max(0));
        let settled = Stage::Settled.name();
        let rounds = self.rounds(0).filter(|round| round.stage != settled).count();
        let open = self.orders().newest(0).filter(|order| order.ended_us.is_none()).count();
        let (orders, _) = self.orders().counts();
        let exposure = self.last_look().engine.and_then(|engine| engine.exposure_ppm);
        let unit = run.asset(asset);
        let row = |name, used: Option<f64>, most: Option<(String, f64)>, unit: &str| {
            let (limit, most) = most?;
            let ppm = used.filter(|_| 0.0 < most).map(|used| (used / most * 1e6) as i64);
            Some(LimitView { name, used, limit, unit: unit.to_owned(), ppm })
        };
        let exposure_max = money("exposure_max");
        let exposed =
            exposure.zip(exposure_max.as_ref()).map(|(ppm, (_, most))| most * ppm as f64 / 1e6);
        let rows = [
            row("exposure", exposed, exposure_max, unit),
            row("loss of the day", Some(loss), money("loss_day_max"), unit),
            row("drawdown", Some(drawdown), money("drawdown_max"), unit),
            row("rounds at once", Some(rounds as f64), count("rounds_max"), ""),
            row("orders at once", Some(open as f64), count("orders_max"), ""),
            row("orders of the run", Some(orders as f64), count("session_orders_max"), ""),
        ];
        rows.into_iter().flatten().collect()
    }
}
