//! A Prometheus server with the shipped configuration and rules, without Alertmanager.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{ServicesError, bound, closed_dir, end, wait_ready};

const CONF: &str = include_str!("../../../../deploy/prometheus/prometheus.yml");
const RULES: [(&str, &str); 2] = [
    ("recording.yml", include_str!("../../../../deploy/prometheus/rules/recording.yml")),
    ("alerts.yml", include_str!("../../../../deploy/prometheus/rules/alerts.yml")),
];
/// To answer.
const WITHIN: Duration = Duration::from_secs(10);

/// A server.
pub struct PrometheusServer {
    dir: PathBuf,
    address: SocketAddr,
    child: Child,
}

/// Says whether it is installed.
pub fn program() -> Result<&'static Path, ServicesError> {
    let missing = ServicesError::NotInstalled { program: "prometheus", package: "prometheus" };
    let mut version = Command::new("prometheus");
    match version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => Ok(Path::new("prometheus")),
        Err(_) => Err(missing),
    }
}

impl PrometheusServer {
    /// Starts one in a folder; it scrapes `target`, an address with its port.
    pub fn start(dir: &Path, target: &str) -> Result<PrometheusServer, ServicesError> {
        PrometheusServer::start_with(dir, target, &["--enable-feature=native-histograms"])
    }

    /// The same with other arguments.
    pub fn start_with(
        dir: &Path,
        target: &str,
        more: &[&str],
    ) -> Result<PrometheusServer, ServicesError> {
        let program = program()?;
        let _ = fs::remove_dir_all(dir);
        closed_dir(dir)?;
        closed_dir(&dir.join("rules"))?;
        let what = || ServicesError::io(format!("write {}", dir.display()));
        for (name, text) in RULES {
            fs::write(dir.join("rules").join(name), text).map_err(what())?;
        }
        // Alertmanager is not there: the part between these two goes.
        let (head, rest) = CONF.split_once("\nalerting:\n").unwrap_or((CONF, ""));
        let (_, tail) = rest.split_once("\nscrape_configs:").unwrap_or_default();
        let text = format!("{head}\nscrape_configs:{tail}").replace("127.0.0.1:7411", target);
        let config = dir.join("prometheus.yml");
        fs::write(&config, text).map_err(what())?;
        // Free a moment ago; a server that finds it taken ends, and that is told.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let address = address.map_err(ServicesError::io("find a free port"))?;
        let log = fs::File::create(dir.join("log")).map_err(what())?;
        let child = bound(program, "KILL", None)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(more)
            .stderr(log)
            .spawn()
            .map_err(ServicesError::io("start prometheus"))?;
        let mut server = PrometheusServer { dir: dir.to_owned(), address, child };
        let log = server.dir.join("log");
        let ready = format!("http://{address}/-/ready");
        wait_ready("start prometheus", &mut server.child, &log, || get(&ready).map(drop))?;
        Ok(server)
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for an expression's value now: a list of series. The error is what the server said.
    pub fn query(&self, expr: &str) -> Result<Vec<Value>, String> {
        let url = format!("http://{}/api/v1/query", self.address);
        let answer = agent().get(&url).query("query", expr).call();
        let text = answer.map_err(|error| error.to_string())?.into_body().read_to_string();
        let text = text.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if answer["status"] != "success" {
            return Err(answer["error"].as_str().unwrap_or("no answer").to_owned());
        }
        let found = &answer["data"]["result"];
        Ok(match answer["data"]["resultType"].as_str() {
            Some("vector") => found.as_array().cloned().unwrap_or_default(),
            _ => vec![found.clone()],
        })
    }

    /// Asks for an expression with one series and returns its number.
    pub fn number(&self, expr: &str) -> Result<f64, String> {
        let found = self.query(expr)?;
        let value = found.first().map(|series| &series["value"][1]);
        let text = value.and_then(Value::as_str).ok_or_else(|| format!("{expr}: no series"))?;
        text.parse().map_err(|_| format!("{expr}: {text} is no number"))
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(WITHIN))
        .build()
        .into()
}

fn get(url: &str) -> Result<(), String> {
    let answer = agent().get(url).call().map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200 => Ok(()),
        other => Err(format!("it answers with {other}")),
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        end(&mut self.child, "-KILL");
        let _ = fs::remove_dir_all(&self.dir);
    }
}
