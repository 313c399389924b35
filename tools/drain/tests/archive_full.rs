//! The archive on a file system of 64 MiB that somebody else fills: nothing is lost, it is told, and it is over
//! when there is room. Needs the right to mount; without it says so and passes over.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/archive.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use std::sync::atomic::{AtomicU32, Ordering};
use support::*;
use tandem_drain::Hands;
use tandem_drain::archive::{Archiver, Settings, State};

static PAUSES: AtomicU32 = AtomicU32::new(0);

struct Pauses;

impl Hands for Pauses {
    fn pause(&mut self, reason: &str) -> Result<bool, String> {
        assert!(reason.contains("archive"), "{reason}");
        Ok(PAUSES.fetch_add(1, Ordering::Relaxed) == 0)
    }
}

struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf) -> Option<Mount> {
        fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tandem-test"])
            .arg(&path)
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Mount(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills a file system to its last byte.
fn fill(root: &Path) -> PathBuf {
    let path = root.join("somebody-else");
    let mut size = 1 << 20;
    let mut file = fs::File::create(&path).unwrap();
    while 0 < size {
        let block = vec![7u8; size];
        if std::io::Write::write_all(&mut file, &block).is_err() {
            size /= 4;
        }
    }
    path
}

/// Row ST-03.
#[test]
fn a_disk_that_somebody_else_fills_loses_nothing() {
    let dir = Dir::new("quota");
    let Some(mount) = Mount::new(dir.0.join("disk")) else {
        eprintln!("NOT TESTED: no right to mount a file system of 64 MiB here");
        return;
    };
    let mut writer = journal(&dir.journal(), &spec());
    let settings =
        Settings { root: mount.0.join("archive"), hands: Some(Box::new(Pauses)), ..settings(&dir) };
    let archiver = Archiver::start(settings, host).unwrap();
    let status = archiver.status();
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let by = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < by, "{what}: {:?}", status.now());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let mut written = 0;
    for _ in 0..3 {
        append(&mut writer, 2_000);
        written += 2_000;
        until("archived", &|| status.now().durable_seq == written);
        let other = fill(&mount.0);
        append(&mut writer, 9_000);
        written += 9_000;
        until("told", &|| status.now().state == State::NoSpace);
        until("low", &|| status.now().low.is_some() && status.now().pause_wanted.is_some());
        assert!(status.now().durable_seq < written);
        fs::remove_file(other).unwrap();
        until("over", &|| status.now().durable_seq == written);
        until("no pause is wanted", &|| status.now().pause_wanted.is_none());
        assert_eq!(status.now().state, State::Archiving);
    }
    drop(archiver);
    let pauses = PAUSES.load(Ordering::Relaxed);
    assert!(0 < pauses, "trading was paused");
    let (records, missing) = archived(&mount.0.join("archive"), writer.uuid());
    assert_eq!((records.len() as u64, missing), (written, Vec::new()));
    println!(
        "figure ST-03: a 64 MiB disk filled 3 times: {written} records, 0 lost, paused {pauses} times"
    );
}
