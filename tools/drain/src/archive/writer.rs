//! The writing end: blocks onto the disk, and what is certain to be there.
//!
//! Invariant: one block is under way at a time. [`ArchiveWriter::next_seq`] moves on only after the block
//! was written whole and `fdatasync` returned without error; a new file has its final name only after its
//! header was synced, and the name is synced before a block is. A full disk keeps the block, the very same
//! bytes, until it fits. Any other error of a write or a sync ends the writer for good: the kernel may have
//! dropped the pages and would call the next sync a success.
//!
//! Where the archive ends is found again at start: the last file is proven block by block, a write that was
//! cut short is put aside and cut, and anything else that is wrong is refused as damage. Blocks that were
//! never confirmed (see [`Resume::confirmed`]) are written again.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tandem_core::record::Record;

use super::codec::Codec;
use super::disk::{Disk, DiskFile, HostDisk};
use super::format::{
    BlockHeader, CHAIN_BYTES, Chain, FILE_HEADER_BYTES, FileHeader, chain_next, chain_start, folded,
};
use super::index::Index;
use super::scan::{Bytes, Damage, End, file_header, scan};
use super::{ArchiveError, LOCK, file_path, journal_dir, list_files, list_journals};

/// What an archive's files are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// A file that is larger is followed by another one, bytes.
    pub file_bytes: u64,
    /// zstd level, 1 to 19.
    pub zstd_level: i32,
    /// Schema of the records.
    pub schema_hash: u64,
}

/// The one writer of an archive, of whatever journal.
#[derive(Debug)]
pub struct ArchiveLock {
    root: PathBuf,
    _file: File,
}

impl ArchiveLock {
    /// Takes the archive; makes it where there is none.
    pub fn take(root: &Path) -> Result<ArchiveLock, ArchiveError> {
        HostDisk.make_dir(root).map_err(ArchiveError::io("make the directory", root))?;
        let path = root.join(LOCK);
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(ArchiveError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(ArchiveLock { root: root.to_owned(), _file: file }),
            Err(TryLockError::WouldBlock) => Err(ArchiveError::Locked { path }),
            Err(TryLockError::Error(error)) => Err(ArchiveError::io("lock", path)(error)),
        }
    }

    /// Returns the archive's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// How a writer goes on.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// Identity of the journal.
    pub uuid: u128,
    /// The last sequence that was ever called durable, where that is known, and records after it are still
    /// in shared memory: blocks behind it are cut and written again, for a sync that failed may have lost
    /// them on the disk and shows them still.
    pub confirmed: Option<u64>,
}

/// What was done to the end of an archive at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Blocks of the last file that were proven.
    pub blocks: u64,
    /// Bytes of a write that was cut short, and where they are kept.
    pub torn: Option<(u64, PathBuf)>,
    /// Bytes of blocks that had never been confirmed; they are written again.
    pub unconfirmed: u64,
}

struct OpenFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    size: u64,
    index: Index,
}

/// A block that is on its way to the disk.
struct Pending {
    bytes: Vec<u8>,
    header: BlockHeader,
    chain: Chain,
}

/// Writes the archive of one journal.
pub struct ArchiveWriter {
    disk: Box<dyn Disk>,
    dir: PathBuf,
    uuid: u128,
    ordinal: u64,
    format: Format,
    codec: Codec,
    file: Option<OpenFile>,
    /// Sequence after the last durable record; nothing where the archive has none of this journal.
    next_seq: Option<u64>,
    chain: Chain,
    pending: Option<Pending>,
    failed: Option<(&'static str, PathBuf, String)>,
    files: u64,
    bytes_written: u64,
}

impl ArchiveWriter {
    /// Opens the archive of a journal where it ends, or begins one. The lock says that nobody else writes.
    pub fn open(
        lock: &ArchiveLock,
        disk: Box<dyn Disk>,
        resume: Resume,
        format: Format,
    ) -> Result<(ArchiveWriter, Recovered), ArchiveError> {
        let root = lock.root();
        let journals = list_journals(root).map_err(ArchiveError::io("list", root))?;
        let known = journals.iter().find(|journal| journal.uuid == resume.uuid);
        let ordinal = known.map_or_else(
            || journals.last().map_or(1, |last| last.ordinal + 1),
            |known| known.ordinal,
        );
        let mut writer = ArchiveWriter {
            dir: journal_dir(root, ordinal, resume.uuid),
            disk,
            uuid: resume.uuid,
            ordinal,
            codec: Codec::new(format.zstd_level)?,
            format,
            file: None,
            next_seq: None,
            chain: [0; CHAIN_BYTES],
            pending: None,
            failed: None,
            files: 0,
            bytes_written: 0,
        };
        let recovered = match known {
            Some(_) => writer.recover(resume.confirmed)?,
            None => Recovered::default(),
        };
        Ok((writer, recovered))
    }

    /// Returns the sequence after the last durable record; nothing where there is none yet.
    #[must_use]
    pub fn next_seq(&self) -> Option<u64> {
        self.next_seq
    }

    /// Returns the journal's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns how many files the journal has.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Returns how many bytes were written since the start.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Returns whether a block waits for the disk.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Makes records durable: as soon as this returns without error, they are.
    ///
    /// They are to follow what is durable, and there may be no block waiting. After
    /// [`ArchiveError::NoSpace`] they are kept: try [`ArchiveWriter::retry`].
    pub fn append(&mut self, records: &[Record]) -> Result<u64, ArchiveError> {
        self.check_failed()?;
        assert!(self.pending.is_none(), "a block is waiting: it comes first");
        let first = records.first().ok_or(super::codec::CodecError::Count(0))?;
        if let Some(expected) = self.next_seq
            && first.seq != expected
        {
            return Err(super::codec::CodecError::Sequence { found: first.seq, expected }.into());
        }
        if self.next_seq.is_none() {
            self.chain = chain_start(self.uuid, first.seq);
        }
        self.pending = Some(self.block(records)?);
        self.retry()
    }

    /// Tries again to write the block that waits, if one does.
    pub fn retry(&mut self) -> Result<u64, ArchiveError> {
        self.check_failed()?;
        let Some(pending) = self.pending.take() else { return Ok(self.next_seq.unwrap_or(0)) };
        let written = self.write(&pending);
        if written.is_err() {
            self.pending = Some(pending);
        }
        written
    }

    fn check_failed(&self) -> Result<(), ArchiveError> {
        match &self.failed {
            None => Ok(()),
            Some((op, path, error)) => {
                Err(ArchiveError::Failed { op, path: path.clone(), error: error.clone() })
            }
        }
    }

    fn block(&mut self, records: &[Record]) -> Result<Pending, ArchiveError> {
        let payload = self.codec.encode(self.uuid, records)?;
        let times = || records.iter().map(|record| record.engine_ts_ns).filter(|ns| *ns != 0);
        let header = BlockHeader {
            payload_bytes: payload.len() as u32,
            count: records.len() as u32,
            first_seq: records[0].seq,
            first_ns: times().next().unwrap_or(0),
            last_ns: times().max().unwrap_or(0),
            payload_crc: crc32c::crc32c(&payload),
            journal: folded(self.uuid),
        };
        let head = header.to_bytes();
        let chain = chain_next(&self.chain, &head, &payload);
        let mut bytes = Vec::with_capacity(header.block_bytes() as usize);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&chain);
        Ok(Pending { bytes, header, chain })
    }

    fn write(&mut self, pending: &Pending) -> Result<u64, ArchiveError> {
        if self.file.as_ref().is_some_and(|file| self.format.file_bytes <= file.size) {
            self.finish_file();
        }
        if self.file.is_none() {
            let made = self.begin_file(pending.header.first_seq);
            self.file = Some(made?);
        }
        let file = self.file.as_mut().expect("opened above");
        let path = file.path.clone();
        let done = write_all(&mut *file.file, &pending.bytes, file.size);
        if let Err(error) = done {
            return Err(self.wrong("write", &path, &error));
        }
        let file = self.file.as_mut().expect("opened above");
        if let Err(error) = file.file.sync() {
            return Err(self.fail("fdatasync", &path, &error));
        }
        let bytes = pending.bytes.len() as u64;
        file.size += bytes;
        file.index.push(pending.header.first_seq, pending.header.last_ns, bytes);
        self.bytes_written += bytes;
        self.chain = pending.chain;
        self.next_seq = Some(pending.header.next_seq());
        Ok(pending.header.next_seq())
    }

    /// Goes on to another file: the full one is durable already, its index need not be.
    fn finish_file(&mut self) {
        let Some(full) = self.file.take() else { return };
        if let Err(error) = full.index.save(&*self.disk, &full.path) {
            tracing::debug!(path = %full.path.display(), %error, "the index was not kept");
        }
    }

    fn begin_file(&mut self, first_seq: u64) -> Result<OpenFile, ArchiveError> {
        let root = self.dir.parent().unwrap_or(&self.dir).to_owned();
        let dir = self.dir.clone();
        let path = file_path(&dir, first_seq);
        let temp = path.with_extension("tda.new");
        if self.files == 0 {
            self.disk.make_dir(&dir).map_err(|error| self.wrong("make", &dir, &error))?;
            self.disk.sync_dir(&root).map_err(|error| self.fail("fsync", &root, &error))?;
        }
        // Left over from a try that found no room.
        let _ = self.disk.remove(&temp);
        let header = FileHeader {
            uuid: self.uuid,
            schema_hash: self.format.schema_hash,
            first_seq,
            ordinal: self.ordinal,
            created_ns: crate::source::now_ns(),
            chain: self.chain,
        };
        let mut file =
            self.disk.create(&temp).map_err(|error| self.wrong("create", &temp, &error))?;
        write_all(&mut *file, &header.to_bytes(), 0)
            .map_err(|error| self.wrong("write", &temp, &error))?;
        file.sync().map_err(|error| self.fail("fdatasync", &temp, &error))?;
        self.disk.rename(&temp, &path).map_err(|error| self.wrong("rename", &path, &error))?;
        self.files += 1;
        self.disk.sync_dir(&dir).map_err(|error| self.fail("fsync", &dir, &error))?;
        self.bytes_written += FILE_HEADER_BYTES as u64;
        let index = Index::new(self.uuid, first_seq);
        Ok(OpenFile { file, path, size: FILE_HEADER_BYTES as u64, index })
    }

    /// An error of anything but a sync: a full disk is waited for, anything else is the end.
    fn wrong(&mut self, op: &'static str, path: &Path, error: &io::Error) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ArchiveError::NoSpace { path: path.to_owned() }
            }
            _ => self.fail(op, path, error),
        }
    }

    fn fail(&mut self, op: &'static str, path: &Path, error: &io::Error) -> ArchiveError {
        let failed = (op, path.to_owned(), error.to_string());
        let (op, path, error) = self.failed.insert(failed).clone();
        ArchiveError::Failed { op, path, error }
    }

    /// Finds the end of what is there.
    fn recover(&mut self, confirmed: Option<u64>) -> Result<Recovered, ArchiveError> {
        let dir = self.dir.clone();
        remove_temporaries(&dir)?;
        let files = list_files(&dir).map_err(ArchiveError::io("list", &dir))?;
        self.files = files.len() as u64;
        let Some(&first_seq) = files.last() else { return Ok(Recovered::default()) };
        let path = file_path(&dir, first_seq);
        let io = |op: &'static str| ArchiveError::io(op, path.clone());
        let damaged = |at, what| ArchiveError::Damaged { path: path.clone(), at, what };
        let file = File::open(&path).map_err(io("open"))?;

        let mut index = Index::new(self.uuid, first_seq);
        // Chain, sequence and place before the first block that was never confirmed.
        let mut cut = None;
        let scanned = scan(&file, true, |block| {
            let unconfirmed = confirmed.is_some_and(|last| last < block.header.first_seq);
            if unconfirmed && cut.is_none() {
                cut = Some((block.chain, block.header.first_seq, block.at));
            }
            if cut.is_none() {
                let header = &block.header;
                index.push(header.first_seq, header.last_ns, header.block_bytes());
            }
            Ok(())
        });
        let scanned = scanned.map_err(io("read"))?.map_err(|what| damaged(0, what))?;
        let before = files.len().checked_sub(2).map(|at| file_path(&dir, files[at]));
        self.check_header(&scanned.header, first_seq, before.as_deref())
            .map_err(io("read"))?
            .map_err(|what| damaged(0, what))?;
        let mut recovered = Recovered { blocks: scanned.blocks, ..Recovered::default() };
        let size = file.size().map_err(io("stat"))?;
        match scanned.end {
            End::Damaged(what) => return Err(damaged(scanned.at, what)),
            End::Torn => {
                let aside = path.with_extension(format!("torn-{}", scanned.at));
                let mut bytes = vec![0; (size - scanned.at) as usize];
                file.fill(&mut bytes, scanned.at).map_err(io("read"))?;
                fs::write(&aside, &bytes).map_err(ArchiveError::io("keep aside", &aside))?;
                recovered.torn = Some((bytes.len() as u64, aside));
            }
            End::Clean => {}
        }
        let (chain, next_seq, at) = cut.unwrap_or((scanned.chain, scanned.next_seq, scanned.at));
        recovered.unconfirmed = scanned.at - at;
        let mut file = self.disk.open(&path).map_err(io("open"))?;
        if at < size {
            file.truncate(at).map_err(io("truncate"))?;
        }
        // What is there was read, not written, by us: it is durable only now.
        file.sync().map_err(io("fdatasync"))?;
        self.disk.sync_dir(&dir).map_err(ArchiveError::io("fsync", &dir))?;
        self.chain = chain;
        self.next_seq = Some(next_seq);
        self.file = Some(OpenFile { file, path, size: at, index });
        Ok(recovered)
    }

    /// Checks a file's header against its name, its journal and the file before.
    fn check_header(
        &self,
        header: &FileHeader,
        first_seq: u64,
        before: Option<&Path>,
    ) -> io::Result<Result<(), Damage>> {
        if header.first_seq != first_seq {
            return Ok(Err(Damage::Name));
        }
        if (header.uuid, header.schema_hash) != (self.uuid, self.format.schema_hash) {
            return Ok(Err(Damage::Foreign));
        }
        let Some(before) = before else { return Ok(Ok(())) };
        let ends = end_chain(&File::open(before)?)?;
        Ok((ends == Some(header.chain)).then_some(()).ok_or(Damage::Link))
    }
}

/// Returns the chain value at the end of a file: its last bytes, or its header's where it has no block.
pub fn end_chain<B: Bytes + ?Sized>(file: &B) -> io::Result<Option<Chain>> {
    let size = file.size()?;
    if size <= FILE_HEADER_BYTES as u64 {
        return Ok(file_header(file)?.ok().map(|header| header.chain));
    }
    let mut chain = [0; CHAIN_BYTES];
    file.fill(&mut chain, size - CHAIN_BYTES as u64)?;
    Ok(Some(chain))
}

fn write_all(file: &mut dyn DiskFile, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes files that never had their final name.
fn remove_temporaries(dir: &Path) -> Result<(), ArchiveError> {
    for entry in super::entries(dir).map_err(ArchiveError::io("list", dir))? {
        if entry.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(&entry).map_err(ArchiveError::io("remove", &entry))?;
        }
    }
    Ok(())
}
