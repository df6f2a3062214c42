//! The allocator, which overwrites what may have held payload before its memory serves another
//! purpose.
//!
//! Record values and secrets of clients pass through byte buffers: segments that came early, frames
//! put together, requests that wait, batches decompressed. Each is overwritten when it is freed or
//! grows out of its place. All buffers of bytes count as such, as do large blocks of whatever kind
//! (a codec's window). What is smaller and no byte buffer, such as a hop, holds none, and is freed
//! as it is.
#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout};

/// From here on a block is overwritten whatever it was. A codec's window has 32 KiB and more.
const LARGE: usize = 16 << 10;

/// Overwrites for another allocator.
pub struct Overwriting<A>(pub A);

fn may_hold_payload(layout: Layout) -> bool {
    layout.align() == 1 || layout.size() >= LARGE
}

// SAFETY: all blocks come from the inner allocator with the layout that is asked for, and go back
// to it with the same.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Overwriting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if may_hold_payload(layout) {
            // SAFETY: the block is the caller's until it is given back below, and has this number
            // of bytes. The inner allocator is foreign code, so the writes are not left out as
            // those to memory that is not read again.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !may_hold_payload(layout) {
            // SAFETY: the caller's promise.
            return unsafe { self.0.realloc(block, layout, size) };
        }
        // The inner allocator would free the old block as it is.
        // SAFETY: the caller's promise: the size is one that this alignment allows. Both blocks
        // have as many bytes as are copied, and are two.
        unsafe {
            let new = self.0.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::cell::RefCell;

    use super::*;

    /// Notes what blocks held when they were freed.
    #[derive(Default)]
    struct Noting(RefCell<Vec<Vec<u8>>>);

    // SAFETY: all is the system's.
    unsafe impl GlobalAlloc for Noting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: a block of this size, which the test has written.
            self.0.borrow_mut().push(unsafe { std::slice::from_raw_parts(block, layout.size()) }.to_vec());
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(block, layout) };
        }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn bytes_and_large_blocks_are_overwritten() {
        let allocator = Overwriting(Noting::default());
        for (size, align, left) in [(10, 1, 0), (LARGE, 8, 0), (LARGE - 8, 8, 7)] {
            let layout = layout(size, align);
            // SAFETY: a layout that is not empty; the block is written to its end and freed once.
            unsafe {
                let block = allocator.alloc(layout);
                block.write_bytes(7, size);
                allocator.dealloc(block, layout);
            }
            assert_eq!(allocator.0.0.borrow_mut().pop(), Some(vec![left; size]), "{size} {align}");
        }
    }

    #[test]
    fn what_grows_or_shrinks_leaves_nothing() {
        let allocator = Overwriting(Noting::default());
        for size in [100, 4] {
            // SAFETY: layouts that are not empty; blocks are written and read within their sizes,
            // and freed once.
            unsafe {
                let block = allocator.alloc(layout(10, 1));
                block.write_bytes(7, 10);
                let block = allocator.realloc(block, layout(10, 1), size);
                assert_eq!(allocator.0.0.borrow_mut().pop(), Some(vec![0; 10]));
                let kept = std::slice::from_raw_parts(block, size.min(10));
                assert!(kept.iter().all(|byte| *byte == 7), "{kept:?}");
                allocator.dealloc(block, layout(size, 1));
            }
            allocator.0.0.borrow_mut().clear();
        }
    }
}
