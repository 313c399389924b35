//! The bytes of a file: plain, gzip, or one entry of a zip archive.
//!
//! Invariant: read as a stream, in bounded memory, whatever a file claims of itself; damage to what is compressed
//! is an error (both forms have a checksum), never a shorter file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder};

use super::error::{DataError, Place, shown};

/// Longest line that is read.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Longest line that is a message of a venue: a whole book.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Entries of a zip archive that are looked at.
const ENTRIES_MAX: usize = 1_000;

/// How a file is packed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// Not at all.
    Plain,
    /// Gzip.
    Gzip,
    /// A zip archive, also a npz.
    Zip,
    /// A bare array of numpy.
    Npy,
}

/// A stream of bytes.
pub type Stream = Box<dyn BufRead>;

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |error| {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => "name a file that is there",
            io::ErrorKind::PermissionDenied => "make it readable",
            _ => "is the file whole? fetch or unpack it again",
        };
        DataError::file(&path, format!("cannot be read: {error}"), fix)
    }
}

/// Opens a file and says how it is packed.
pub fn open(path: &Path) -> Result<(File, Packed), DataError> {
    let mut file = File::open(path).map_err(unreadable(path))?;
    let is_dir = file.metadata().map_err(unreadable(path))?.is_dir();
    if is_dir {
        return Err(DataError::file(path, "is a directory", "name the files in it"));
    }
    let mut head = Vec::new();
    (&mut file).take(8).read_to_end(&mut head).map_err(unreadable(path))?;
    file.seek(SeekFrom::Start(0)).map_err(unreadable(path))?;
    let packed = match head.as_slice() {
        [0x1f, 0x8b, ..] => Packed::Gzip,
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Packed::Zip,
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Packed::Npy,
        _ => Packed::Plain,
    };
    Ok((file, packed))
}

/// Returns the names of a zip archive's entries.
pub fn entries(path: &Path) -> Result<Vec<String>, DataError> {
    let (file, _) = open(path)?;
    let archive = zip::ZipArchive::new(file).map_err(|error| bad_zip(path, &error))?;
    Ok(archive.file_names().take(ENTRIES_MAX).map(str::to_owned).collect())
}

fn bad_zip(path: &Path, error: &zip::result::ZipError) -> DataError {
    let found = format!("is no whole zip archive: {error}");
    DataError::file(path, found, "fetch or make it again")
}

/// Returns a file's text or array, unpacked; of a zip archive the entry whose name `wanted` accepts.
pub fn stream(path: &Path, wanted: fn(&str) -> bool) -> Result<Stream, DataError> {
    let (file, packed) = open(path)?;
    let plain = |file| BufReader::with_capacity(BUFFER_BYTES, file);
    Ok(match packed {
        Packed::Plain | Packed::Npy => Box::new(plain(file)),
        Packed::Gzip => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(plain(file))))
        }
        Packed::Zip => Box::new(BufReader::with_capacity(BUFFER_BYTES, entry(path, file, wanted)?)),
    })
}

/// Opens one entry of an archive.
fn entry(path: &Path, file: File, wanted: fn(&str) -> bool) -> Result<Entry, DataError> {
    let mut archive = zip::ZipArchive::new(file).map_err(|error| bad_zip(path, &error))?;
    let names: Vec<String> = archive.file_names().take(ENTRIES_MAX).map(str::to_owned).collect();
    let found: Vec<&String> = names.iter().filter(|name| wanted(name)).collect();
    let [name] = found.as_slice() else {
        let text = names.iter().take(5).map(|name| shown(name.as_bytes())).collect::<Vec<_>>();
        let found = format!("holds {} that can be meant ({})", found.len(), text.join(", "));
        return Err(DataError::file(path, found, "make an archive with exactly one"));
    };
    let (start, packed_bytes, bytes, crc, method) = {
        let entry = archive.by_name(name).map_err(|error| bad_zip(path, &error))?;
        let method = entry.compression();
        (entry.data_start(), entry.compressed_size(), entry.size(), entry.crc32(), method)
    };
    let mut file = archive.into_inner();
    file.seek(SeekFrom::Start(start)).map_err(unreadable(path))?;
    let packed = BufReader::with_capacity(BUFFER_BYTES, file.take(packed_bytes));
    let inner: Box<dyn Read> = match method {
        zip::CompressionMethod::Stored => Box::new(packed),
        zip::CompressionMethod::Deflated => Box::new(DeflateDecoder::new(packed)),
        other => {
            let found = format!("is compressed with {other}");
            return Err(DataError::file(path, found, "only stored and deflated entries are read"));
        }
    };
    Ok(Entry { inner, crc: Crc::new(), bytes, crc_wanted: crc, is_checked: false })
}

/// An entry of a zip archive, with its checksum.
struct Entry {
    inner: Box<dyn Read>,
    crc: Crc,
    bytes: u64,
    crc_wanted: u32,
    is_checked: bool,
}

impl Read for Entry {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.crc.update(&into[..count]);
        self.bytes = self
            .bytes
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("the archive's entry is longer than it says"))?;
        if count == 0 && !into.is_empty() && !self.is_checked {
            if self.bytes != 0 || self.crc.sum() != self.crc_wanted {
                return Err(io::Error::other("the archive's entry is cut short or damaged"));
            }
            self.is_checked = true;
        }
        Ok(count)
    }
}

/// Lines of a text, counted.
pub struct Lines {
    path: PathBuf,
    stream: Stream,
    buffer: Vec<u8>,
    line: u64,
    bytes_max: usize,
}

impl Lines {
    /// Opens a file's text.
    pub fn open(path: &Path, wanted: fn(&str) -> bool) -> Result<Lines, DataError> {
        let stream = stream(path, wanted)?;
        let (buffer, bytes_max) = (Vec::new(), LINE_BYTES_MAX);
        Ok(Lines { path: path.to_owned(), stream, buffer, line: 0, bytes_max })
    }

    /// Opens a text whose lines are whole messages of venues.
    pub fn open_long(path: &Path) -> Result<Lines, DataError> {
        Ok(Lines { bytes_max: MESSAGE_BYTES_MAX, ..Lines::open(path, |_| true)? })
    }

    /// Returns the number of the line that was read last, from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the place of a line.
    #[must_use]
    pub fn place(&self, line: u64) -> Place {
        Place { path: self.path.clone(), line, is_row: false }
    }

    /// Returns an error of the line that was read last.
    pub fn error(&self, found: impl Into<String>, fix: impl Into<String>) -> DataError {
        DataError::Line { place: self.place(self.line), found: found.into(), fix: fix.into() }
    }

    /// Reads the next line; [`Lines::text`] is it, without its end. Empty lines at the end of a file are none.
    pub fn advance(&mut self) -> Result<bool, DataError> {
        self.buffer.clear();
        self.line += 1;
        let mut limited = (&mut self.stream).take(self.bytes_max as u64);
        let count = limited.read_until(b'\n', &mut self.buffer);
        if let Err(error) = count {
            let found = format!("cannot be read: {error}");
            return Err(self.error(found, "is the file whole? fetch or unpack it again"));
        }
        if self.buffer.is_empty() {
            self.line -= 1;
            return Ok(false);
        }
        if self.buffer.pop_if(|byte| *byte == b'\n').is_some() {
            self.buffer.pop_if(|byte| *byte == b'\r');
        } else if self.buffer.len() == self.bytes_max {
            let found = format!("is longer than {} bytes", self.bytes_max);
            return Err(self.error(found, "is it a text of lines at all?"));
        }
        Ok(true)
    }

    /// Returns the line that was read last.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.buffer
    }
}

impl Lines {
    /// Takes the line that was read last out, to be given back with [`Lines::put_text`].
    #[must_use]
    pub fn take_text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Gives back what was taken: its memory is used again.
    pub fn put_text(&mut self, text: Vec<u8>) {
        self.buffer = text;
    }
}

/// Splits a line at its commas into exactly `N` fields.
#[must_use]
pub fn fields<const N: usize>(line: &[u8]) -> Option<[&[u8]; N]> {
    let mut fields = [&line[..0]; N];
    let mut parts = line.split(|byte| *byte == b',');
    for field in &mut fields {
        *field = parts.next()?;
    }
    parts.next().is_none().then_some(fields)
}

/// Reads a whole number without a sign.
#[must_use]
pub fn whole(text: &[u8]) -> Option<i64> {
    if text.is_empty() || 19 < text.len() {
        return None;
    }
    text.iter().try_fold(0i64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        let is_digit = digit <= 9;
        is_digit.then_some(())?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}
