//! Conversations as files: messages, and the keys and values of what the model has read of them.
//!
//! A file is, in this order, all integers little-endian:
//!
//! - 16 bytes [`MAGIC`], u32 [`VERSION`] and u32, the bytes of the header;
//! - the header, a JSON object: `model` (SHA-256 of the GGUF, all parts one after the other), `messages` (as given),
//!   `tokens` and `kv_bytes` (how many follow), `kv_type`, `regime` and `first` (what they are, see [`Extent`]);
//! - u32 token ids, and the pages of keys and values in the engine's layout;
//! - SHA-256 of all before.
//!
//! Nothing in a file is believed before it was compared with the file's length and with the model.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::kept::Pin;
use super::model::Model;
use super::prompt::Prompt;
use crate::engine::{Extent, Interrupt, Sequence};
use crate::error::{Error, Result};
use crate::model::Regime;

const MAGIC: &[u8; 16] = b"candlewick chat\n";

/// Of the file and of the pages' layout: a change of either is a new version.
const VERSION: u32 = 1;

const FIXED: usize = MAGIC.len() + 8;
const HASH: usize = 32;

/// More than the messages of any context take.
const MAX_HEADER: usize = 256 << 20;

/// Bytes hashed between two looks for a reason to stop.
const STEP: usize = 4 << 20;

/// Token ids, and the sequence that has run them.
type Restored = (Vec<u32>, Box<dyn Sequence>);

impl Model {
    /// Writes a conversation to `path`, which is replaced when all is written: `messages` as they are, and the keys and
    /// values that are kept of `prompt`, which is those messages as the model reads them.
    pub fn save_session(
        &self,
        path: &Path,
        messages: &str,
        prompt: Option<Prompt>,
        interrupt: Interrupt,
    ) -> Result<()> {
        self.check_process()?;
        // Messages that no answer can follow yet have nothing that could be kept.
        let ids = prompt.and_then(|p| p.encode(self).ok()).unwrap_or_default();
        let (sequence, n) = match self.kept.resume(&ids) {
            Some((sequence, n)) => (Some(sequence), n),
            None => (None, 0),
        };
        let mut header = json!({
            "model": self.gguf.sha256(interrupt)?,
            "messages": messages,
            "tokens": 0,
            "kv_bytes": 0,
        });
        let pages = sequence.as_deref().and_then(Sequence::kv);
        if let Some((extent, pages)) = &pages {
            header["tokens"] = n.into();
            header["kv_bytes"] = pages.iter().map(|p| p.len()).sum::<usize>().into();
            header["kv_type"] = self.engine.kv_type().name().into();
            header["regime"] = extent.regime.name().into();
            header["first"] = extent.first.into();
        }
        let header = header.to_string();
        if header.len() > MAX_HEADER {
            return Err(Error::InvalidRequest(format!(
                "the messages take {} bytes, and a saved conversation holds {MAX_HEADER}",
                header.len()
            )));
        }
        let mut stopped = None;
        let replaced = replace(path, &mut |file| {
            file.write_all(MAGIC)?;
            file.write_all(&VERSION.to_le_bytes())?;
            file.write_all(&(header.len() as u32).to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            let Some((extent, pages)) = &pages else {
                return Ok(());
            };
            for id in &ids[..n] {
                file.write_all(&id.to_le_bytes())?;
            }
            for (i, page) in pages.iter().enumerate() {
                interrupt().map_err(|error| {
                    stopped = Some(error);
                    std::io::Error::other("stopped")
                })?;
                if i + 1 < pages.len() {
                    file.write_all(page)?;
                } else {
                    // It may hold what was taken back.
                    let mut page = page.to_vec();
                    self.engine.blank(&mut page, n - extent.first);
                    file.write_all(&page)?;
                }
            }
            Ok(())
        });
        replaced.map_err(|error| stopped.unwrap_or(error))
    }

    /// Reads what [`Self::save_session`] wrote: the messages, and something that holds on to the keys and values, which
    /// are kept from here on like any others.
    ///
    /// # Errors
    /// `Session` for a file that is damaged, or of another model, version or `kv_type`.
    pub fn load_session(&self, path: &Path, interrupt: Interrupt) -> Result<(String, Pin)> {
        self.check_process()?;
        // Before opening: opening a pipe waits for its other end.
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
        if !meta.is_file() {
            return Err(Error::Session(format!(
                "`{}` is not a regular file, expected a conversation that Chat.save wrote",
                path.display()
            )));
        }
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        let length = file.metadata().map_err(|e| Error::io(path, &e))?.len();
        let mut file = SessionFile {
            file: BufReader::with_capacity(1 << 16, file),
            left: length,
            path,
        };
        file.verify(interrupt)?;
        let header = file.header()?;
        let expected = self.gguf.sha256(interrupt)?;
        if header.model != expected {
            return Err(file.refused(&format!(
                "was saved with another model (SHA-256 {}, and this one's is {expected})",
                header.model
            )));
        }
        let pin = self.pin();
        if header.n_tokens > 0 {
            let kv_type = self.engine.kv_type().name();
            if header.kv_type != kv_type {
                return Err(file.refused(&format!(
                    "holds keys and values of kv_type {:?}, and this generator's are {kv_type:?}",
                    header.kv_type
                )));
            }
            if let Some((ids, sequence)) = self.read_sequence(&mut file, &header, interrupt)? {
                self.kept.insert(ids, sequence, Some(&pin));
            }
        }
        Ok((header.messages, pin))
    }

    /// `None` where this generator's context or engine has no place for it.
    fn read_sequence(
        &self,
        file: &mut SessionFile,
        header: &Header,
        interrupt: Interrupt,
    ) -> Result<Option<Restored>> {
        let says = (header.n_tokens as u64)
            .checked_mul(4)
            .and_then(|ids| ids.checked_add(header.kv_bytes)?.checked_add(HASH as u64));
        let stored = self.engine.stored_bytes(header.n_tokens, &header.extent);
        if says != Some(file.left) || stored.is_some_and(|bytes| bytes != header.kv_bytes) {
            return Err(file.damaged("its length is not what it says"));
        }
        if stored.is_none() {
            return Ok(None);
        }
        let mut ids = vec![0; 4 * header.n_tokens];
        file.read(&mut ids)?;
        let ids: Vec<u32> = ids
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect();
        if ids.iter().any(|&id| id as usize >= self.config.n_vocab) {
            return Err(file.damaged("it holds token ids that the model does not have"));
        }
        let mut read = |page: &mut [u8]| {
            interrupt()?;
            file.read(page)
        };
        let sequence = self.engine.restore(&ids, &header.extent, &mut read)?;
        Ok(Some((ids, sequence)))
    }
}

/// What a file says of itself.
struct Header {
    model: String,
    messages: String,
    n_tokens: usize,
    kv_bytes: u64,
    kv_type: String,
    extent: Extent,
}

impl Header {
    fn parse(json: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(json).ok()?;
        let text = |key: &str| json.get(key)?.as_str().map(str::to_owned);
        let number = |key: &str| json.get(key)?.as_u64();
        let n_tokens = usize::try_from(number("tokens")?).ok()?;
        // Without tokens there is nothing that these would be about.
        let or_nothing = n_tokens == 0;
        Some(Self {
            model: text("model")?,
            messages: text("messages")?,
            n_tokens,
            kv_bytes: number("kv_bytes")?,
            kv_type: text("kv_type").or(or_nothing.then(String::new))?,
            extent: Extent {
                regime: match text("regime").as_deref() {
                    Some("short") => Regime::Short,
                    Some("long") => Regime::Long,
                    None if or_nothing => Regime::Short,
                    _ => return None,
                },
                first: usize::try_from(number("first").or(or_nothing.then_some(0))?).ok()?,
            },
        })
    }
}

/// A file that is read from its beginning, and no further than its end.
struct SessionFile<'a> {
    file: BufReader<File>,
    left: u64,
    path: &'a Path,
}

impl SessionFile<'_> {
    fn refused(&self, why: &str) -> Error {
        Error::Session(format!(
            "`{}` {why}: it can only be loaded with what it was saved with",
            self.path.display()
        ))
    }

    fn damaged(&self, how: &str) -> Error {
        Error::Session(format!(
            "`{}` is damaged ({how}): save the conversation again, or take another copy of the file",
            self.path.display()
        ))
    }

    fn read(&mut self, to: &mut [u8]) -> Result<()> {
        if to.len() as u64 > self.left {
            return Err(self.damaged("it ends too early"));
        }
        self.left -= to.len() as u64;
        self.file
            .read_exact(to)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
                _ => Error::io(self.path, &error),
            })
    }

    /// Magic and version, and that the rest is as it was written; then it is at its beginning again.
    fn verify(&mut self, interrupt: Interrupt) -> Result<()> {
        let length = self.left;
        let mut fixed = [0; FIXED];
        if length >= FIXED as u64 {
            self.read(&mut fixed)?;
        }
        if !fixed.starts_with(MAGIC) {
            return Err(Error::Session(format!(
                "`{}` is not a conversation that Chat.save wrote",
                self.path.display()
            )));
        }
        let version = u32::from_le_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]);
        if version != VERSION {
            return Err(Error::Session(format!(
                "`{}` has format version {version}, and this version of candlewick reads {VERSION}: load it with the \
                 version that saved it",
                self.path.display()
            )));
        }
        let mut hash = Sha256::new();
        hash.update(fixed);
        let mut buffer = vec![0; STEP];
        while self.left > HASH as u64 {
            interrupt()?;
            let n = (self.left - HASH as u64).min(STEP as u64) as usize;
            self.read(&mut buffer[..n])?;
            hash.update(&buffer[..n]);
        }
        let mut written = [0; HASH];
        self.read(&mut written)?;
        if hash.finalize()[..] != written {
            return Err(self.damaged("its checksum is not that of its contents"));
        }
        self.file.rewind().map_err(|e| Error::io(self.path, &e))?;
        self.left = length;
        Ok(())
    }

    fn header(&mut self) -> Result<Header> {
        let mut fixed = [0; FIXED];
        self.read(&mut fixed)?;
        let n = u32::from_le_bytes([fixed[20], fixed[21], fixed[22], fixed[23]]) as usize;
        if n > MAX_HEADER || n as u64 > self.left {
            return Err(self.damaged("its header is longer than it is"));
        }
        let mut json = vec![0; n];
        self.read(&mut json)?;
        Header::parse(&json).ok_or_else(|| self.damaged("its header is not what Chat.save writes"))
    }
}

/// A file as it is written, hashed on the way.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Puts a file that `write` fills, and its hash, in the place of `path` when it is complete: nobody sees half of one.
fn replace(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::InvalidRequest(format!(
            "`{}` is not the name of a file",
            path.display()
        )));
    };
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(
        ".{}-{}.part",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    let part = path.with_file_name(part);
    let mut complete = || {
        let mut file = Hashed {
            file: BufWriter::new(File::create_new(&part)?),
            hash: Sha256::new(),
        };
        write(&mut file)?;
        let hash = file.hash.finalize();
        file.file.write_all(&hash)?;
        file.file.flush()?;
        file.file.get_ref().sync_all()?;
        std::fs::rename(&part, path)
    };
    complete().map_err(|error| {
        let _ = std::fs::remove_file(&part);
        Error::io(path, &error)
    })
}
