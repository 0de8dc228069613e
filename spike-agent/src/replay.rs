//! Replays a recording: stands in for the servers (`stub`), or sends the requests again and compares (`drive`).
//!
//! `load` reads the file, `wire` takes connections apart into exchanges, `parts` and `noise` tell what a message says and
//! what of it does not count. All of that is plain code; `stub` answers on sockets that it is given.

pub mod drive;
mod exchange;
mod flow;
mod load;
mod noise;
mod parts;
pub mod stub;
pub mod wire;

pub use exchange::{Answer, Exchange, Header, Sent, Talk};
pub use flow::{Flow, Piece};
pub use load::{LoadError, Loaded, load};
pub use noise::{Learned, Matcher, Noise, Rule, RuleSide, learn};
pub use parts::{Difference, Parts};
