//! What can go wrong between two processes that meet in shared memory.
//!
//! Invariant: every variant names the file it is about and what to do next. Fields, not strings:
//! the text is made only when someone looks.
//!
//! Not here: damage inside a journal ([`JournalError`](crate::JournalError)) and a full journal
//! ([`JournalFull`](crate::JournalFull)), which have their own answers.

use std::io;
use std::path::PathBuf;

use crate::region::RegionKind;

/// Why a region could not be created or attached.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// There is no file of that name.
    #[error(
        "{path}: no such region after waiting {waited_ms} ms; start its producer, or check the \
         shared-memory directory in the configuration"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// How long the reader waited for it.
        waited_ms: u64,
    },
    /// The init-complete word (the magic, stored last) is still zero.
    #[error(
        "{path}: half-initialised, its init-complete word is zero; its creator is still at work or \
         died in it: start the producer again, or delete the file if no producer runs"
    )]
    HalfInitialised {
        /// The file.
        path: PathBuf,
    },
    /// The file is not as long as its header, or its header says it should be.
    #[error(
        "{path}: truncated, {found_bytes} bytes where {needed_bytes} are needed; something shortened \
         it: stop its readers, delete it and start its producer again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size.
        found_bytes: u64,
        /// The size that its header, or any header, asks for.
        needed_bytes: u64,
    },
    /// The first word is something else's.
    #[error(
        "{path}: wrong magic {found:#018x}, expected {expected:#018x}; this is not a Tandem region: \
         point the configuration at another directory, or delete the file"
    )]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// What the first word says.
        found: u64,
        /// What it should say.
        expected: u64,
    },
    /// Written by a build with another header layout.
    #[error(
        "{path}: layout version {found_major}.{found_minor}, this build reads {our_major}.x (it \
         writes {our_major}.{our_minor}); run the same build on both sides and restart the producer"
    )]
    LayoutVersion {
        /// The file.
        path: PathBuf,
        /// Major version in the file.
        found_major: u16,
        /// Minor version in the file.
        found_minor: u16,
        /// Our major version.
        our_major: u16,
        /// Our minor version.
        our_minor: u16,
    },
    /// A ring where a page was expected, or the like.
    #[error(
        "{path}: holds a {found}, expected a {expected}; two parts of the configuration use one \
         name: rename one of them"
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: RegionKind,
        /// What was asked for.
        expected: RegionKind,
    },
    /// Producer and consumer disagree on the record.
    #[error(
        "{path}: record schema {found:#018x}, this build expects {expected:#018x}; the record layout \
         differs: run the same build on both sides and restart the producer"
    )]
    SchemaHash {
        /// The file.
        path: PathBuf,
        /// Hash in the file.
        found: u64,
        /// Hash of this build.
        expected: u64,
    },
    /// A size in the header contradicts the build or the file.
    #[error(
        "{path}: {what} is {found}, expected {expected}; run the same build on both sides, or delete \
         the file and start its producer again"
    )]
    Geometry {
        /// The file.
        path: PathBuf,
        /// Which size.
        what: &'static str,
        /// What the header says.
        found: u64,
        /// What follows from the build or from the file.
        expected: u64,
    },
    /// Somebody else's file.
    #[error(
        "{path}: owned by uid {found}, trusted are {expected} (us), 0 and the owner of the directory; \
         run producer and consumer under the configured users, or delete the file"
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// Our effective user.
        expected: u32,
    },
    /// Others may write what we would believe.
    #[error(
        "{path}: mode {mode:04o} lets group or others write; `chmod g-w,o-w` it after finding out \
         who did that, or delete it and start its producer again"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Left by an earlier boot, or copied from another host.
    #[error(
        "{path}: made under boot id hash {found:#018x}, this host runs {ours:#018x}; it is a copy or a \
         leftover: start its producer again, it replaces the file"
    )]
    BootId {
        /// The file.
        path: PathBuf,
        /// Hash in the file.
        found: u64,
        /// Hash of this boot.
        ours: u64,
    },
    /// The memory file system has no room. Found at creation, so it is never a SIGBUS later.
    #[error(
        "{path}: {mount} is full: {wanted_bytes} bytes wanted, {free_bytes} free; enlarge it \
         (`mount -o remount,size=<bytes> {mount}`, in containers `--shm-size`) or configure smaller \
         rings"
    )]
    NoSpace {
        /// The file that was being created.
        path: PathBuf,
        /// Directory whose file system is full.
        mount: PathBuf,
        /// What we asked for.
        wanted_bytes: u64,
        /// What it has.
        free_bytes: u64,
    },
    /// Another producer lives.
    #[error(
        "{path}: locked by a living producer, pid {pid}; stop that process first, or give this one \
         another name"
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who wrote its header.
        pid: u32,
    },
    /// The name cannot be a file name in our directory.
    #[error("region name {name:?}: {why}; choose another name in the configuration")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The specification itself is impossible.
    #[error("region {name:?}: {what} is {found}: {rule}")]
    Spec {
        /// The name of the region.
        name: String,
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The rule it breaks, which is also the fix.
        rule: &'static str,
    },
    /// Other processes kept creating and replacing the file while we tried.
    #[error(
        "{path}: kept changing while it was being created; several producers start under this name: \
         leave one of them"
    )]
    Contended {
        /// The file.
        path: PathBuf,
    },
    /// The kernel said no.
    #[error("{path}: {op} failed: {source}")]
    Io {
        /// What we tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl ShmError {
    /// Wraps a kernel error with the operation and the file.
    pub fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { op, path, source }
    }

    /// Returns whether waiting for the producer may cure it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::HalfInitialised { .. })
    }
}
