//! The contract of the kernel programs and the agent: shared types, and the pure decisions both sides must agree on.
#![no_std]

pub mod address;
pub mod chance;
pub mod config;
pub mod counter;
pub mod edge;
pub mod event;
pub mod held;
pub mod histogram;
pub mod name;
pub mod packet;
pub mod packet_fault;
pub mod rule;
pub mod sample;
pub mod socket;
pub mod task;
#[cfg(feature = "user")]
mod user;

/// Asserts a type's size and alignment where it is defined, so that kernel and user space cannot drift apart.
macro_rules! layout {
    ($type:ty, size = $size:expr, align = $align:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        const _: () = assert!(core::mem::align_of::<$type>() == $align);
    };
}
pub(crate) use layout;
