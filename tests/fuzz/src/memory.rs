//! An allocator that counts, and ends the program where an input makes a target hold more than it should: resident memory,
//! which the engine watches, does not show what was asked for and never touched.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work`, which may hold at most so many bytes beyond what is held before it.
pub(crate) fn bounded(limit_bytes: usize, work: impl FnOnce()) {
    LIMIT.store(HELD.load(Ordering::Relaxed).saturating_add(limit_bytes), Ordering::Relaxed);
    work();
    lift();
}

/// From here on nothing is bounded: what tells of a panic may take what it needs.
pub(crate) fn lift() {
    LIMIT.store(usize::MAX, Ordering::Relaxed);
}

fn take(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
    if held > LIMIT.load(Ordering::Relaxed) {
        lift();
        eprintln!("the target holds {held} bytes with an allocation of {bytes}");
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator as it came; the counters beside it own nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        if new_bytes > layout.size() {
            take(new_bytes - layout.size());
        } else {
            HELD.fetch_sub(layout.size() - new_bytes, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(place, layout, new_bytes) }
    }
}
