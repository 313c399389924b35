//! Keys from a file: who may read it, what it must say, and that nothing of it is ever shown.
//!
//! Invariant: a key comes from a file of our own user with mode 0400 or 0600, or from systemd's
//! credentials, and from nowhere else: no argument, no environment variable. The file is checked through
//! the descriptor that is then read, so that it cannot be exchanged between the two. An error names the
//! path, the mode and the key of the file, never a value. What was read is wiped when it is dropped.
//!
//! Not here: what the venue says a key may do (`tandem-gateway::keys`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

/// A configured place that begins so is a file in systemd's credentials directory.
const CREDENTIAL: &str = "credential:";
/// No key file is as long.
const BYTES_MAX: u64 = 64 << 10;

/// Why keys were refused.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// It cannot be opened or read.
    #[error("{path}: {error}; write the keys there, mode 0400, as deploy/keys.example.toml shows")]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// `credential:` without systemd.
    #[error(
        "{place}: CREDENTIALS_DIRECTORY is not set: start the unit with LoadCredential=, or name a file"
    )]
    NoCredentials {
        /// As configured.
        place: String,
    },
    /// Another user's file.
    #[error("{path}: belongs to user {owner}, this process is user {own}: chown it")]
    Owner {
        /// File.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// Others may read it.
    #[error("{path}: mode {mode:04o} lets others at the keys: chmod 0400 {path}")]
    Mode {
        /// File.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No plain file.
    #[error("{path}: is a link or no plain file: name the file itself")]
    NotAFile {
        /// File.
        path: PathBuf,
    },
    /// Not the form it must have.
    #[error("{path}: {what}")]
    Form {
        /// File.
        path: PathBuf,
        /// What is wrong; no value is in it.
        what: String,
    },
}

/// Which world a key belongs to. It must be the endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Real money.
    Live,
    /// A simulator on this host.
    Sim,
}

impl Environment {
    /// Returns the name as written in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Environment::Live => "live",
            Environment::Sim => "sim",
        }
    }
}

/// One venue's keys as the file has them.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueKeys {
    /// The public half.
    pub api_key: String,
    /// HMAC secret (Kraken: base64).
    #[serde(default)]
    pub secret: Option<Zeroizing<String>>,
    /// Private key: PKCS#8 or SEC1 PEM, or Coinbase's base64 of an Ed25519 key.
    #[serde(default)]
    pub private_key_pem: Option<Zeroizing<String>>,
}

/// The file. A section that is no venue of ours is refused by [`load`].
#[derive(Clone, Deserialize)]
pub struct KeyFile {
    /// Which world its keys belong to.
    pub environment: Environment,
    /// Venues by name.
    #[serde(flatten)]
    pub venues: BTreeMap<String, VenueKeys>,
}

/// Returns the path that a configured place names.
///
/// # Errors
///
/// A credential's place where systemd gave none.
pub(crate) fn resolve(place: &str) -> Result<PathBuf, SecretsError> {
    let Some(name) = place.strip_prefix(CREDENTIAL) else { return Ok(PathBuf::from(place)) };
    // The directory's name is public; the secrets are in the files.
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY")
        .ok_or_else(|| SecretsError::NoCredentials { place: place.to_owned() })?;
    Ok(Path::new(&dir).join(name))
}

/// Reads a file that only we may read: its path and all of its text.
fn read(place: &str) -> Result<(PathBuf, Zeroizing<String>), SecretsError> {
    let path = resolve(place)?;
    let io_error = |error: io::Error| match error.raw_os_error() {
        Some(libc::ELOOP) => SecretsError::NotAFile { path: path.clone() },
        _ => SecretsError::Io { path: path.clone(), error },
    };
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(io_error)?;
    check(&file, &path)?;
    let mut text = Zeroizing::new(String::new());
    let io_error = |error| SecretsError::Io { path: path.clone(), error };
    file.by_ref().take(BYTES_MAX).read_to_string(&mut text).map_err(io_error)?;
    // From now on no error, panic or log of this process shows any of it.
    tandem_drain::spool::conceal(&text);
    Ok((path, text))
}

/// Reads a secret that is one line: an address, a token.
pub fn line(place: &str) -> Result<Zeroizing<String>, SecretsError> {
    let (path, text) = read(place)?;
    let line = text.trim();
    if line.is_empty() || line.contains(char::is_whitespace) {
        let what = "must hold one line without spaces".to_owned();
        return Err(SecretsError::Form { path, what });
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Reads a key file.
pub fn load(place: &str) -> Result<KeyFile, SecretsError> {
    let (path, text) = read(place)?;
    let form = |what: String| SecretsError::Form { path: path.clone(), what };
    // The parser's message would show the line it stumbled over: only where it is may be told.
    let keys: KeyFile = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        let kind = error.message().split(['`', '"', '\'']).next().unwrap_or_default().trim_end();
        form(format!("line {line}: {kind}; the form is that of deploy/keys.example.toml"))
    })?;
    for (venue, keys) in &keys.venues {
        if crate::config::venue_named(venue).is_none() {
            return Err(form(format!("[{venue}]: no venue of ours: binance, coinbase or kraken")));
        }
        if keys.api_key.is_empty() {
            return Err(form(format!("[{venue}] api_key is empty")));
        }
        if keys.secret.is_some() == keys.private_key_pem.is_some() {
            return Err(form(format!("[{venue}] needs one of secret and private_key_pem")));
        }
    }
    Ok(keys)
}

fn check(file: &File, path: &Path) -> Result<(), SecretsError> {
    let found =
        file.metadata().map_err(|error| SecretsError::Io { path: path.to_owned(), error })?;
    if !found.is_file() {
        return Err(SecretsError::NotAFile { path: path.to_owned() });
    }
    let (owner, own) = (found.uid(), tandem_shm::euid());
    if owner != own {
        return Err(SecretsError::Owner { path: path.to_owned(), owner, own });
    }
    let mode = found.mode() & 0o7777;
    if mode != 0o400 && mode != 0o600 {
        return Err(SecretsError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GOOD: &str = "environment = \"sim\"\n[kraken]\napi_key = \"K\"\nsecret = \"hunter2\"\n";

    fn file(name: &str, text: &str, mode: u32) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tandem-keys-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        path
    }

    fn text_of(path: &Path) -> Result<KeyFile, String> {
        load(path.to_str().expect("a plain path")).map_err(|error| error.to_string())
    }

    /// Row CF-04.
    #[test]
    fn only_our_own_closed_file_is_read() {
        let mut accepted = Vec::new();
        for mode in 0..=0o777u32 {
            if mode & 0o400 == 0 {
                continue;
            }
            let path = file("mode", GOOD, mode);
            match text_of(&path) {
                Ok(_) => accepted.push(mode),
                Err(text) => assert!(text.contains("chmod") && !text.contains("hunter2"), "{text}"),
            }
        }
        assert_eq!(accepted, [0o400, 0o600]);
        let path = file("linked", GOOD, 0o400);
        let link = path.with_extension("link");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(text_of(&link).is_err_and(|text| text.contains("link")));
        let folder = std::env::temp_dir();
        assert!(text_of(&folder).is_err());
        println!("figure CF-04: 256 modes, a link and a folder: accepted only 0400 and 0600");
        for name in ["mode", "linked", "linked.link"] {
            let _ = fs::remove_file(
                std::env::temp_dir().join(format!("tandem-keys-{}-{name}", std::process::id())),
            );
        }
    }

    #[test]
    fn a_line_is_one_line_of_a_closed_file() {
        let path = file("line", "https://host/hunter2\n", 0o400);
        let place = path.to_str().expect("a plain path");
        assert_eq!(line(place).expect("a line").as_str(), "https://host/hunter2");
        for (text, mode) in
            [("", 0o600), ("a hunter2", 0o600), ("a\nhunter2", 0o600), ("hunter2", 0o640)]
        {
            let told = line(file("line", text, mode).to_str().expect("a plain path"));
            let told = told.expect_err("refused").to_string();
            assert!(!told.contains("hunter2") && told.contains(place), "{told}");
        }
        fs::remove_file(&path).expect("clean up");
    }

    /// Row CF-04: what is wrong is told without what is secret.
    #[test]
    fn an_error_shows_no_secret() {
        let bad = [
            "environment = \"sim\"\n[kraken]\napi_key = \"K\"\nsecret = hunter2\n",
            "environment = \"hunter2\"\n",
            "environment = \"sim\"\n[kraken]\napi_key = \"K\"\nsecrt = \"hunter2\"\n",
            "environment = \"sim\"\n[kraken]\napi_key = \"K\"\nsecret = \"hunter2\n",
            "environment = \"sim\"\n[kraken]\napi_key = \"\"\nsecret = \"hunter2\"\n",
            "environment = \"sim\"\n[kraken]\napi_key = \"K\"\n",
            "[kraken]\napi_key = \"K\"\nsecret = \"hunter2\"\n",
            "environment = \"sim\"\n[mtgox]\napi_key = \"K\"\nsecret = \"hunter2\"\n",
            "environment = \"sim\"\n[kraken]\napi_key = 7\nsecret = \"hunter2\"\n",
        ];
        for (at, text) in bad.iter().enumerate() {
            let path = file(&format!("bad{at}"), text, 0o600);
            let told = text_of(&path).map(|_| ()).expect_err("refused");
            assert!(!told.contains("hunter2"), "{told}");
            assert!(told.contains(&path.display().to_string()), "{told}");
            fs::remove_file(&path).expect("clean up");
        }
        assert!(
            load("credential:x").is_err() || std::env::var_os("CREDENTIALS_DIRECTORY").is_some()
        );
    }
}
