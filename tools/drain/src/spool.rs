//! Errors and panics of every process, as lines of small files that the drain forwards.
//!
//! Invariant: nothing waits and nothing grows: a process writes one file of at most [`FILE_BYTES_MAX`], at
//! most [`PER_SECOND_MAX`] lines a second, each of at most [`LINE_BYTES_MAX`], and there are at most
//! [`FILES_MAX`] files. What is written was scrubbed: the text of every secret that this process has read is
//! replaced, also inside other words, and so are long words that look like keys, and the query of a URL.
//! Secrets are not kept for that: only their lengths and keyed hashes, which say nothing of them.
//!
//! Not here: where the lines go (`sentry`), who calls this (`tandem`).

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::source::now_ns;

/// Name of the folder in the run's directory.
pub const FOLDER: &str = "errors";
/// Most bytes of one process's file.
pub const FILE_BYTES_MAX: u64 = 256 << 10;
/// Most bytes of a line.
pub const LINE_BYTES_MAX: usize = 4 << 10;
/// Most files; the oldest one goes.
pub const FILES_MAX: usize = 64;
/// Most lines of one second.
pub const PER_SECOND_MAX: u32 = 20;
/// Longest message that is kept.
const TEXT_MAX: usize = 1_024;
/// Shorter secrets would be found in ordinary words.
const SECRET_MIN: usize = 8;
/// A word this long of letters and digits is no word.
const KEY_MIN: usize = 32;
/// What stands in the place of what was taken out.
pub const SCRUBBED: &str = "[scrubbed]";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A process panicked.
    Panic,
    /// A process told an error.
    Error,
    /// A process ended by a signal, or with a code that is none of ours.
    Exit,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When, UNIX ns.
    pub at_ns: i64,
    /// Which process: `engine`, `feed kraken`.
    pub role: String,
    /// Its id.
    pub pid: u32,
    /// What happened.
    pub what: What,
    /// In words.
    pub message: String,
    /// File and line of the source, or the module.
    pub place: String,
    /// Fields that may be told, by name.
    #[serde(default)]
    pub fields: Vec<(String, String)>,
}

/// Fields of a log's event that may leave the host.
pub const FIELDS: [&str; 14] = [
    "error",
    "tile",
    "venue",
    "status",
    "code",
    "kind",
    "instrument",
    "reason",
    "address",
    "path",
    "detail",
    "trouble",
    "ran",
    "note",
];

struct Concealed {
    keys: RandomState,
    /// Length and hash.
    of: Vec<(usize, u64)>,
}

static CONCEALED: OnceLock<Mutex<Concealed>> = OnceLock::new();
static SPOOL: OnceLock<Mutex<Spool>> = OnceLock::new();

fn concealed() -> &'static Mutex<Concealed> {
    CONCEALED.get_or_init(|| Mutex::new(Concealed { keys: RandomState::new(), of: Vec::new() }))
}

/// Has this text, and each of its parts that may be a secret by itself, taken out of everything told from
/// now on. Words of small letters alone are names, and stay.
pub fn conceal(text: &str) {
    let mut concealed = concealed().lock().unwrap_or_else(PoisonError::into_inner);
    let words = text.split(|c: char| c.is_whitespace() || "\"'=,[]{}".contains(c));
    // A file of one secret is one; of a URL also what is behind its last slashes.
    let parts = text.split(['/', ':', '?', '&', '=']).map(str::trim);
    for word in words.chain(parts).chain([text.trim()]) {
        let is_name = word.bytes().all(|b| b.is_ascii_lowercase() || b"_.-".contains(&b));
        let is_whole = word.len() == text.trim().len();
        if word.len() < SECRET_MIN || (is_name && !is_whole) {
            continue;
        }
        let entry = (word.len(), concealed.keys.hash_one(word.as_bytes()));
        if !concealed.of.contains(&entry) && concealed.of.len() < 1_024 {
            concealed.of.push(entry);
        }
    }
}

/// Returns a text without what may not be told.
#[must_use]
pub fn scrub(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let concealed = concealed().lock().unwrap_or_else(PoisonError::into_inner);
    let mut hidden = vec![false; bytes.len()];
    let mut lengths: Vec<usize> = concealed.of.iter().map(|(length, _)| *length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for length in lengths {
        for at in 0..(bytes.len() + 1).saturating_sub(length) {
            let hash = concealed.keys.hash_one(&bytes[at..at + length]);
            if concealed.of.contains(&(length, hash)) {
                hidden[at..at + length].fill(true);
            }
        }
    }
    drop(concealed);
    // What looks like a key, and the query of a URL.
    let is_key = |b: u8| b.is_ascii_alphanumeric() || b"+/_-=".contains(&b);
    let mut at = 0;
    while at < bytes.len() {
        let end = at + bytes[at..].iter().take_while(|b| is_key(**b)).count();
        let word = &bytes[at..end];
        // A path has slashes and no such piece between them.
        let longest = word.split(|b| *b == b'/').map(<[u8]>::len).max().unwrap_or(0);
        if KEY_MIN <= longest && word.iter().any(u8::is_ascii_digit) {
            hidden[at..end].fill(true);
        }
        at = end.max(at + 1);
    }
    let mut from = 0;
    while let Some(found) = find(&bytes[from..], b"://") {
        let begin = from + found;
        let end = begin + bytes[begin..].iter().take_while(|b| !b.is_ascii_whitespace()).count();
        if let Some(query) = bytes[begin..end].iter().position(|b| *b == b'?') {
            hidden[begin + query..end].fill(true);
        }
        from = end.max(begin + 3);
    }
    if !hidden.contains(&true) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut was_hidden = false;
    for (byte, is_hidden) in bytes.drain(..).zip(hidden) {
        match (is_hidden, was_hidden) {
            (true, false) => out.extend(SCRUBBED.as_bytes()),
            (true, true) => {}
            (false, _) => out.push(byte),
        }
        was_hidden = is_hidden;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

struct Spool {
    file: File,
    role: String,
    written: u64,
    /// The second, and lines in it.
    second: (i64, u32),
}

/// Opens this process's file below a run's directory. Later calls change nothing.
pub fn begin(run_dir: &Path, role: &str) -> io::Result<()> {
    if SPOOL.get().is_some() {
        return Ok(());
    }
    let folder = run_dir.join(FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    prune(&folder)?;
    let letters = role.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let name: String = letters.take(40).collect();
    let path = folder.join(format!("{name}.{}.{}.jsonl", std::process::id(), now_ns()));
    let file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(0x2_0000) // O_NOFOLLOW
        .open(path)?;
    let spool = Spool { file, role: role.to_owned(), written: 0, second: (0, 0) };
    // Another thread was first: one file is enough.
    let _ = SPOOL.set(Mutex::new(spool));
    Ok(())
}

/// Takes away the oldest files beyond the bound.
fn prune(folder: &Path) -> io::Result<()> {
    let mut files = files(folder)?;
    while FILES_MAX <= files.len() {
        match fs::remove_file(files.remove(0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the files of a folder, the oldest first.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let begun = |path: &PathBuf| -> Option<i64> {
        let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?;
        name.rsplit('.').next()?.parse().ok()
    };
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| begun(path).is_some()).collect();
    files.sort_by_key(|path| begun(path).unwrap_or(0));
    Ok(files)
}

/// Returns the whole lines from a place on, each with where it ends.
#[must_use]
pub fn new_lines(path: &Path, from: u64) -> Vec<(Vec<u8>, u64)> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(FILE_BYTES_MAX + LINE_BYTES_MAX as u64).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return Vec::new();
    }
    let mut at = from;
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .map(|line| {
            at += line.len() as u64;
            (line.to_vec(), at)
        })
        .collect()
}

thread_local! {
    /// An error while an error is told is not told.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Writes a line, scrubbed; nothing where there is no file, or too much was written.
pub fn tell(what: What, message: &str, place: &str, fields: &[(&str, String)]) {
    if TELLING.replace(true) {
        return;
    }
    write(what, message, place, fields);
    TELLING.set(false);
}

fn write(what: What, message: &str, place: &str, fields: &[(&str, String)]) {
    let Some(spool) = SPOOL.get() else { return };
    // A thread that panicked here would hold it: its line is there or not, the file is right.
    let Ok(mut spool) = spool.try_lock() else { return };
    let at_ns = now_ns();
    let second = at_ns / 1_000_000_000;
    if spool.second.0 != second {
        spool.second = (second, 0);
    }
    spool.second.1 += 1;
    if PER_SECOND_MAX < spool.second.1 || FILE_BYTES_MAX <= spool.written {
        return;
    }
    // Scrubbed before it is cut: the beginning of a secret is one too.
    let told = |text: &str| cut(&scrub(&head(text)));
    let fields = fields.iter().filter(|(name, _)| FIELDS.contains(name)).take(8);
    let line = Line {
        at_ns,
        role: spool.role.clone(),
        pid: std::process::id(),
        what,
        message: told(message),
        place: told(place),
        fields: fields.map(|(name, value)| ((*name).to_owned(), told(value))).collect(),
    };
    let Ok(mut bytes) = serde_json::to_vec(&line) else { return };
    bytes.push(b'\n');
    if LINE_BYTES_MAX < bytes.len() {
        // Its fields go first; a message alone always fits but for escapes.
        let short = Line {
            fields: Vec::new(),
            message: cut(&line.message).chars().take(256).collect(),
            ..line
        };
        bytes = serde_json::to_vec(&short).unwrap_or_default();
        bytes.push(b'\n');
    }
    // One write, so that a reader never meets half a line of a process that lives.
    if spool.file.write_all(&bytes).is_ok() {
        spool.written += bytes.len() as u64;
    }
}

/// Enough of a text that nothing which is cut off could have been the end of a secret in what is kept.
fn head(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX * 8);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Tells of every panic from now on, scrubbed, here and on the error stream. The program's own hook is
/// replaced: it would show the message as it is. Release builds abort after it.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without words".to_owned());
        let place = info.location().map_or(String::new(), ToString::to_string);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?").to_owned();
        tell(What::Panic, &message, &place, &[("kind", name.clone())]);
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "thread '{name}' panicked at {place}:\n{}", scrub(&head(&message)));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_inside_of_anything() {
        let canary = "c4n4ry-Secret-1";
        conceal(canary);
        for text in [
            canary.to_owned(),
            format!("key={canary};"),
            format!("xx{canary}yy"),
            format!("\u{e9}{canary}\u{e9}"),
        ] {
            let told = scrub(&text);
            assert!(!told.contains("c4n4ry") && told.contains(SCRUBBED), "{told}");
        }
        assert_eq!(scrub("nothing of it: c4n4ry-"), "nothing of it: c4n4ry-");
    }

    #[test]
    fn parts_of_a_key_file_are_secrets_and_its_words_are_not() {
        conceal(
            "environment = \"sim\"\n[kraken]\napi_key = \"KrKn-0001-xyzw\"\nsecret = \"aGVsbG8gd29ybGQh\"\n",
        );
        conceal("https://hooks.example/services/T0AB12CD/B0XYZ/s3cr3tp4rt");
        let told = scrub("environment kraken: KrKn-0001-xyzw, aGVsbG8gd29ybGQh, s3cr3tp4rt");
        assert_eq!(told, "environment kraken: [scrubbed], [scrubbed], [scrubbed]");
    }

    #[test]
    fn what_looks_like_a_key_goes_and_words_stay() {
        let check = |text: &str, expected: &str| assert_eq!(scrub(text), expected);
        check("signature 0123456789abcdef0123456789abcdef!", "signature [scrubbed]!");
        check("tools/drain/src/alerts/channel.rs:408", "tools/drain/src/alerts/channel.rs:408");
        check("https://h.example/p?key=1&b=2 failed", "https://h.example/p[scrubbed] failed");
        check("why? 12 of 40", "why? 12 of 40");
        check("", "");
    }
}
