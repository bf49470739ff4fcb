//! Keys and values of one sequence, in pages that come with use and, with a sliding window, go when no later
//! query can see them.

use memmap2::MmapMut;

use super::out_of_memory;
use crate::error::{Error, Result};
use crate::kernels::{Heads, PAGE, Pages};
use crate::memory;
use crate::model::Config;

/// Tokens that a sequence can always go back, whatever the window.
const REWIND: usize = 16;

pub(super) struct Cache {
    // All layers of 64 positions each; the first holds position `first`.
    pages: Vec<MmapMut>,
    first: usize,
    end: usize,
    n_layers: usize,
    n_ctx: usize,
    heads: Heads,
    // A layer's part of each page, made anew for each layer
    parts: Vec<*mut u8>,
}

// SAFETY: the pointers go into `pages`, which the same value owns.
unsafe impl Send for Cache {}

/// One layer's part of all pages.
pub(super) struct LayerPages<'a> {
    parts: &'a [*mut u8],
    first: usize,
}

impl LayerPages<'_> {
    pub(super) fn pages(&mut self) -> Pages<'_> {
        // SAFETY: the parts lie in the pages of the cache that this borrows mutably, one layer after the other.
        unsafe { Pages::new(self.parts, self.first) }
    }
}

impl Cache {
    pub(super) fn new(config: &Config, heads: Heads, n_ctx: usize) -> Self {
        Self {
            pages: Vec::new(),
            first: 0,
            end: 0,
            n_layers: config.n_layers,
            n_ctx,
            heads,
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

    /// Makes room for `n` more tokens.
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
        let bytes = self.page_bytes();
        let more = wanted.saturating_sub(self.pages.len());
        if more > 0 {
            let needed = (more * bytes) as u64;
            if let Some(available) = memory::available().filter(|&a| needed > a) {
                return Err(out_of_memory(
                    &format!("keys and values of {n} more tokens"),
                    needed,
                    available,
                    "use a smaller n_ctx, kv_type=\"q8_0\", or fewer streams at once",
                ));
            }
        }
        for _ in 0..more {
            let page = MmapMut::map_anon(bytes)
                .map_err(|e| Error::Engine(format!("memory for keys and values: {e}")))?;
            #[cfg(target_os = "linux")]
            if bytes >= 4 << 20 {
                // Refused where the kernel is built without them: then the pages are small.
                let _ = page.advise(memmap2::Advice::HugePage);
            }
            self.pages.push(page);
        }
        Ok(())
    }

    /// Frees the pages that the next query, at `end`, and all later ones cannot see, nor those a few tokens before.
    fn forget_unseen(&mut self) {
        let first_seen = (self.end + 1).saturating_sub(self.heads.window.saturating_add(REWIND));
        let n = ((first_seen - self.first.min(first_seen)) / PAGE).min(self.pages.len());
        self.pages.drain(..n);
        self.first += n * PAGE;
    }

    /// One layer's part of the pages.
    pub(super) fn layer(&mut self, i: usize) -> LayerPages<'_> {
        let at = i * self.heads.page_bytes();
        self.parts.clear();
        self.parts
            .extend(self.pages.iter_mut().map(|page| page[at..].as_mut_ptr()));
        LayerPages {
            parts: &self.parts,
            first: self.first,
        }
    }

    /// Counts `n` tokens in.
    pub(super) fn advance(&mut self, n: usize) {
        self.end += n;
    }

    /// Forgets the tokens from `n` on; false where the window has already let go what the rest needs.
    pub(super) fn truncate(&mut self, n: usize) -> bool {
        let needed = (n + 1).saturating_sub(self.heads.window);
        if n > self.end || needed < self.first {
            return false;
        }
        self.end = n;
        self.pages.truncate((n - self.first).div_ceil(PAGE));
        true
    }
}
