//! What a process is made of: its binary and its configuration, as two numbers.
//!
//! Invariant: two processes have the same numbers exactly when they run the same bytes on the same
//! configuration. Processes that differ do not trade together (`reference/reliability.md` PR-16).

use std::io;

use serde::Serialize;
use tandem_shm::fnv1a;

use crate::config::Config;

/// The two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Hash of the binary's bytes.
    pub build: u64,
    /// Hash of what the configuration says; comments and order do not count.
    pub config: u64,
}

impl Identity {
    /// Returns this process's identity.
    pub fn of(config: &Config) -> io::Result<Identity> {
        // The running inode, also where another build has replaced the file since.
        let build = fnv1a(&std::fs::read("/proc/self/exe")?);
        Ok(Identity { build, config: config_hash(config)? })
    }
}

/// Returns the hash of what a configuration says.
pub fn config_hash(config: &Config) -> io::Result<u64> {
    serde_json::to_vec(config).map(|text| fnv1a(&text)).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SAMPLE: &str = include_str!("../../../deploy/tandem.toml");

    /// Row PR-16.
    #[test]
    fn a_value_counts_and_a_comment_does_not() {
        let hash = |text: &str| {
            config_hash(&Config::parse(text, Path::new("x")).expect("a configuration"))
                .expect("hash")
        };
        let same = format!("# another comment\n{SAMPLE}");
        let other = SAMPLE.replacen("hedges_max = 10", "hedges_max = 11", 1);
        assert_eq!(hash(SAMPLE), hash(&same));
        assert_ne!(hash(SAMPLE), hash(&other));
    }
}
