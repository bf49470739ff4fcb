//! Keys and values of one sequence, in pages that come with use and, with a sliding window, go when no later
//! query can see them.
//!
//! Sequences that begin alike share their pages. A page that somebody else has too is copied before it is written
//! to, which only ever concerns the last one: what is behind a sequence does not change.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;

use super::out_of_memory;
use crate::engine::CHUNK;
use crate::error::{Error, Result};
use crate::kernels::{Heads, PAGE, Pages};
use crate::memory;
use crate::model::Config;

/// Tokens that a sequence can always go back, whatever the window.
const REWIND: usize = 16;

/// Bytes that are never taken: without memory for small things the process would end.
const RESERVE: u64 = 2 << 20;

/// What all pages of an engine take, and may take.
///
/// Asking what is available whenever pages are wanted is not enough: memory that was asked for is only taken when it is
/// written to.
pub(super) struct Memory {
    used: AtomicU64,
    limit: u64,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            used: AtomicU64::new(0),
            limit: memory::available().map_or(u64::MAX, room),
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn available(&self) -> u64 {
        let left = self.limit.saturating_sub(self.used());
        memory::available().map_or(left, |bytes| left.min(bytes.saturating_sub(RESERVE)))
    }
}

/// All layers of 64 positions.
struct Page {
    map: MmapMut,
    memory: Arc<Memory>,
}

impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let bytes = self.map.len() as u64;
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What keys and values may take of the bytes that are available before there are any: a tenth is left to everybody else.
pub fn room(available: u64) -> u64 {
    available / 10 * 9
}

/// The most pages that a cache of `n_tokens` has at any time: a step's tokens come before those that they no longer
/// see go, a whole page at a time.
pub(super) fn most_pages(n_tokens: usize, window: usize) -> usize {
    let held = window.saturating_add(REWIND + PAGE - 2 + CHUNK);
    n_tokens.min(held).div_ceil(PAGE)
}

pub(super) struct Cache {
    // The first holds position `first`.
    pages: Vec<Arc<Page>>,
    memory: Arc<Memory>,
    first: usize,
    end: usize,
    n_layers: usize,
    n_ctx: usize,
    heads: Heads,
    // Where each page begins, and a layer's part of it, made anew for each step and each layer
    starts: Vec<*mut u8>,
    parts: Vec<*mut u8>,
}

// SAFETY: the pointers go into `pages`, which the same value owns or, those that are only read, has a part in.
unsafe impl Send for Cache {}

/// One layer's part of all pages.
pub(super) struct LayerPages<'a> {
    parts: &'a [*mut u8],
    first: usize,
}

impl LayerPages<'_> {
    pub(super) fn pages(&mut self) -> Pages<'_> {
        // SAFETY: the parts lie in the pages of the cache that this borrows mutably, one layer after the other. Those
        // that hold the positions of this step belong to it alone (`reserve`), and nobody writes to the others.
        unsafe { Pages::new(self.parts, self.first) }
    }
}

impl Cache {
    pub(super) fn new(config: &Config, heads: Heads, n_ctx: usize, memory: Arc<Memory>) -> Self {
        Self {
            pages: Vec::new(),
            memory,
            first: 0,
            end: 0,
            n_layers: config.n_layers,
            n_ctx,
            heads,
            starts: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Tokens so far: the next one's position.
    pub(super) fn n_past(&self) -> usize {
        self.end
    }

    fn page_bytes(&self) -> usize {
        self.n_layers * self.heads.page_bytes()
    }

    /// Makes room for `n` more tokens, in pages that nobody else has.
    pub(super) fn reserve(&mut self, n: usize) -> Result<()> {
        if self.end + n > self.n_ctx {
            return Err(Error::Engine(format!(
                "{} tokens in a context of {}",
                self.end + n,
                self.n_ctx
            )));
        }
        self.forget_unseen();
        let wanted = (self.end + n - self.first).div_ceil(PAGE);
        let more = wanted.saturating_sub(self.pages.len());
        // Only what others may have taken a part in counts: nobody can while this is borrowed.
        let written = (self.end - self.first) / PAGE;
        let is_shared = |page: &mut Arc<Page>| Arc::get_mut(page).is_none();
        let shared: Vec<usize> = (written..self.pages.len())
            .filter(|&i| is_shared(&mut self.pages[i]))
            .collect();
        self.check_memory(n, more + shared.len())?;
        for i in shared {
            let mut page = self.fresh_page()?;
            page.copy_from_slice(&self.pages[i]);
            self.pages[i] = Arc::new(page);
        }
        for _ in 0..more {
            let page = self.fresh_page()?;
            self.pages.push(Arc::new(page));
        }
        self.starts.clear();
        for page in &mut self.pages {
            self.starts.push(match Arc::get_mut(page) {
                Some(page) => page.as_mut_ptr(),
                None => page.as_ptr().cast_mut(),
            });
        }
        Ok(())
    }

    fn check_memory(&self, n: usize, n_pages: usize) -> Result<()> {
        if n_pages == 0 {
            return Ok(());
        }
        let needed = (n_pages * self.page_bytes()) as u64;
        let available = self.memory.available();
        if needed > available {
            return Err(out_of_memory(
                &format!("keys and values of {n} more tokens"),
                needed,
                available,
                "use a smaller n_ctx, kv_type=\"q8_0\", or fewer streams at once",
            ));
        }
        Ok(())
    }

    fn fresh_page(&self) -> Result<Page> {
        let bytes = self.page_bytes();
        let page = MmapMut::map_anon(bytes)
            .map_err(|e| Error::Engine(format!("memory for keys and values: {e}")))?;
        #[cfg(target_os = "linux")]
        if bytes >= 4 << 20 {
            // Refused where the kernel is built without them: then the pages are small.
            let _ = page.advise(memmap2::Advice::HugePage);
        }
        self.memory.used.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(Page {
            map: page,
            memory: self.memory.clone(),
        })
    }

    /// Frees the pages that the next query, at `end`, and all later ones cannot see, nor those a few tokens before.
    fn forget_unseen(&mut self) {
        let first_seen = (self.end + 1).saturating_sub(self.heads.window.saturating_add(REWIND));
        let n = ((first_seen - self.first.min(first_seen)) / PAGE).min(self.pages.len());
        self.pages.drain(..n);
        self.first += n * PAGE;
    }

    /// One layer's part of the pages, for a step that `reserve` made room for.
    pub(super) fn layer(&mut self, i: usize) -> LayerPages<'_> {
        let at = i * self.heads.page_bytes();
        assert!(self.starts.len() == self.pages.len() && at < self.page_bytes());
        self.parts.clear();
        self.parts
            .extend(self.starts.iter().map(|start| start.wrapping_add(at)));
        LayerPages {
            parts: &self.parts,
            first: self.first,
        }
    }

    /// Counts `n` tokens in.
    pub(super) fn advance(&mut self, n: usize) {
        self.end += n;
    }

    /// Whether the first `n` tokens can be gone on from: the window may have let go what that needs.
    fn holds(&self, n: usize) -> bool {
        n <= self.end && self.sees_all(n, self.first)
    }

    /// Whether the query after `n` tokens sees nothing before position `first`.
    fn sees_all(&self, n: usize, first: usize) -> bool {
        (n + 1).saturating_sub(self.heads.window) >= first
    }

    /// Forgets the tokens from `n` on; false where the window has already let go what the rest needs.
    pub(super) fn truncate(&mut self, n: usize) -> bool {
        if !self.holds(n) {
            return false;
        }
        self.end = n;
        self.pages.truncate((n - self.first).div_ceil(PAGE));
        self.starts.clear();
        true
    }

    /// Another cache with the first `n` tokens, in the same pages.
    pub(super) fn fork(&self, n: usize) -> Option<Self> {
        let n_pages = n.saturating_sub(self.first).div_ceil(PAGE);
        self.holds(n).then(|| Self {
            pages: self.pages[..n_pages].to_vec(),
            memory: self.memory.clone(),
            end: n,
            starts: Vec::new(),
            parts: Vec::new(),
            ..*self
        })
    }

    /// Position of the first token that is still there, and the pages from there on.
    pub(super) fn pages(&self) -> (usize, impl Iterator<Item = &[u8]>) {
        (self.first, self.pages.iter().map(|page| &page[..]))
    }

    /// Bytes of the pages of a cache of `n` tokens whose first page begins at position `first`; `None` where there can
    /// be no such cache.
    pub(super) fn stored_bytes(&self, n: usize, first: usize) -> Option<u64> {
        let fits = first.is_multiple_of(PAGE) && first < n && n <= self.n_ctx;
        (fits && self.sees_all(n, first))
            .then(|| (n - first).div_ceil(PAGE) as u64 * self.page_bytes() as u64)
    }

    /// Fills this cache, which is empty, with `n` tokens whose first page begins at `first`; `read` gives the pages'
    /// bytes in order. `n` and `first` are such that [`Self::stored_bytes`] has an answer.
    pub(super) fn restore(
        &mut self,
        n: usize,
        first: usize,
        read: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let n_pages = (n - first).div_ceil(PAGE);
        self.check_memory(n, n_pages)?;
        for _ in 0..n_pages {
            let mut page = self.fresh_page()?;
            read(&mut page)?;
            self.pages.push(Arc::new(page));
        }
        self.first = first;
        self.end = n;
        Ok(())
    }
}
