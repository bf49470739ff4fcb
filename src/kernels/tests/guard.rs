//! Buffers between pages that nobody may touch.

use std::ops::{Deref, DerefMut};

/// Which end of the buffer the forbidden page touches; before the other one there may be some bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    Start,
    End,
}

/// A copy of a slice that ends where the next page is forbidden, or begins where the one before is: whoever reads or
/// writes past it dies. Where the system has no such pages, what lies around it is still checked for writes.
pub struct Guarded<T> {
    memory: Memory,
    data: *mut T,
    len: usize,
    /// Bytes before the data and after it.
    around: (usize, usize),
}

const FILL: u8 = 0xa5;

impl<T: Copy> Guarded<T> {
    /// The end of `x` is what is guarded.
    pub fn new(x: &[T]) -> Self {
        Self::at(x, Edge::End)
    }

    pub fn at(x: &[T], edge: Edge) -> Self {
        let n_bytes = size_of_val(x);
        let memory = Memory::new(n_bytes);
        let slack = memory.len - n_bytes;
        let around = match edge {
            Edge::Start => (0, slack),
            Edge::End => (slack, 0),
        };
        // SAFETY: the memory has `len` bytes that belong to this buffer alone, and the pages' size is a multiple of
        // any alignment, as is that of a slice of `T`.
        let data = unsafe {
            memory.start.write_bytes(FILL, memory.len);
            let data = memory.start.add(around.0).cast::<T>();
            assert!(data.is_aligned());
            data.copy_from_nonoverlapping(x.as_ptr(), x.len());
            data
        };
        Self {
            memory,
            data,
            len: x.len(),
            around,
        }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: written by `at`, which made it long enough.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let (before, after) = self.around;
        // SAFETY: all of it was written by `at`.
        let bytes = unsafe { std::slice::from_raw_parts(self.memory.start, self.memory.len) };
        let clean = bytes[..before].iter().all(|&x| x == FILL)
            && bytes[bytes.len() - after..].iter().all(|&x| x == FILL);
        if !std::thread::panicking() {
            assert!(clean, "written beside a buffer of {} elements", self.len);
        }
    }
}

/// Whole pages between two forbidden ones.
#[cfg(unix)]
struct Memory {
    start: *mut u8,
    len: usize,
    page: usize,
}

#[cfg(unix)]
impl Memory {
    fn new(n_bytes: usize) -> Self {
        // SAFETY: a number is asked for; and then new memory, of which the inner pages are opened.
        unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap();
            let len = n_bytes.next_multiple_of(page).max(page);
            let (flags, none) = (libc::MAP_PRIVATE | libc::MAP_ANON, libc::PROT_NONE);
            let map = libc::mmap(std::ptr::null_mut(), len + 2 * page, none, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            let start = map.cast::<u8>().add(page);
            let rc = libc::mprotect(start.cast(), len, libc::PROT_READ | libc::PROT_WRITE);
            assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
            Self { start, len, page }
        }
    }
}

#[cfg(unix)]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `new`, of this size.
        let rc = unsafe {
            let map = self.start.sub(self.page);
            libc::munmap(map.cast(), self.len + 2 * self.page)
        };
        assert_eq!(rc, 0);
    }
}

#[cfg(not(unix))]
struct Memory {
    start: *mut u8,
    len: usize,
    _bytes: Vec<u128>,
}

#[cfg(not(unix))]
impl Memory {
    fn new(n_bytes: usize) -> Self {
        let mut bytes = vec![0u128; n_bytes.div_ceil(16) + 4];
        Self {
            start: bytes.as_mut_ptr().cast(),
            len: 16 * bytes.len(),
            _bytes: bytes,
        }
    }
}

/// The guard itself: a child process that reads one byte too many must die.
#[cfg(unix)]
#[test]
fn the_guard_bites() {
    for (edge, at) in [(Edge::End, 3isize), (Edge::Start, -1)] {
        let x = Guarded::at(&[1u8, 2, 3], edge);
        // SAFETY: the child reads a byte, where it is meant to die, or leaves by `_exit`.
        let status = unsafe {
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                x.as_ptr().offset(at).read_volatile();
                libc::_exit(0);
            }
            let mut status = -1;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            status
        };
        assert!(libc::WIFSIGNALED(status), "{status}");
    }
}
