//! From the samples of the kernel side to calls with names: who asked what of whom, how it went, how long it took.
//!
//! ```text
//! hooks/traffic (kernel) --samples--> Connections --bytes in order--> protocol::Conversation --calls--> Book, Feed
//!                                     Budget --how much to sample--> hooks/traffic
//! ```

mod book;
mod budget;
mod connections;
mod datagrams;
mod feed;
mod order;
#[cfg(test)]
mod tests;
mod view;
mod worker;

pub use book::{Book, EdgeProtocol};
pub use budget::{Budget, Turn};
pub use connections::{Connections, Sample, Want};
pub use feed::{EdgeCall, Feed, Followed};
pub use view::view;
pub use worker::{Source, Worker};
