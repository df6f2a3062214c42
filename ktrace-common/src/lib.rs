//! What the kernel side and the agent both read: event layouts, `#[repr(C)]`, without padding.
#![no_std]
