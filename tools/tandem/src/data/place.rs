//! A new directory: whole under its name, or not there.
//!
//! Invariant: what is made stands in a hidden sibling, locked by its maker, until [`Making::finish`] gives it its
//! name. What fails takes its sibling away; what is killed leaves it, and the next one that makes the same
//! directory takes it away. Nobody else's sibling is touched while its maker lives.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::DataError;

/// Name of the lock in the sibling.
const LOCK: &str = "lock";
/// Name of what is made in it.
const INSIDE: &str = "made";

/// A directory in the making.
#[derive(Debug)]
pub struct Making {
    to: PathBuf,
    sibling: PathBuf,
    /// Locked for as long as it is made.
    lock: Option<File>,
}

impl Making {
    /// Begins a directory; there must be none of that name, or an empty one.
    pub fn begin(to: &Path) -> Result<Making, DataError> {
        let taken = match fs::read_dir(to) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => to.symlink_metadata().is_ok(),
        };
        if taken {
            let found = format!("{}: is there already; name a new directory", to.display());
            return Err(DataError::Options(found));
        }
        let Some(name) = to.file_name() else {
            let found = format!("{}: names no directory; name a new one", to.display());
            return Err(DataError::Options(found));
        };
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(DataError::make(parent, "make the directory"))?;
        let sibling = parent.join(format!(".{}.making", name.to_string_lossy()));
        fs::create_dir_all(&sibling).map_err(DataError::make(&sibling, "make the directory"))?;
        let path = sibling.join(LOCK);
        let lock = File::create(&path).map_err(DataError::make(&path, "make the file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let found = format!(
                    "{}: is being made by another process; wait for it, or name another directory",
                    to.display()
                );
                return Err(DataError::Options(found));
            }
            Err(TryLockError::Error(error)) => {
                return Err(DataError::make(&path, "lock the file")(error));
            }
        }
        let making = Making { to: to.to_owned(), sibling, lock: Some(lock) };
        // Left by one that was killed.
        let inside = making.inside();
        if inside.exists() {
            fs::remove_dir_all(&inside)
                .map_err(DataError::make(&inside, "remove what was left in"))?;
        }
        Ok(making)
    }

    /// Returns the directory to make.
    #[must_use]
    pub fn inside(&self) -> PathBuf {
        self.sibling.join(INSIDE)
    }

    /// Gives what was made its name.
    pub fn finish(self) -> Result<(), DataError> {
        let inside = self.inside();
        let sync = |path: &Path| File::open(path).and_then(|dir| dir.sync_all());
        sync(&inside).map_err(DataError::make(&inside, "sync"))?;
        fs::rename(&inside, &self.to)
            .map_err(DataError::make(&self.to, "give what was made its name"))?;
        let parent = self.sibling.parent().unwrap_or(Path::new("."));
        sync(parent).map_err(DataError::make(parent, "sync"))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // The lock stays held until all is gone.
        let _ = fs::remove_dir_all(&self.sibling);
        drop(self.lock.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tandem-place-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("room");
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn whole_or_not_there() {
        let root = folder("whole");
        let to = root.join("data");
        let making = Making::begin(&to).expect("a place");
        fs::create_dir(making.inside()).expect("room");
        fs::write(making.inside().join("half"), b"x").expect("room");
        assert_eq!(names(&root), [".data.making"]);
        assert!(matches!(Making::begin(&to), Err(DataError::Options(_))), "its maker lives");
        drop(making);
        assert!(names(&root).is_empty(), "nothing stays");
        // What a killed one left.
        fs::create_dir_all(root.join(".data.making").join(INSIDE).join("half")).expect("room");
        let making = Making::begin(&to).expect("taken over");
        assert!(!making.inside().exists());
        fs::create_dir(making.inside()).expect("room");
        fs::write(making.inside().join("whole"), b"x").expect("room");
        making.finish().expect("its name");
        assert_eq!((names(&root), names(&to)), (vec!["data".to_owned()], vec!["whole".to_owned()]));
        let error = Making::begin(&to).expect_err("it is there");
        assert!(error.to_string().contains("is there already"), "{error}");
        fs::remove_dir_all(&root).expect("clean up");
    }
}
