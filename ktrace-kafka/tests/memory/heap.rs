//! An allocator that counts what this thread does. Tests of one binary run in threads of their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[derive(Clone, Copy, Debug, Default)]
pub struct Heap {
    /// Allocations and reallocations since the thread's beginning.
    pub allocations: u64,
    /// Bytes that are allocated and not freed; negative where another thread's were freed.
    pub bytes: i64,
    /// The most that `bytes` was since [`reset_peak`].
    pub peak: i64,
}

thread_local! {
    static HEAP: Cell<Heap> = const { Cell::new(Heap { allocations: 0, bytes: 0, peak: 0 }) };
}

/// What this thread has done so far.
pub fn heap() -> Heap {
    HEAP.get()
}

pub fn reset_peak() {
    HEAP.set(Heap { peak: HEAP.get().bytes, ..HEAP.get() });
}

fn count(allocations: u64, bytes: i64) {
    let heap = HEAP.get();
    let now = heap.bytes + bytes;
    HEAP.set(Heap { allocations: heap.allocations + allocations, bytes: now, peak: heap.peak.max(now) });
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all is done by the system's allocator; the counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The pages of large ones are moved (mremap), so that the old and the new are never there
        // at once.
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
